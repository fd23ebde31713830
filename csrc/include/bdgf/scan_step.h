// The mathematics of the selective scan: one step of the recurrence, the same step of its adjoint, softplus, and the derivatives
// of softplus and silu. The float32 kernels in C++ share it: csrc/cpu compiles it for vectors of channels, csrc/cuda for one
// thread's scalars. (csrc/cpu/selective_scan_f64.cpp and triton_kernels/ write the same formulas in their own terms.)
//
// For one channel and one state n (u, delta, g and y belong to the channel, B and C to the state, A to both):
//
//   recurrence   x_l = a_l x_{l-1} + w_l B_l       with the decay a_l = exp(delta_l A) and the drive w_l = delta_l u_l
//                y_l = sum_n C_l x_l + D u_l
//   adjoint      lambda_l = g_l C_l + a_{l+1} lambda_{l+1}     where g_l = dL/dy_l and lambda_l = dL/dx_l, from the last step back
//                (at the last step the gradient of the last state, or 0, takes the place of a_{l+1} lambda_{l+1})
//   exponent     e_l = lambda_l a_l x_{l-1}                    which is dL/d(delta_l A)
//
// They follow from the chain rule. x_l enters the loss through y_l, by C_l, and through x_{l+1}, by a_{l+1}: the two terms of
// lambda_l. a_l enters through x_l alone, so dL/da_l = lambda_l x_{l-1}, and with d(a_l)/d(delta_l A) = a_l that gives e_l. w_l
// enters through the x_l of all states, so dL/dw_l = sum_n lambda_l B_l, and as w_l = delta_l u_l, u_l receives delta_l times that
// and delta_l receives u_l times that. delta_l enters through a_l too, and u_l through D u_l. "Over channels" means over those that
// share one B and one C:
//
//   dC_l = sum over channels of g_l x_l            dA       = sum_l e_l delta_l, over the batch too
//   dB_l = sum over channels of lambda_l w_l       dD       = sum_l g_l u_l, over the batch too
//   du_l     = delta_l sum_n lambda_l B_l + D g_l  dx_0     = a_1 lambda_1
//   ddelta_l = u_l sum_n lambda_l B_l + sum_n e_l A
//
// With delta_l = softplus(raw_l + delta_bias), the gradient of raw_l is ddelta_l softplus'(raw_l + delta_bias), and d(delta_bias)
// is its sum over steps and batch. With a gate, out_l = y_l silu(z_l): g_l = dout_l silu(z_l) and dz_l = dout_l y_l silu'(z_l).
//
// Names in the bodies, here and in the kernels:
//   A2                A log2(e), so that a_l = 2^(delta_l A2) takes no multiplication by log2(e) in the loop
//   decay, drive      a_l and w_l
//   state             x_l; state_before is x_{l-1}
//   grad_y            g_l
//   lambda            lambda_l
//   carry             a_{l+1} lambda_{l+1} before a step of the adjoint, a_l lambda_l after it
//   grad_exponent     e_l
//   grad_drive        sum_n lambda_l B_l: the gradient of w_l
//   grad_delta_decay  sum_n e_l A2: the gradient of delta_l through the decays a_l, divided by ln 2
//
// Words that differ between the backends:
//             CPU                              CUDA                                 Triton
//   row       a sample of the batch            a sample of the batch                a sample, or a segment of one
//   tile      as many channels as lanes        32 channels; of them 16 or 32 steps  states x channels in registers
//   segment   a part of a sequence whose       a part of a long sequence, for a     a part of a long sequence, with a row
//             decays and states are recorded   block of its own                     number of its own
//   chunk     steps in the cache (forward)     64 steps (backward)                  steps between kept states (backward)
//   block     up to 16 states in registers     a thread block                       four steps
//   group     channels that share B and C      also eight steps, also four states   channels that share B and C
// A state that the backward keeps is a checkpoint (CPU), in `starts` or `kept` (CUDA), in scratch (Triton).
//
// The template parameter M is the arithmetic: a type F and the functions
//   F splat(float), fma(F, F, F), exp2(F), max(F, F), abs(F), sigmoid(F), F below(F a, F b, F x, F y): a < b ? x : y
// The polynomials are minimax fits of our own; tests/native/test_math.py asserts their error bounds on these functions.
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
  return M::fma(p, t, M::max(M::splat(0.0f), x));
}

// The derivative of softplus, sigmoid(x), from the value d = softplus(x), because the kernels keep d and not x: it is 1 - e^-d, and
// a polynomial for small d, where that difference would cancel.
template <class M>
BDGF_SCAN_FN typename M::F scan_softplus_slope(typename M::F d) {
  typedef typename M::F F;
  F p = M::fma(M::splat(0.0075347041711211205f), d, M::splat(-0.04150231555104256f));
  p = M::fma(p, d, M::splat(0.16665321588516235f));
  p = M::fma(p, d, M::splat(-0.49999964237213135f));
  p = M::fma(p, d, M::splat(1.0f));
  const F difference = M::splat(1.0f) - M::exp2(d * M::splat(-kScanLog2E));
  return M::below(d, M::splat(0.25f), p * d, difference);
}

// The derivative of silu(z) = z sigmoid(z).
template <class M>
BDGF_SCAN_FN typename M::F scan_silu_slope(typename M::F z) {
  const typename M::F gate = M::sigmoid(z);
  return gate * M::fma(z, M::splat(1.0f) - gate, M::splat(1.0f));
}

// state: x_{l-1}, becomes x_l. Returns the decay a_l.
template <class M>
BDGF_SCAN_FN typename M::F scan_step(typename M::F delta, typename M::F A2, typename M::F drive, typename M::F b,
                                     typename M::F& state) {
  const typename M::F decay = M::exp2(delta * A2);
  state = M::fma(decay, state, drive * b);
  return decay;
}

// carry: a_{l+1} lambda_{l+1}, becomes a_l lambda_l. Returns lambda_l. This is all of the adjoint that the steps before depend on.
template <class M>
BDGF_SCAN_FN typename M::F scan_carry_step(typename M::F decay, typename M::F grad_y, typename M::F c, typename M::F& carry) {
  const typename M::F lambda = M::fma(grad_y, c, carry);
  carry = decay * lambda;
  return lambda;
}

// The carry's step, which also adds to grad_delta_decay, grad_drive and grad_A. Returns lambda_l: the channel's terms of dB_l and
// dC_l are lambda_l drive and grad_y x_l, which the caller adds up over channels.
template <class M>
BDGF_SCAN_FN typename M::F scan_adjoint_step(typename M::F decay, typename M::F state_before, typename M::F delta,
                                             typename M::F grad_y, typename M::F A2, typename M::F b, typename M::F c,
                                             typename M::F& carry, typename M::F& grad_delta_decay,
                                             typename M::F& grad_drive, typename M::F& grad_A) {
  typedef typename M::F F;
  const F lambda = scan_carry_step<M>(decay, grad_y, c, carry);
  const F grad_exponent = carry * state_before;
  grad_delta_decay = M::fma(grad_exponent, A2, grad_delta_decay);
  grad_drive = M::fma(lambda, b, grad_drive);
  grad_A = M::fma(grad_exponent, delta, grad_A);
  return lambda;
}

// ddelta_l from the sums over the states. (The scan's share of du_l is delta_l grad_drive.)
template <class M>
BDGF_SCAN_FN typename M::F scan_grad_delta(typename M::F grad_delta_decay, typename M::F grad_drive, typename M::F u) {
  return M::fma(grad_delta_decay, M::splat(kScanLn2), u * grad_drive);
}

}  // namespace BDGF_ISA
}  // namespace bdgf
