// A reverse step and its gradients, item by item (sample_loop.cuh).
#pragma once
#include "cuda/sample_loop.cuh"

#include "bdgf/diffusion_step.h"

namespace bdgf {
namespace BDGF_ISA {

struct DiffusionStepWork {
  SampleLoop loop;
  NoiseAddress noise;
  const float* coefficients;
  bool clip, draw;
  Strided t[5];  // pred, sample; then noise and out, or grad_out, grad_pred and grad_sample
};

template <class T>
__global__ void __launch_bounds__(256) diffusion_step_kernel(const DiffusionStepWork a) {
  BDGF_THREADS(256);
  constexpr int K = kBlocksPerItem<T>;
  const uint64_t key = noise_key(a.noise);
  const uint32_t stream = noise_stream(a.noise);
  for_each_item<T, false>(
      a.loop, a.t, [&](int64_t b) { return step_coefficients(a.coefficients + 6 * b); },
      [&](const StepCoefficients& c, int64_t b, const Item<K, 5>& item) {
        const bool noisy = a.t[2].data || (a.draw && c.std != 0.0f);
        float pred[4 * K], sample[4 * K], eps[4 * K];
        load<T>(a.t[0], item, 0, pred);
        load<T>(a.t[1], item, 1, sample);
        if (a.t[2].data) {
          load<T>(a.t[2], item, 2, eps);
        } else if (noisy) {
          draw(item, noise_sample(a.noise, b), stream, key, eps);
        }
#pragma unroll
        for (int j = 0; j < 4 * K; ++j) {
          float x0 = step_x0<DeviceMath>(c, sample[j], pred[j]);
          if (a.clip) x0 = x0 > 1.0f ? 1.0f : x0 < -1.0f ? -1.0f : x0;  // NaN stays
          const float mean = step_mean<DeviceMath>(c, sample[j], pred[j], x0);
          pred[j] = noisy ? __fmaf_rn(c.std, eps[j], mean) : mean;
        }
        store<T>(a.t[3], item, 3, pred);
      });
}

// The clamp passes the gradient where x0 lies in [-1, 1].
template <class T>
__global__ void __launch_bounds__(256, sizeof(T) == 4 ? 0 : 3) diffusion_step_backward_kernel(const DiffusionStepWork a) {
  BDGF_THREADS(256);
  constexpr int K = kBlocksPerItem<T>;
  for_each_item<T, false>(
      a.loop, a.t, [&](int64_t b) { return step_coefficients(a.coefficients + 6 * b); },
      [&](const StepCoefficients& c, int64_t, const Item<K, 5>& item) {
        float grad[4 * K], pred[4 * K], sample[4 * K];
        load<T>(a.t[2], item, 2, grad);
        if (a.clip) {
          load<T>(a.t[0], item, 0, pred);
          load<T>(a.t[1], item, 1, sample);
        }
#pragma unroll
        for (int j = 0; j < 4 * K; ++j) {
          float through = c.mean_x0 * grad[j];
          if (a.clip) {
            const float x0 = step_x0<DeviceMath>(c, sample[j], pred[j]);
            through = x0 > 1.0f || x0 < -1.0f ? 0.0f : through + 0.0f * x0;  // NaN stays
          }
          pred[j] = __fmaf_rn(c.mean_pred, grad[j], c.x0_pred * through);
          sample[j] = __fmaf_rn(c.mean_sample, grad[j], c.x0_sample * through);
        }
        if (a.t[3].data) store<T>(a.t[3], item, 3, pred);
        if (a.t[4].data) store<T>(a.t[4], item, 4, sample);
      });
}

}  // namespace BDGF_ISA
}  // namespace bdgf
