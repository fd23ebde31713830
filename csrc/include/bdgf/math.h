// Elementary functions of f32 vectors for the CPU kernels (see simd.h for where this may be included).
// Polynomials are minimax fits of our own; the error bounds are asserted by tests/native/test_math.py.
// NaN gives NaN everywhere. Not for noise: those functions live in philox.h, where every bit is fixed.
#pragma once
#include "bdgf/simd.h"

namespace bdgf {
namespace BDGF_ISA {

constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f;

#if BDGF_LANES == 16
// 2^(k/32), k = 0..31: two registers, looked up by vpermi2ps. With it degree 2 is enough for the rest, |r| <= 1/64,
// relative error 5.4e-8: nine instructions an exp2 where the polynomial alone takes ten.
alignas(64) static const float kPowers[32] = {
    1.0f, 1.0218971967697144f, 1.0442737340927124f, 1.0671404600143433f, 1.0905077457427979f, 1.114386796951294f,
    1.1387885808944702f, 1.1637248992919922f, 1.1892070770263672f, 1.215247392654419f, 1.2418577671051025f, 1.2690509557724f,
    1.2968395948410034f, 1.3252366781234741f, 1.3542555570602417f, 1.3839099407196045f, 1.4142135381698608f, 1.4451807737350464f,
    1.4768261909484863f, 1.5091644525527954f, 1.5422108173370361f, 1.5759809017181396f, 1.610490322113037f, 1.6457555294036865f,
    1.6817928552627563f, 1.7186193466186523f, 1.7562521696090698f, 1.7947090864181519f, 1.8340080976486206f, 1.8741676807403564f,
    1.9152065515518188f, 1.9571441411972046f};

// n must be (x + kRoundMagic32) as floats: its last five bits choose the power, scalef takes the integer part of `whole`.
BDGF_INLINE Vf exp2_by_table(Vf n, Vf r, Vf whole) {
  Vf power = _mm512_permutex2var_ps(_mm512_load_ps(kPowers), (__m512i)n, _mm512_load_ps(kPowers + 16));
  Vf q = r * fma(r, splat(0.24022865295410156f), 0.6931573152542114f);
  return _mm512_scalef_ps(fma(power, q, power), whole);
}
constexpr float kRoundMagic32 = 393216.0f;  // 1.5 * 2^18: adding and subtracting it rounds to a multiple of 1/32

// 2^x. Error below 2 ulp wherever the result is normal. Infinities need no clamp: r is NaN, and scalef ignores it.
BDGF_INLINE Vf exp2(Vf x) {
  Vf n = x + kRoundMagic32;
  Vf whole = n - kRoundMagic32;
  return exp2_by_table(n, x - whole, whole);
}

// The bits of exp2 for |x| <= kExp2Bound alone: an integer addition instead of scalef, which is three micro-operations
// on Zen 5. The table has k << 18 taken off its entry k, so that what n carries in its last five bits falls out.
constexpr float kExp2Bound = 120.0f;
BDGF_INLINE Vf exp2_bounded(Vf x) {
  const Vi low = (Vi)_mm512_load_ps(kPowers) - (iota() << 18), high = (Vi)_mm512_load_ps(kPowers + 16) - ((iota() + 16) << 18);
  const Vf n = x + kRoundMagic32, r = x - (n - kRoundMagic32);
  const Vf power = (Vf)((Vi)_mm512_permutex2var_epi32((__m512i)low, (__m512i)n, (__m512i)high) + ((Vi)n << 18));
  const Vf q = r * fma(r, splat(0.24022865295410156f), 0.6931573152542114f);
  return fma(power, q, power);
}

// e^x. Error below 2 ulp wherever the result is normal. exp2 of a pre-multiplied argument costs a third less.
BDGF_INLINE Vf exp(Vf x) {
  x = clamp(x, -104.5f, 89.5f);
  Vf n = fma(x, splat(1.44269504f), kRoundMagic32);
  Vf whole = n - kRoundMagic32;
  Vf r = fma(x, splat(1.44269504f), -whole);  // exact
  return exp2_by_table(n, fma(x, splat(1.925963033500011e-8f), r), whole);
}
#else
// p * 2^n for integer n in [-300, 300], rounded once: overflow to infinity, gradual underflow to 0.
BDGF_INLINE Vf scale_by_power(Vf p, Vf n) {
  Vi e = to_int(n);
  Vi first = e >> 1;  // in two steps, so that each factor is a normal number
  return p * (Vf)((first + 127) << 23) * (Vf)((e - first + 127) << 23);
}

// 2^r for |r| <= 1/2, degree 5, relative error 9.2e-8.
BDGF_INLINE Vf exp2_reduced(Vf r) {
  Vf p = madd(splat(0.001326461904682219f), r, 0.009671597741544247f);
  p = madd(p, r, 0.055507346987724304f);
  p = madd(p, r, 0.24022240936756134f);
  p = madd(p, r, 0.6931470036506653f);
  return madd(p, r, 1.0f);
}

constexpr float kRoundMagic = 12582912.0f;  // 1.5 * 2^23: adding and subtracting it rounds |x| < 2^22 to an integer

// The bits of exp2 for |x| <= kExp2Bound alone.
constexpr float kExp2Bound = 120.0f;
BDGF_INLINE Vf exp2_bounded(Vf x) {
  const Vf n = x + kRoundMagic;
  return (Vf)((Vi)exp2_reduced(x - (n - kRoundMagic)) + ((Vi)n << 23));
}

// 2^x. Error below 2.5 ulp wherever the result is normal.
BDGF_INLINE Vf exp2(Vf x) {
  x = clamp(x, -151.0f, 129.0f);
  Vf n = (x + kRoundMagic) - kRoundMagic;
  return scale_by_power(exp2_reduced(x - n), n);
}

// e^x. Error below 2.5 ulp wherever the result is normal.
BDGF_INLINE Vf exp(Vf x) {
  x = clamp(x, -104.5f, 89.5f);
  Vf n = madd(x, splat(1.44269504f), kRoundMagic) - kRoundMagic;
#if BDGF_LANES >= 8 || BDGF_NEON
  Vf r = madd(x, splat(1.44269504f), -n);  // exact
  r = madd(x, splat(1.925963033500011e-8f), r);
#else
  Vf r = x - n * 0.693359375f;  // without a fused multiply-add: ln 2 in two parts, the first short enough to be exact
  r = (r + n * 2.12194440e-4f) * 1.44269504f;
#endif
  return scale_by_power(exp2_reduced(r), n);
}
#endif

// Natural logarithm. Error below 2 ulp; log(0) = -inf, log(x < 0) = NaN; subnormal numbers count as what they are.
BDGF_INLINE Vf log(Vf x) {
  Vi tiny = x < 1.17549435e-38f;
  Vf scaled = select(tiny, x * 8388608.0f, x);
  Vi i = (Vi)((Vu)scaled - 0x3f3504f3u);  // so that the rest of the number is in [sqrt(1/2), sqrt(2))
  Vi e = i >> 23;
  Vf f = (Vf)((Vu)scaled - ((Vu)i & 0xff800000u)) - 1.0f;
  Vf n = to_float(e + (tiny & -23));
  Vf p = madd(splat(0.08736065030097961f), f, -0.14309316873550415f);
  p = madd(p, f, 0.14918339252471924f);
  p = madd(p, f, -0.16570304334163666f);
  p = madd(p, f, 0.19962021708488464f);
  p = madd(p, f, -0.25001761317253113f);
  p = madd(p, f, 0.33333951234817505f);
  p = madd(p, f, -0.49999991059303284f);
  Vf f2 = f * f;
  Vf r = madd(n, splat(-2.12194440e-4f), f2 * p);
  r = madd(n, splat(0.693359375f), r + f);
  const float inf = __builtin_inff();
  r = select(x == inf, x, r);
  r = select(x == 0.0f, splat(-inf), r);
  return (x >= 0.0f) ? r : x + splat(__builtin_nanf(""));
}

BDGF_INLINE Vf sigmoid(Vf x) { return 1.0f / (exp(-x) + 1.0f); }

BDGF_INLINE Vf silu(Vf x) { return x / (exp(-x) + 1.0f); }

}  // namespace BDGF_ISA
}  // namespace bdgf
