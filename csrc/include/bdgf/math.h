// Elementary functions of f32 vectors for the CPU kernels (see simd.h for where this may be included).
// Polynomials are minimax fits of our own; the error bounds are asserted by tests/test_native_math.py.
// NaN gives NaN everywhere. Not for noise: those functions live in philox.h, where every bit is fixed.
#pragma once
#include "bdgf/simd.h"

namespace bdgf {
namespace BDGF_ISA {

// p * 2^n for integer n in [-300, 300], rounded once: overflow to infinity, gradual underflow to 0.
BDGF_INLINE Vf scale_by_power(Vf p, Vf n) {
#if BDGF_LANES == 16
  return _mm512_scalef_ps(p, n);
#else
  Vi e = to_int(n);
  Vi first = e >> 1;  // in two steps, so that each factor is a normal number
  return p * (Vf)((first + 127) << 23) * (Vf)((e - first + 127) << 23);
#endif
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

// 2^x. Error below 2 ulp wherever the result is normal.
BDGF_INLINE Vf exp2(Vf x) {
#if BDGF_LANES == 16
  // vreduceps gives x - round(x), and 0 for infinities, so no clamp is needed: scalef does the rest.
  Vf r = _mm512_reduce_ps(x, 0);
  return scale_by_power(exp2_reduced(r), x - r);
#else
  x = max(splat(-151.0f), min(splat(129.0f), x));
  Vf n = (x + kRoundMagic) - kRoundMagic;
  return scale_by_power(exp2_reduced(x - n), n);
#endif
}

// e^x. Error below 2 ulp wherever the result is normal. exp2 of a pre-multiplied argument costs a third less.
BDGF_INLINE Vf exp(Vf x) {
  x = max(splat(-104.5f), min(splat(89.5f), x));
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

// Natural logarithm. Error below 2 ulp; log(0) = -inf, log(x < 0) = NaN; subnormal numbers count as what they are.
BDGF_INLINE Vf log(Vf x) {
  Vi tiny = x < 1.17549435e-38f;
  Vf scaled = select(tiny, x * 8388608.0f, x);
  Vi e = ((Vi)scaled - 0x3f3504f3) >> 23;
  Vf f = (Vf)((Vi)scaled - (e << 23)) - 1.0f;
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

// log(1 + x) for 0 <= x <= inf (what softplus needs), without the cancellation of log(1 + x) at small x.
BDGF_INLINE Vf log1p_positive(Vf x) {
  Vf u = x + 1.0f;
  Vf lost = x - (u - 1.0f);  // what rounding 1 + x dropped: first-order correction
  Vf r = log(u) + lost / u;
  return (u == 1.0f) ? x : ((x <= 3.4e38f) ? r : x);
}

// log(1 + e^x), the identity above 20 (as torch's default threshold).
BDGF_INLINE Vf softplus(Vf x) { return (x > 20.0f) ? x : log1p_positive(exp(x)); }

BDGF_INLINE Vf sigmoid(Vf x) { return 1.0f / (exp(-x) + 1.0f); }

BDGF_INLINE Vf silu(Vf x) { return x / (exp(-x) + 1.0f); }

}  // namespace BDGF_ISA
}  // namespace bdgf
