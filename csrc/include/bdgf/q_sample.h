// q_sample: x_t of the forward process. The bits are a contract, the same on every level and backend:
//   out = round(sqrt_abar * x0 + sqrt_rest * eps)
// in f32, each of the two products and the sum rounded to nearest even on its own, nothing fused; x0 widened exactly,
// eps the unrounded f32 normal of philox.h (purpose target_noise), round() the one conversion to out's dtype.
// In a hidden channel out = 0, or the normal of purpose mask_fill at the same address.
#pragma once
#include "bdgf/noise.h"
#include "bdgf/sample_view.h"
#include "bdgf/schedule_view.h"

namespace bdgf {

struct QSampleArgs {
  SampleView x0, out;  // [batch, C, ...], f32 | f16 | bf16
  ScheduleView schedule;
  const uint8_t* channel_mask;  // bool [batch, C] with these strides, or null; true = hidden
  int64_t mask_batch_stride, mask_channel_stride;
  int64_t batch, channels, pixels;
  bool draw;             // false: without the eps term, which makes it the gradient in x0, of out's gradient
  bool fill_with_noise;  // what hidden channels hold
  NoiseAddress noise, fill;
};

namespace BDGF_ISA {

// The line above; M as in philox.h.
template <class M>
BDGF_FN typename M::F noised(typename M::F sqrt_abar, typename M::F x0, typename M::F sqrt_rest, typename M::F eps) {
  return M::add(M::mul(sqrt_abar, x0), M::mul(sqrt_rest, eps));
}

}  // namespace BDGF_ISA
}  // namespace bdgf
