// The mathematics of the selective scan, for a GPU thread's scalars or a CPU's vectors: softplus, its derivative, the gate,
// one step of the recurrence and one step of its adjoint. csrc/cuda uses it; csrc/cpu/selective_scan_steps.inc still has the
// same polynomials and steps of its own.
//
// M is the arithmetic: type F and
//   F splat(float), fma(F, F, F), exp2(F), divide(F, F), max(F, F), abs(F), F below(F a, F b, F x, F y): a < b ? x : y
// Polynomials are minimax fits of our own.
#pragma once

#ifdef __CUDACC__
#define BDGF_SCAN_FN static __device__ __forceinline__
#else
#define BDGF_SCAN_FN static inline __attribute__((always_inline))
#endif
#ifndef BDGF_ISA
#define BDGF_ISA base
#endif

namespace bdgf {
namespace BDGF_ISA {

constexpr float kScanLog2E = 1.44269504f, kScanLn2 = 0.693147181f;

// log(1 + e^x) = max(x, 0) + log(1 + t), t = e^-|x| in [0, 1]: no division, no logarithm, no cancellation at small t.
// Above 20, torch's threshold, the second term is below half an ulp of the first.
template <class M>
BDGF_SCAN_FN typename M::F scan_softplus(typename M::F x) {
  typedef typename M::F F;
  const F t = M::exp2(M::abs(x) * M::splat(-kScanLog2E));
  F p = M::fma(M::splat(0.005364824552088976f), t, M::splat(-0.03006579354405403f));
  p = M::fma(p, t, M::splat(0.07920453697443008f));
  p = M::fma(p, t, M::splat(-0.13753803074359894f));
  p = M::fma(p, t, M::splat(0.191536545753479f));
  p = M::fma(p, t, M::splat(-0.24857163429260254f));
  p = M::fma(p, t, M::splat(0.3332132399082184f));
  p = M::fma(p, t, M::splat(-0.49999648332595825f));
  p = M::fma(p, t, M::splat(1.0f));
  return M::fma(p, t, M::max(x, M::splat(0.0f)));
}

// The derivative of softplus from its value d: sigmoid(x) = 1 - e^-d, by its series where that would cancel.
template <class M>
BDGF_SCAN_FN typename M::F scan_softplus_slope(typename M::F d) {
  typedef typename M::F F;
  F series = M::fma(d, M::splat(1.0f / 120.0f), M::splat(-1.0f / 24.0f));
  series = M::fma(series, d, M::splat(1.0f / 6.0f));
  series = M::fma(series, d, M::splat(-0.5f));
  series = M::fma(series, d, M::splat(1.0f)) * d;
  const F whole = M::splat(1.0f) - M::exp2(d * M::splat(-kScanLog2E));
  return M::below(d, M::splat(0.25f), series, whole);
}

template <class M>
BDGF_SCAN_FN typename M::F scan_sigmoid(typename M::F z) {
  return M::divide(M::splat(1.0f), M::splat(1.0f) + M::exp2(z * M::splat(-kScanLog2E)));
}
template <class M>
BDGF_SCAN_FN typename M::F scan_silu(typename M::F z) {
  return z * scan_sigmoid<M>(z);
}
template <class M>
BDGF_SCAN_FN typename M::F scan_silu_slope(typename M::F z) {
  const typename M::F gate = scan_sigmoid<M>(z);
  return gate * M::fma(z, M::splat(1.0f) - gate, M::splat(1.0f));
}

// x <- a x + drive b, with a = 2^(delta A2), A2 = A log2 e, drive = delta u. Returns a.
template <class M>
BDGF_SCAN_FN typename M::F scan_step(typename M::F delta, typename M::F A2, typename M::F drive, typename M::F b,
                                     typename M::F& x) {
  const typename M::F a = M::exp2(delta * A2);
  x = M::fma(a, x, drive * b);
  return a;
}

// The same step backwards. adjoint: of the state after the step, then of the one before it. Adds to by_decay (times
// ln 2 the decay's share of d delta), by_drive (d drive) and grad_A; leaves the channel's terms of dB and dC.
template <class M>
BDGF_SCAN_FN void scan_adjoint_step(typename M::F a, typename M::F before, typename M::F after, typename M::F delta,
                                    typename M::F drive, typename M::F grad_y, typename M::F A2, typename M::F b,
                                    typename M::F c, typename M::F& adjoint, typename M::F& by_decay,
                                    typename M::F& by_drive, typename M::F& grad_A, typename M::F& term_b,
                                    typename M::F& term_c) {
  typedef typename M::F F;
  const F l = M::fma(grad_y, c, adjoint);
  adjoint = a * l;
  const F through = adjoint * before;
  by_decay = M::fma(through, A2, by_decay);
  by_drive = M::fma(l, b, by_drive);
  grad_A = M::fma(through, delta, grad_A);
  term_b = l * drive;
  term_c = grad_y * after;
}

}  // namespace BDGF_ISA
}  // namespace bdgf
