// The counter-based noise: Philox4x32-10 words and the normals made of them, one definition for CPU vectors, CUDA
// threads and (in words, below) every other implementation. The bits are a contract: two levels, two machines, two
// backends give the same number for the same (seed, purpose, stream, sample, element).
//
// Addressing. key = (seed mod 2^32, seed div 2^32) after the seed was XORed with the constant of its purpose;
//   counter = (block mod 2^32, block div 2^32, sample id mod 2^32, stream mod 2^32), block = element >> 2.
//   Element 4 * block + i takes normal i of the block; noise.h says how elements are numbered.
// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011): ten rounds
//   (c0, c1, c2, c3) <- (hi(M1 c2) ^ c1 ^ k0, lo(M1 c2), hi(M0 c0) ^ c3 ^ k1, lo(M0 c0)),
//   k0 += 0x9E3779B9, k1 += 0xBB67AE85 between rounds. The four words that leave are w0..w3.
// Normals. (w0, w1) give normals 0 and 1, (w2, w3) normals 2 and 3, by the same rule; all arithmetic in f32, each
// line one operation rounded to nearest even, fma only where it is written, none where it is not:
//   a  = float(int32(w0 >> 1))               exact conversion of 31 bits, rounded to nearest even
//   u  = a * 2^-31 + 2^-32                   in (0, 1]; the product is exact, so fused or not is the same
//   i  = int32(bits(u)) - 0x3f3504f3
//   e  = i >> 23 (arithmetic)                exponent, such that m is in [sqrt(1/2), sqrt(2))
//   m  = float_of_bits(bits(u) - (i & 0xff800000))     i & 0xff800000 is e << 23
//   f  = m - 1                               exact
//   p  = L0; p = fma(p, f, Lk) for k = 1..7  Horner, L0 the highest power
//   q  = fma(f * f, p, f * -2)               -2 log(m); f * f is rounded, f * -2 exact
//   r  = sqrt(fma(float(e), LN, q))          correctly rounded square root; LN = -2 ln 2. The radius.
//   x  = float(int32(w1)) * HALF_TURN        in [-pi/2, pi/2], HALF_TURN = f32(pi / 2) * 2^-31
//   z  = x * x
//   s  = S0; s = fma(s, z, Sk) for k = 1..3;  s = fma(z * x, s, x)        sin x
//   c  = C0; c = fma(c, z, Ck) for k = 1..4;  c = fma(c, z, 1)            cos x >= 0 but for rounding
//   normal 0 = float_of_bits(bits(r * c) ^ (w0 << 31))     the bit of w0 that a left out picks the other half circle
//   normal 1 = r * s
// The largest normal is sqrt(64 ln 2) = 6.66. Bit patterns instead of sign tests: no branch, no comparison.
#pragma once
#include <stdint.h>

#ifdef __CUDACC__
#define BDGF_FN static __device__ __forceinline__
#else
#define BDGF_FN static inline __attribute__((always_inline))
#endif

#ifndef BDGF_ISA
#define BDGF_ISA base  // a translation unit outside csrc/cpu/isa
#endif

namespace bdgf {
namespace BDGF_ISA {

// What a stream of noise is for. Each purpose XORs its own constant into the seed, so that, say, the noise that fills
// a hidden channel never equals the target's. Append only: the numbers are part of every recorded seed.
enum Purpose {
  kTargetNoise = 0,  // the seed as given
  kMaskFill = 1,
  kTimestep = 2,
  kMaskChoice = 3,
  kAugmentation = 4,
  kSampler = 5,
  kDropout = 6,
  kPurposes = 7,
};
constexpr uint64_t purpose_constant(int purpose) { return 0x9E3779B97F4A7C15ull * (uint64_t)purpose; }

// The coefficients of the contract above.
constexpr float kL0 = -0.17472130060195923f, kL1 = 0.2861863374710083f, kL2 = -0.2983667850494385f,
                kL3 = 0.3314060866832733f, kL4 = -0.3992404341697693f, kL5 = 0.5000352263450623f,
                kL6 = -0.6666790246963501f, kL7 = 0.9999998211860657f;
constexpr float kLN = -1.3862943649291992f;
constexpr float kHalfTurn = 7.31459059988282e-10f;
constexpr float kS0 = 2.605780537123792e-06f, kS1 = -0.00019809602235909551f, kS2 = 0.00833306647837162f,
                kS3 = -0.16666659712791443f;
constexpr float kC0 = -2.607710598567792e-07f, kC1 = 2.4761886379565112e-05f, kC2 = -0.00138884037733078f,
                kC3 = 0.04166664183139801f, kC4 = -0.5f;

// M is the arithmetic: types F, I, U (f32, i32, u32: vectors or scalars) and W (a Philox word), and
//   W to_word(U), U from_word(W), multiply_wide(W, u32, W& high, W& low), W xor3(W, W, u32)
//   F mul(F, F|float), add(F, F|float), fma(F, F, F|float), sqrt(F), F splat(float)    each rounded once
//   F from_int(I), I as_int(F), F as_float(I), I to_signed(U)                           the last three keep the bits
template <class M>
BDGF_FN void philox_rounds(typename M::W& c0, typename M::W& c1, typename M::W& c2, typename M::W& c3, uint32_t k0,
                           uint32_t k1) {
#ifdef __CUDACC__
#pragma unroll
#else
#pragma GCC unroll 10
#endif
  for (int round = 0; round < 10; ++round) {
    typename M::W high0, low0, high1, low1;
    M::multiply_wide(c0, 0xD2511F53u, high0, low0);
    M::multiply_wide(c2, 0xCD9E8D57u, high1, low1);
    c0 = M::xor3(high1, c1, k0);
    c2 = M::xor3(high0, c3, k1);
    c1 = low1;
    c3 = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

template <class M>
BDGF_FN void box_muller(typename M::U w0, typename M::U w1, typename M::F& normal0, typename M::F& normal1) {
  typedef typename M::F F;
  typedef typename M::I I;
  F u = M::fma(M::from_int(M::to_signed(w0 >> 1)), M::splat(0x1p-31f), 0x1p-32f);
  I bits = M::as_int(u);
  I i = bits - 0x3f3504f3;
  I e = i >> 23;
  F f = M::add(M::as_float(bits - (i & -0x800000)), -1.0f);
  F p = M::splat(kL0);
  p = M::fma(p, f, kL1);
  p = M::fma(p, f, kL2);
  p = M::fma(p, f, kL3);
  p = M::fma(p, f, kL4);
  p = M::fma(p, f, kL5);
  p = M::fma(p, f, kL6);
  p = M::fma(p, f, kL7);
  F q = M::fma(M::mul(f, f), p, M::mul(f, -2.0f));
  F r = M::sqrt(M::fma(M::from_int(e), M::splat(kLN), q));

  F x = M::mul(M::from_int(M::to_signed(w1)), kHalfTurn);
  F z = M::mul(x, x);
  F s = M::splat(kS0);
  s = M::fma(s, z, kS1);
  s = M::fma(s, z, kS2);
  s = M::fma(s, z, kS3);
  s = M::fma(M::mul(z, x), s, x);
  F c = M::splat(kC0);
  c = M::fma(c, z, kC1);
  c = M::fma(c, z, kC2);
  c = M::fma(c, z, kC3);
  c = M::fma(c, z, kC4);
  c = M::fma(c, z, 1.0f);
  normal0 = M::as_float(M::as_int(M::mul(r, c)) ^ M::to_signed(w0 << 31));
  normal1 = M::mul(r, s);
}

// The four words, and the four normals, of one block (per lane, where M is a vector).
template <class M>
BDGF_FN void words4(typename M::U block_low, typename M::U block_high, typename M::U sample, typename M::U stream,
                    uint64_t key, typename M::U word[4]) {
  typename M::W c0 = M::to_word(block_low), c1 = M::to_word(block_high);
  typename M::W c2 = M::to_word(sample), c3 = M::to_word(stream);
  philox_rounds<M>(c0, c1, c2, c3, (uint32_t)key, (uint32_t)(key >> 32));
  word[0] = M::from_word(c0);
  word[1] = M::from_word(c1);
  word[2] = M::from_word(c2);
  word[3] = M::from_word(c3);
}
template <class M>
BDGF_FN void normal4(typename M::U block_low, typename M::U block_high, typename M::U sample, typename M::U stream,
                     uint64_t key, typename M::F normal[4]) {
  typename M::U word[4];
  words4<M>(block_low, block_high, sample, stream, key, word);
  box_muller<M>(word[0], word[1], normal[0], normal[1]);
  box_muller<M>(word[2], word[3], normal[2], normal[3]);
}

#if defined(__CUDACC__) || defined(BDGF_CUDA_EMULATION)
// One thread, one block. The intrinsics are never contracted.
struct DeviceMath {
  typedef float F;
  typedef int32_t I;
  typedef uint32_t U;
  typedef uint32_t W;
  BDGF_FN W to_word(U a) { return a; }
  BDGF_FN U from_word(W a) { return a; }
  BDGF_FN void multiply_wide(W a, uint32_t m, W& high, W& low) { high = __umulhi(a, m), low = a * m; }
  BDGF_FN W xor3(W a, W b, uint32_t key) { return a ^ b ^ key; }
  BDGF_FN F splat(float a) { return a; }
  BDGF_FN F mul(F a, F b) { return __fmul_rn(a, b); }
  BDGF_FN F add(F a, F b) { return __fadd_rn(a, b); }
  BDGF_FN F fma(F a, F b, F c) { return __fmaf_rn(a, b, c); }
  BDGF_FN F madd(F a, F b, F c) { return __fmaf_rn(a, b, c); }
  BDGF_FN F sqrt(F a) { return __fsqrt_rn(a); }
  BDGF_FN F from_int(I a) { return __int2float_rn(a); }
  BDGF_FN I as_int(F a) { return __float_as_int(a); }
  BDGF_FN F as_float(I a) { return __int_as_float(a); }
  BDGF_FN I to_signed(U a) { return (I)a; }
};
#endif

}  // namespace BDGF_ISA
}  // namespace bdgf
