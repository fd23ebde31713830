// The loss per sample and group, and its gradients. A block takes up to kLossItems items of one group of one sample: sums
// go from the thread to the warp to the block to the workspace, and a second kernel adds a group's blocks in their order.
#pragma once
#include "cuda/q_sample.cuh"

#include "bdgf/denoising_loss.h"

namespace bdgf {
namespace BDGF_ISA {

constexpr int kLossGroups = 32;  // a launch; more take more launches

struct DenoisingLossWork {
  SampleLoop loop;
  NoiseAddress noise;
  ScheduleView schedule;
  const uint8_t* hidden;
  int64_t hidden_batch_stride, hidden_group_stride;
  const float* grad_loss;
  int64_t grad_batch_stride, grad_group_stride;
  float* loss;     // [batch, all groups], at the first of this launch
  float* partial;  // [batch, segments of this launch]
  int64_t all_groups;
  int64_t group_begin[kLossGroups + 1];    // in coordinates of the outermost axis, or elements of the one row
  int64_t segment_begin[kLossGroups + 1];
  float elements[kLossGroups];
  int32_t groups, prediction;
  bool wide_x0;  // float32 beside 16 bit
  Strided t[4];  // pred, x0, grad_pred, grad_x0
};

static __host__ __device__ __forceinline__ Part part_of_group(const SampleLoop& w, int64_t begin, int64_t end) {
  return {begin, end - begin, w.axes ? w.row_length : end - begin, {(end - begin) * w.inner_rows, 0, 0}};
}

// Each lane's value -> their sum in lane 0.
static __device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
  for (int by = 16; by > 0; by /= 2) value += __shfl_down_sync(0xffffffffu, value, by);
  return value;
}

template <class T, bool kBackward>
__global__ void __launch_bounds__(256, kBackward || sizeof(T) == 2 ? 2 : 3) denoising_loss_kernel(const DenoisingLossWork a) {
  BDGF_THREADS(256);
  BDGF_SHARED(float, sums, [8]);
  constexpr int K = kBlocksPerItem<T>;
  const uint64_t key = noise_key(a.noise);
  const uint32_t stream = noise_stream(a.noise);
  const int64_t segments = a.segment_begin[a.groups];
  for (int64_t task = blockIdx.x; task < a.loop.batch * segments; task += gridDim.x) {
    const int64_t b = task / segments, segment = task - b * segments;
    int m = 0;
    while (segment >= a.segment_begin[m + 1]) ++m;
    const Part part = part_of_group(a.loop, a.group_begin[m], a.group_begin[m + 1]);
    const int64_t first = (segment - a.segment_begin[m]) * kLossItems, all = items_of<K>(a.loop, part);
    const int64_t last = all - first < kLossItems ? all : first + kLossItems;
    const bool hidden = a.hidden && a.hidden[b * a.hidden_batch_stride + m * a.hidden_group_stride];
    const int kind = hidden ? (int)kSample : a.prediction;
    const float2 c = schedule_at(a.schedule, b);
    const float spoiled = 0.0f * c.x;  // NaN where t is out of range
    const uint32_t sample = noise_sample(a.noise, b);
    float slope = 0.0f, slope_x0 = 0.0f, sum = spoiled;
    if (kBackward) {
      slope = loss_slope(a.grad_loss[b * a.grad_batch_stride + m * a.grad_group_stride], a.elements[m]) + spoiled;
      slope_x0 = loss_slope_x0(kind, slope, c.y);
    }
    for_each_item_of_part<T>(a.loop, a.t, b, part, first, last, [&](const Item<K, 4>& item) {
      float pred[4 * K], x0[4 * K], target[4 * K];
      load<T>(a.t[0], item, 0, pred);
      if (kind != kEpsilon) a.wide_x0 ? load<float>(a.t[1], item, 1, x0) : load<T>(a.t[1], item, 1, x0);
      if (kind == kSample) {
#pragma unroll
        for (int j = 0; j < 4 * K; ++j) target[j] = x0[j];
      } else {
        draw(item, sample, stream, key, target);
      }
      if (kind == kVelocity) {
#pragma unroll
        for (int j = 0; j < 4 * K; ++j) target[j] = velocity_target(c.x, c.y, target[j], x0[j]);
      }
#pragma unroll
      for (int j = 0; j < 4 * K; ++j) {
        const float d = pred[j] - target[j];
        if (kBackward) {
          pred[j] = slope * d;
          x0[j] = slope_x0 * d;
        } else {
          sum += j >= item.begin && j < item.end ? d * d : 0.0f;
        }
      }
      if (kBackward) {
        if (a.t[2].data) store<T>(a.t[2], item, 2, pred);
        if (a.t[3].data) a.wide_x0 ? store<float>(a.t[3], item, 3, x0) : store<T>(a.t[3], item, 3, x0);
      }
    });
    if (!kBackward) {
      sum = warp_sum(sum);
      if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
      __syncthreads();
      if (threadIdx.x < 32) {
        sum = warp_sum(threadIdx.x < 8 ? sums[threadIdx.x] : 0.0f);
        if (threadIdx.x == 0) a.partial[task] = sum;
      }
      __syncthreads();
    }
  }
}

static __global__ void __launch_bounds__(256) denoising_loss_total_kernel(const DenoisingLossWork a) {
  BDGF_THREADS(256);
  const int64_t segments = a.segment_begin[a.groups], step = (int64_t)gridDim.x * blockDim.x;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < a.loop.batch * a.groups; i += step) {
    const int64_t b = i / a.groups;
    const int m = (int)(i - b * a.groups);
    float sum = 0.0f;
    for (int64_t s = a.segment_begin[m]; s < a.segment_begin[m + 1]; ++s) sum += a.partial[b * segments + s];
    a.loss[b * a.all_groups + m] = sum / a.elements[m];
  }
}

}  // namespace BDGF_ISA
}  // namespace bdgf
