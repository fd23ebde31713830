// Vectors of 32-bit words that are multiplied to 64 bits: what the counter-based generator needs beyond simd.h.
//
// On x86 the multiplier takes the even 32-bit lanes only, so a Word keeps even
// and odd lanes apart, each in the low half of a 64-bit lane; the high halves hold rubbish that nothing reads.
#pragma once
#include "bdgf/simd.h"

namespace bdgf {
namespace BDGF_ISA {

#if BDGF_LANES == 16
struct Word {
  __m512i even, odd;
};
BDGF_INLINE Word to_word(Vu a) { return {(__m512i)a, _mm512_srli_epi64((__m512i)a, 32)}; }
BDGF_INLINE Vu from_word(Word a) {
  return (Vu)_mm512_mask_shuffle_epi32(a.even, 0xaaaa, a.odd, (_MM_PERM_ENUM)0xa0);
}
BDGF_INLINE void multiply_wide(Word a, uint32_t m, Word& high, Word& low) {
  __m512i k = _mm512_set1_epi64(m);
  low = {_mm512_mul_epu32(a.even, k), _mm512_mul_epu32(a.odd, k)};
  // A shuffle, because a shift would run on the multiplier's own port.
  high = {_mm512_shuffle_epi32(low.even, (_MM_PERM_ENUM)0xf5), _mm512_shuffle_epi32(low.odd, (_MM_PERM_ENUM)0xf5)};
}
BDGF_INLINE Word xor3(Word a, Word b, uint32_t key) {
  __m512i k = _mm512_set1_epi64(key);
  return {_mm512_ternarylogic_epi64(a.even, b.even, k, 0x96), _mm512_ternarylogic_epi64(a.odd, b.odd, k, 0x96)};
}
#elif BDGF_LANES == 8
struct Word {
  __m256i even, odd;
};
BDGF_INLINE Word to_word(Vu a) { return {(__m256i)a, _mm256_srli_epi64((__m256i)a, 32)}; }
BDGF_INLINE Vu from_word(Word a) { return (Vu)_mm256_blend_epi32(a.even, _mm256_slli_epi64(a.odd, 32), 0xaa); }
BDGF_INLINE void multiply_wide(Word a, uint32_t m, Word& high, Word& low) {
  __m256i k = _mm256_set1_epi64x(m);
  low = {_mm256_mul_epu32(a.even, k), _mm256_mul_epu32(a.odd, k)};
  high = {_mm256_shuffle_epi32(low.even, 0xf5), _mm256_shuffle_epi32(low.odd, 0xf5)};
}
BDGF_INLINE Word xor3(Word a, Word b, uint32_t key) {
  __m256i k = _mm256_set1_epi64x(key);
  return {_mm256_xor_si256(_mm256_xor_si256(a.even, b.even), k), _mm256_xor_si256(_mm256_xor_si256(a.odd, b.odd), k)};
}
#else
typedef Vu Word;
BDGF_INLINE Word to_word(Vu a) { return a; }
BDGF_INLINE Vu from_word(Word a) { return a; }
BDGF_INLINE void multiply_wide(Word a, uint32_t m, Word& high, Word& low) {
#if BDGF_NEON  // spelt out: compilers take the generic form apart lane by lane
  const uint32x4_t k = vdupq_n_u32(m), x = (uint32x4_t)a;
  const uint32x4_t first = (uint32x4_t)vmull_u32(vget_low_u32(x), vget_low_u32(k)), second = (uint32x4_t)vmull_high_u32(x, k);
  high = (Vu)vuzp2q_u32(first, second), low = (Vu)vuzp1q_u32(first, second);
#else
  Vq product = __builtin_convertvector(a, Vq) * (uint64_t)m;
  high = __builtin_convertvector(product >> 32, Vu);
  low = __builtin_convertvector(product, Vu);
#endif
}
BDGF_INLINE Word xor3(Word a, Word b, uint32_t key) { return a ^ b ^ key; }
#endif

}  // namespace BDGF_ISA
}  // namespace bdgf
