// denoising_loss: mean squared error of a denoiser per sample and group of channels, and its gradients. The target's
// noise is drawn again from its address in both directions.
#pragma once
#include "bdgf/noise.h"
#include "bdgf/sample_view.h"
#include "bdgf/schedule_view.h"

namespace bdgf {

enum Prediction { kEpsilon = 0, kSample = 1, kVelocity = 2 };

struct DenoisingLossArgs {
  SampleView pred, x0;             // [batch, C, ...], f32 | f16 | bf16; x0 may be absent for kEpsilon without hidden
  SampleView grad_pred, grad_x0;   // backward; absent where not needed
  ScheduleView schedule;
  const uint8_t* hidden;  // bool [batch, groups] with these strides, or null; true: the target is x0
  int64_t hidden_batch_stride, hidden_group_stride;
  const float* grad_loss;  // [batch, groups] with these strides; backward
  int64_t grad_batch_stride, grad_group_stride;
  float* loss;  // [batch, groups] contiguous; forward
  // A group is the elements group_begin[m] ... group_begin[m + 1] - 1 of a sample. It is summed in segments that end
  // at multiples of kLossSegment: numbers segment_begin[m] ... segment_begin[m + 1] - 1.
  const int64_t* group_begin;
  const int64_t* segment_begin;
  double* partial;  // [batch, segments] workspace; CPU forward
  float* workspace;  // loss_workspace() floats; CUDA forward
  int64_t channels, pixels;
  int64_t batch;
  int32_t groups;
  int32_t prediction;
  NoiseAddress noise;
};

constexpr int64_t kLossSegment = 32768;

// CUDA: a block sums at most kLossItems items (cuda/sample_loop.cuh) of a group, which has no more of them than elements.
constexpr int64_t kLossItems = 4096;
inline int64_t loss_workspace(int64_t batch, const int64_t* group_begin, int64_t groups) {
  int64_t segments = 0;
  for (int64_t m = 0; m < groups; ++m) segments += (group_begin[m + 1] - group_begin[m]) / kLossItems + 1;
  return batch * segments;
}

namespace BDGF_ISA {

// The target of velocity prediction (Salimans and Ho, arXiv 2202.00512); F a float or a vector of them.
template <class F>
BDGF_FN F velocity_target(F sqrt_abar, F sqrt_rest, F eps, F x0) {
  return sqrt_abar * eps - sqrt_rest * x0;
}
// dL/dpred = loss_slope * residual, where the residual is the prediction minus the target and `elements` is the size of the
// group; and dL/dx0 = loss_slope_x0 * residual, because x0 enters the loss through the target.
BDGF_FN float loss_slope(float grad_loss, float elements) { return 2.0f * grad_loss / elements; }
BDGF_FN float loss_slope_x0(int kind, float slope, float sqrt_rest) {
  return kind == kSample ? -slope : kind == kVelocity ? slope * sqrt_rest : 0.0f;
}

}  // namespace BDGF_ISA

}  // namespace bdgf
