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

}  // namespace bdgf
