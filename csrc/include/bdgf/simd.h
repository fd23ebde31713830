// Short vectors for the CPU kernels: one set of names for every instruction set level.
//
// Include only from csrc/cpu/isa/<level>.cpp (through isa/kernels.inc), which defines
//   BDGF_ISA    the namespace of the level: scalar, avx2, avx512, neon
//   BDGF_LANES  floats per vector: 1, 8, 16, 4
// Everything lives in bdgf::BDGF_ISA and is force-inlined: no function compiled with wide instructions may carry a
// name that another translation unit shares, or the linker could hand it to a CPU without them. For the same reason
// no std header is allowed here; <immintrin.h> and <arm_neon.h> are C headers of always-inline functions.
//
// Vf, Vi, Vu are GCC/Clang vector types: + - * / & | ^ ~ << >> and comparisons work lane by lane, a comparison gives
// a Vi mask of -1/0, and a scalar operand is broadcast. What those operators lack stands below.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "bdgf/types.h"

#if BDGF_LANES >= 8
#include <immintrin.h>
#elif BDGF_LANES == 4 && defined(__aarch64__)
#include <arm_neon.h>
#define BDGF_NEON 1
#endif

#define BDGF_INLINE static inline __attribute__((always_inline))

namespace bdgf {
namespace BDGF_ISA {

constexpr int kLanes = BDGF_LANES;
typedef float Vf __attribute__((vector_size(4 * BDGF_LANES)));
typedef int32_t Vi __attribute__((vector_size(4 * BDGF_LANES)));
typedef uint32_t Vu __attribute__((vector_size(4 * BDGF_LANES)));
typedef uint16_t Vh __attribute__((vector_size(2 * BDGF_LANES)));
typedef uint64_t Vq __attribute__((vector_size(8 * BDGF_LANES)));
// The same, at any address and aliasing anything.
typedef float VfAny __attribute__((vector_size(4 * BDGF_LANES), aligned(4), may_alias));
typedef int32_t ViAny __attribute__((vector_size(4 * BDGF_LANES), aligned(4), may_alias));
typedef uint16_t VhAny __attribute__((vector_size(2 * BDGF_LANES), aligned(2), may_alias));

// ---------------------------------------------------------------------------------------------- construction
BDGF_INLINE Vf splat(float x) { return x - Vf{}; }  // x - 0 keeps the sign of -0, 0 + x would not
BDGF_INLINE Vi splat_i(int32_t x) { return x - Vi{}; }
BDGF_INLINE Vu splat_u(uint32_t x) { return x - Vu{}; }
BDGF_INLINE Vi iota() {
  Vi v{};
  for (int i = 0; i < kLanes; ++i) v[i] = i;
  return v;
}
BDGF_INLINE Vf select(Vi mask, Vf a, Vf b) { return mask ? a : b; }
BDGF_INLINE Vf to_float(Vi a) { return __builtin_convertvector(a, Vf); }
BDGF_INLINE Vi to_int(Vf a) { return __builtin_convertvector(a, Vi); }  // toward zero; the value must fit

// ---------------------------------------------------------------------------------------------- arithmetic
// fma: one rounding on every level (a library call where the CPU has none): for results that must be bit-identical.
// madd: fused where that is fast, two roundings elsewhere: for everything else.
BDGF_INLINE Vf fma(Vf a, Vf b, Vf c) {
#if BDGF_LANES == 16
  return _mm512_fmadd_ps(a, b, c);
#elif BDGF_LANES == 8
  return _mm256_fmadd_ps(a, b, c);
#elif BDGF_NEON
  return vfmaq_f32(c, a, b);
#else
  Vf r{};
  for (int i = 0; i < kLanes; ++i) r[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return r;
#endif
}
BDGF_INLINE Vf madd(Vf a, Vf b, Vf c) {
#if BDGF_LANES >= 8 || BDGF_NEON
  return fma(a, b, c);
#else
  return a * b + c;
#endif
}
BDGF_INLINE Vf fma(Vf a, Vf b, float c) { return fma(a, b, splat(c)); }
BDGF_INLINE Vf madd(Vf a, Vf b, float c) { return madd(a, b, splat(c)); }

BDGF_INLINE Vf sqrt(Vf a) {
#if BDGF_LANES == 16
  return _mm512_sqrt_ps(a);
#elif BDGF_LANES == 8
  return _mm256_sqrt_ps(a);
#elif BDGF_NEON
  return vsqrtq_f32(a);
#else
  for (int i = 0; i < kLanes; ++i) a[i] = __builtin_sqrtf(a[i]);
  return a;
#endif
}
// Comparisons with NaN are false, so min and max return b when either operand is NaN: put the data second to keep NaN.
BDGF_INLINE Vf min(Vf a, Vf b) {
#if BDGF_LANES == 16
  return _mm512_min_ps(a, b);
#elif BDGF_LANES == 8
  return _mm256_min_ps(a, b);
#else
  return a < b ? a : b;
#endif
}
BDGF_INLINE Vf max(Vf a, Vf b) {
#if BDGF_LANES == 16
  return _mm512_max_ps(a, b);
#elif BDGF_LANES == 8
  return _mm256_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}
// x within [low, high]; NaN stays NaN.
BDGF_INLINE Vf clamp(Vf x, float low, float high) {
#if BDGF_NEON  // which has a minimum that keeps NaN, in one instruction
  return vmaxq_f32(splat(low), vminq_f32(splat(high), x));
#else
  return max(splat(low), min(splat(high), x));
#endif
}
BDGF_INLINE Vf abs(Vf a) { return (Vf)((Vi)a & 0x7fffffff); }

// ---------------------------------------------------------------------------------------------- 16-bit formats
BDGF_INLINE Vf widen_bf16(Vh h) {
#if BDGF_NEON
  return (Vf)vshll_n_u16((uint16x4_t)h, 16);
#else
  return (Vf)(__builtin_convertvector(h, Vu) << 16);
#endif
}
BDGF_INLINE Vh narrow_bf16(Vf f) {  // to nearest, ties to even; NaN stays NaN
  Vu u = (Vu)f;
  Vu rounded = u + 0x7fffu + ((u >> 16) & 1u);
  rounded = (f == f) ? rounded : (Vu)(u | 0x00400000u);
  return __builtin_convertvector(rounded >> 16, Vh);
}
BDGF_INLINE Vf widen_f16(Vh h) {
#if BDGF_LANES == 16
  return _mm512_cvtph_ps((__m256i)h);
#elif BDGF_LANES == 8
  return _mm256_cvtph_ps((__m128i)h);
#elif BDGF_NEON
  return vcvt_f32_f16((float16x4_t)h);
#else
  Vf r{};
  for (int i = 0; i < kLanes; ++i) r[i] = f16_to_float(h[i]);
  return r;
#endif
}
BDGF_INLINE Vh narrow_f16(Vf f) {
#if BDGF_LANES == 16
  return (Vh)_mm512_cvtps_ph(f, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif BDGF_LANES == 8
  return (Vh)_mm256_cvtps_ph(f, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif BDGF_NEON
  return (Vh)vcvt_f16_f32(f);
#else
  Vh r{};
  for (int i = 0; i < kLanes; ++i) r[i] = float_to_f16(f[i]);
  return r;
#endif
}

// ---------------------------------------------------------------------------------------------- memory
// load/store: kLanes elements from any address. load_n/store_n: the first n of them, 0 <= n <= kLanes (n = kLanes is
// the whole vector); nothing beyond is touched, the missing lanes read as 0.
BDGF_INLINE Vf load(const float* p) { return *(const VfAny*)p; }
BDGF_INLINE Vf load(const bf16* p) { return widen_bf16(*(const VhAny*)p); }
BDGF_INLINE Vf load(const f16* p) { return widen_f16(*(const VhAny*)p); }
BDGF_INLINE void store(float* p, Vf v) { *(VfAny*)p = v; }
BDGF_INLINE void store(bf16* p, Vf v) { *(VhAny*)p = narrow_bf16(v); }
BDGF_INLINE void store(f16* p, Vf v) { *(VhAny*)p = narrow_f16(v); }

#if BDGF_LANES == 16
BDGF_INLINE __mmask16 lane_mask(int n) { return (__mmask16)((1u << n) - 1u); }
#elif BDGF_LANES == 8
BDGF_INLINE __m256i lane_mask(int n) { return (__m256i)(iota() < n); }
#endif
BDGF_INLINE Vh load_bits_n(const uint16_t* p, int n) {
#if BDGF_LANES == 16
  return (Vh)_mm256_maskz_loadu_epi16(lane_mask(n), p);
#else
#if BDGF_NEON
  if (n == kLanes) return *(const VhAny*)p;
#endif
  Vh v{};
  for (int i = 0; i < n; ++i) v[i] = p[i];
  return v;
#endif
}
BDGF_INLINE void store_bits_n(uint16_t* p, Vh v, int n) {
#if BDGF_LANES == 16
  _mm256_mask_storeu_epi16(p, lane_mask(n), (__m256i)v);
#else
#if BDGF_NEON
  if (n == kLanes) {
    *(VhAny*)p = v;
    return;
  }
#endif
  for (int i = 0; i < n; ++i) p[i] = v[i];
#endif
}
BDGF_INLINE Vf load_n(const float* p, int n) {
#if BDGF_LANES == 16
  return _mm512_maskz_loadu_ps(lane_mask(n), p);
#elif BDGF_LANES == 8
  return _mm256_maskload_ps(p, lane_mask(n));
#elif BDGF_NEON
  if (n == kLanes) return load(p);
  Vf v{};
  if (n & 2) v = vcombine_f32(vld1_f32(p), vdup_n_f32(0));
  if (n & 1) v = n & 2 ? vld1q_lane_f32(p + 2, v, 2) : vld1q_lane_f32(p, v, 0);
  return v;
#else
  Vf v{};
  for (int i = 0; i < n; ++i) v[i] = p[i];
  return v;
#endif
}
BDGF_INLINE void store_n(float* p, Vf v, int n) {
#if BDGF_LANES == 16
  _mm512_mask_storeu_ps(p, lane_mask(n), v);
#elif BDGF_LANES == 8
  _mm256_maskstore_ps(p, lane_mask(n), v);
#elif BDGF_NEON
  if (n == kLanes) return store(p, v);
  if (n & 2) vst1_f32(p, vget_low_f32(v));
  if (n & 1) n & 2 ? vst1q_lane_f32(p + 2, v, 2) : vst1q_lane_f32(p, v, 0);
#else
  for (int i = 0; i < n; ++i) p[i] = v[i];
#endif
}
BDGF_INLINE Vf load_n(const bf16* p, int n) { return widen_bf16(load_bits_n(&p->bits, n)); }
BDGF_INLINE Vf load_n(const f16* p, int n) { return widen_f16(load_bits_n(&p->bits, n)); }
BDGF_INLINE void store_n(bf16* p, Vf v, int n) { store_bits_n(&p->bits, narrow_bf16(v), n); }
BDGF_INLINE void store_n(f16* p, Vf v, int n) { store_bits_n(&p->bits, narrow_f16(v), n); }

// Elements `stride` apart, the first n of them; stride in elements, any sign.
template <class T>
BDGF_INLINE Vf load_strided(const T* p, int64_t stride, int n) {
#if BDGF_NEON  // straight into the lanes: through memory, the load would wait for all four stores
  if (n == kLanes) return Vf{scalar_load(p), scalar_load(p + stride), scalar_load(p + 2 * stride), scalar_load(p + 3 * stride)};
#endif
  float lane[kLanes] = {};
  for (int i = 0; i < n; ++i) lane[i] = scalar_load(p + i * stride);
  return load(lane);
}
template <class T>
BDGF_INLINE void store_strided(T* p, int64_t stride, Vf v, int n) {
  for (int i = 0; i < n; ++i) scalar_store(p + i * stride, v[i]);
}

// ---------------------------------------------------------------------------------------------- across lanes
BDGF_INLINE bool all_lanes(Vi mask) {
#if BDGF_LANES == 16
  return _mm512_movepi32_mask((__m512i)mask) == 0xffff;
#elif BDGF_LANES == 8
  return _mm256_movemask_ps((__m256)mask) == 0xff;
#elif BDGF_NEON
  return vminvq_u32((uint32x4_t)mask) != 0;
#else
  bool all = true;
  for (int i = 0; i < kLanes; ++i) all = all && mask[i];
  return all;
#endif
}
// Reductions pair lane i with lane i + half (NEON: its neighbour): the same tree, hence the same bits, on every run.
BDGF_INLINE float hsum(Vf v) {
#if BDGF_NEON
  return vaddvq_f32(v);
#endif
  float lane[kLanes];
  store(lane, v);
  for (int half = kLanes / 2; half; half /= 2)
    for (int i = 0; i < half; ++i) lane[i] += lane[i + half];
  return lane[0];
}
BDGF_INLINE float hmax(Vf v) {  // NaN if any lane is
#if BDGF_NEON
  return vmaxvq_f32(v);
#endif
  float m = v[0];
  for (int i = 1; i < kLanes; ++i) m = v[i] > m || v[i] != v[i] ? v[i] : m;
  return m;
}

// Lanes by ... by + n - 1 of v moved down to 0 ... n - 1, by + n <= kLanes; the other lanes are 0.
BDGF_INLINE Vf move_down(Vf v, int by, int n) {
#if BDGF_LANES == 16
  return _mm512_maskz_permutexvar_ps(lane_mask(n), (__m512i)(iota() + by), v);
#elif BDGF_LANES == 8
  return (Vf)((__m256i)_mm256_permutevar8x32_ps(v, (__m256i)(iota() + by)) & lane_mask(n));
#elif BDGF_NEON  // a table of 16 bytes: what is asked for beyond it is 0
  const uint8x16_t first = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const uint8x16_t byte = vaddq_u8(first, vdupq_n_u8((uint8_t)(4 * by)));
  return (Vf)vqtbl1q_u8((uint8x16_t)v, vorrq_u8(byte, (uint8x16_t)(iota() >= n)));
#else
  float lane[2 * kLanes] = {};
  store(lane, v);
  return load_n(lane + by, n);
#endif
}

// Interleave: element 4 * j + k of the result = (k-th vector)[lane of block j]. The lane that holds block j is chosen so that no
// data cross 128-bit halves: lane_of_block(j), and back block_of_lane(i).
constexpr int kQuads = kLanes < 4 ? 1 : kLanes / 4;
constexpr int lane_of_block(int j) { return kLanes < 4 ? j : 4 * (j % kQuads) + j / kQuads; }
constexpr int block_of_lane(int i) { return kLanes < 4 ? i : kQuads * (i % 4) + i / 4; }

// Numbers of kLanes blocks in order, to the lanes that hold them.
BDGF_INLINE Vu load_blocks(const uint32_t* p) {
#if BDGF_LANES >= 8
  Vi lane{};
  for (int i = 0; i < kLanes; ++i) lane[i] = block_of_lane(i);
#endif
#if BDGF_LANES == 16
  return (Vu)_mm512_permutexvar_epi32((__m512i)lane, _mm512_loadu_si512(p));
#elif BDGF_LANES == 8
  return (Vu)_mm256_permutevar8x32_epi32(_mm256_loadu_si256((const __m256i_u*)p), (__m256i)lane);
#else
  Vu v{};
  for (int i = 0; i < kLanes; ++i) v[i] = p[block_of_lane(i)];
  return v;
#endif
}
BDGF_INLINE void interleave(Vf a, Vf b, Vf c, Vf d, Vf out[4]) {
#if BDGF_LANES == 16
  __m512 ab0 = _mm512_unpacklo_ps(a, b), ab1 = _mm512_unpackhi_ps(a, b);
  __m512 cd0 = _mm512_unpacklo_ps(c, d), cd1 = _mm512_unpackhi_ps(c, d);
  out[0] = (Vf)_mm512_unpacklo_pd((__m512d)ab0, (__m512d)cd0);
  out[1] = (Vf)_mm512_unpackhi_pd((__m512d)ab0, (__m512d)cd0);
  out[2] = (Vf)_mm512_unpacklo_pd((__m512d)ab1, (__m512d)cd1);
  out[3] = (Vf)_mm512_unpackhi_pd((__m512d)ab1, (__m512d)cd1);
#elif BDGF_LANES == 8
  __m256 ab0 = _mm256_unpacklo_ps(a, b), ab1 = _mm256_unpackhi_ps(a, b);
  __m256 cd0 = _mm256_unpacklo_ps(c, d), cd1 = _mm256_unpackhi_ps(c, d);
  out[0] = (Vf)_mm256_unpacklo_pd((__m256d)ab0, (__m256d)cd0);
  out[1] = (Vf)_mm256_unpackhi_pd((__m256d)ab0, (__m256d)cd0);
  out[2] = (Vf)_mm256_unpacklo_pd((__m256d)ab1, (__m256d)cd1);
  out[3] = (Vf)_mm256_unpackhi_pd((__m256d)ab1, (__m256d)cd1);
#elif BDGF_NEON
  const float32x4_t ab0 = vzip1q_f32(a, b), ab1 = vzip2q_f32(a, b), cd0 = vzip1q_f32(c, d), cd1 = vzip2q_f32(c, d);
  out[0] = (Vf)vzip1q_f64((float64x2_t)ab0, (float64x2_t)cd0);
  out[1] = (Vf)vzip2q_f64((float64x2_t)ab0, (float64x2_t)cd0);
  out[2] = (Vf)vzip1q_f64((float64x2_t)ab1, (float64x2_t)cd1);
  out[3] = (Vf)vzip2q_f64((float64x2_t)ab1, (float64x2_t)cd1);
#else
  float lane[4 * kLanes];
  for (int i = 0; i < kLanes; ++i) {
    float* block = lane + 4 * block_of_lane(i);
    block[0] = a[i], block[1] = b[i], block[2] = c[i], block[3] = d[i];
  }
  for (int j = 0; j < 4; ++j) out[j] = load(lane + j * kLanes);
#endif
}
BDGF_INLINE void store_interleaved(float* p, Vf a, Vf b, Vf c, Vf d) {
#if BDGF_NEON
  const float32x4x4_t all = {{a, b, c, d}};
  vst4q_f32(p, all);
#else
  Vf out[4];
  interleave(a, b, c, d, out);
  for (int j = 0; j < 4; ++j) store(p + j * kLanes, out[j]);
#endif
}

}  // namespace BDGF_ISA
}  // namespace bdgf
