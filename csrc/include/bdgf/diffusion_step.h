// One reverse step (DDPM or DDIM, by its coefficients) and its gradients:
//   x0 = x0_sample * sample + x0_pred * pred, clamped to [-1, 1] with clip
//   out = mean_x0 * x0 + mean_sample * sample + mean_pred * pred + std * noise
#pragma once
#include "bdgf/noise.h"
#include "bdgf/sample_view.h"

namespace bdgf {

struct DiffusionStepArgs {
  SampleView pred, sample;            // [batch, ...], f32 | f16 | bf16
  SampleView noise;                   // the same shape, or absent
  SampleView out;                     // forward
  SampleView grad_out;                // backward
  SampleView grad_pred, grad_sample;  // backward; absent where not needed
  const float* coefficients;  // [batch, 6] contiguous: x0_sample, x0_pred, mean_sample, mean_pred, mean_x0, std
  bool clip;
  bool draw;  // the noise comes from `address` (purpose sampler)
  NoiseAddress address;
  int64_t batch, elements;  // samples, elements of each
};

namespace BDGF_ISA {

struct StepCoefficients {
  float x0_sample, x0_pred, mean_sample, mean_pred, mean_x0, std;
};
BDGF_FN StepCoefficients step_coefficients(const float* c) { return {c[0], c[1], c[2], c[3], c[4], c[5]}; }

// The two lines above, without clamp and noise; M as in philox.h, M::madd(a, b, c) = a b + c, fused or not.
template <class M>
BDGF_FN typename M::F step_x0(const StepCoefficients& c, typename M::F sample, typename M::F pred) {
  return M::madd(M::splat(c.x0_sample), sample, M::mul(pred, c.x0_pred));
}
template <class M>
BDGF_FN typename M::F step_mean(const StepCoefficients& c, typename M::F sample, typename M::F pred, typename M::F x0) {
  return M::madd(M::splat(c.mean_pred), pred, M::madd(M::splat(c.mean_sample), sample, M::mul(x0, c.mean_x0)));
}

}  // namespace BDGF_ISA
}  // namespace bdgf
