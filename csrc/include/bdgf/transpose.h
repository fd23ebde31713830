// Transposes of square register blocks, and what stands on them (see simd.h for where this may be included).
#pragma once
#include "bdgf/simd.h"

namespace bdgf {
namespace BDGF_ISA {

// r[i][j] <-> r[j][i] for a kLanes x kLanes block.
BDGF_INLINE void transpose(Vf r[kLanes]) {
#if BDGF_LANES == 16
  __m512 t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {  // then 128-bit part m of r[i + k] holds column 4 m + k of rows i ... i + 3
    r[i] = (Vf)_mm512_unpacklo_pd((__m512d)t[i], (__m512d)t[i + 2]);
    r[i + 1] = (Vf)_mm512_unpackhi_pd((__m512d)t[i], (__m512d)t[i + 2]);
    r[i + 2] = (Vf)_mm512_unpacklo_pd((__m512d)t[i + 1], (__m512d)t[i + 3]);
    r[i + 3] = (Vf)_mm512_unpackhi_pd((__m512d)t[i + 1], (__m512d)t[i + 3]);
  }
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    __m512 low0 = _mm512_shuffle_f32x4(r[k], r[k + 4], 0x44), low1 = _mm512_shuffle_f32x4(r[k + 8], r[k + 12], 0x44);
    __m512 high0 = _mm512_shuffle_f32x4(r[k], r[k + 4], 0xee), high1 = _mm512_shuffle_f32x4(r[k + 8], r[k + 12], 0xee);
    r[k] = _mm512_shuffle_f32x4(low0, low1, 0x88);
    r[k + 4] = _mm512_shuffle_f32x4(low0, low1, 0xdd);
    r[k + 8] = _mm512_shuffle_f32x4(high0, high1, 0x88);
    r[k + 12] = _mm512_shuffle_f32x4(high0, high1, 0xdd);
  }
#elif BDGF_LANES == 8
  __m256 t[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    r[i] = (Vf)_mm256_unpacklo_pd((__m256d)t[i], (__m256d)t[i + 2]);
    r[i + 1] = (Vf)_mm256_unpackhi_pd((__m256d)t[i], (__m256d)t[i + 2]);
    r[i + 2] = (Vf)_mm256_unpacklo_pd((__m256d)t[i + 1], (__m256d)t[i + 3]);
    r[i + 3] = (Vf)_mm256_unpackhi_pd((__m256d)t[i + 1], (__m256d)t[i + 3]);
  }
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    Vf low = _mm256_permute2f128_ps(r[k], r[k + 4], 0x20);
    r[k + 4] = _mm256_permute2f128_ps(r[k], r[k + 4], 0x31);
    r[k] = low;
  }
#elif BDGF_NEON
  Vf t[4];
  interleave(r[0], r[1], r[2], r[3], t);
  for (int i = 0; i < 4; ++i) r[i] = t[i];
#else
  for (int i = 0; i < kLanes; ++i)
    for (int j = 0; j < i; ++j) {
      const float kept = r[i][j];
      r[i][j] = r[j][i];
      r[j][i] = kept;
    }
#endif
}

// Lane i of the result is the sum of the lanes of r[i]; the same tree on every run. Destroys r.
BDGF_INLINE Vf row_sums(Vf r[kLanes]) {
#if BDGF_NEON  // sums of neighbours, twice
  return vpaddq_f32(vpaddq_f32(r[0], r[1]), vpaddq_f32(r[2], r[3]));
#endif
  transpose(r);
#pragma GCC unroll 4
  for (int half = kLanes / 2; half; half /= 2)
#pragma GCC unroll 8
    for (int i = 0; i < half; ++i) r[i] += r[i + half];
  return r[0];
}

}  // namespace BDGF_ISA
}  // namespace bdgf
