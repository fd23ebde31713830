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
  double* partial;  // [batch, segments] workspace; forward
  int64_t batch;
  int32_t groups;
  int32_t prediction;
  NoiseAddress noise;
};

constexpr int64_t kLossSegment = 32768;

}  // namespace bdgf
