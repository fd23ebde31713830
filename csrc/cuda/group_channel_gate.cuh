// group_channel_gate. Three stages: sums over space, the block-diagonal MLP, scaling. Where a (sample, group) fits on chip one
// block does all three and reads its channels once (gate_fused_kernel, gate_fused_backward_kernel); else each stage is a
// kernel of its own over the whole batch, and space is summed in chunks that are added in their order. The weights' gradients
// are sums over the batch of what the backward left per sample, in a fixed order.
#pragma once
#include "cuda/group_channel_gate_block.cuh"

namespace bdgf {
namespace BDGF_ISA {

template <class T>
__global__ void __launch_bounds__(256, 4) gate_fused_kernel(const GateWork a) {
  BDGF_THREADS(256);
  BDGF_DYNAMIC_SHARED(float, kept);
  const int each = a.sizes_each, pixels = (int)a.pixels.divisor;
  float *means = kept + each * pixels, *h = means + a.in, *gain = h + a.hidden_size;
  for (unsigned sample_group = blockIdx.x; sample_group < a.sample_groups; sample_group += gridDim.x) {
    const int64_t b = sample_group / (unsigned)a.groups;
    const int g = (int)(sample_group - b * a.groups);
    for_each_pack<T, false>(a.x, b, g, a.each, a.pixels, [&](auto& some) { store_kept(kept, some); });
    if (a.use_guide) guide_means<T>(a, b, g, means + (a.use_x ? each : 0));
    __syncthreads();
    if (a.use_x) sums_of_kept(kept, each, pixels, 1.0f / (float)pixels, means);
    __syncthreads();
    gate_mlp(a, sample_group, g, means, h, gain);
    for_each_pack<T, true>(a.out, b, g, a.each, a.pixels, [&](auto& some) {
      load_kept(kept, some);
#pragma unroll
      for (int j = 0; j < some.size; ++j) some.value[j] *= gain[some.channel[j]];
    });
    __syncthreads();
  }
}

template <class T>
__global__ void __launch_bounds__(256, 4) gate_fused_backward_kernel(const GateWork a) {
  BDGF_THREADS(256);
  BDGF_DYNAMIC_SHARED(float, kept);
  const int each = a.sizes_each, pixels = (int)a.pixels.divisor;
  float *product = kept + each * pixels, *logit = product + each * pixels, *h = logit + each, *grad_h = h + a.hidden_size,
        *slopes = grad_h + a.hidden_size;
  for (unsigned sample_group = blockIdx.x; sample_group < a.sample_groups; sample_group += gridDim.x) {
    const int64_t b = sample_group / (unsigned)a.groups;
    const int g = (int)(sample_group - b * a.groups);
    for_each_pack<T, false>(a.x, b, g, a.each, a.pixels, [&](auto& some) { store_kept(product, some); });
    __syncthreads();
    for_each_pack<T, false>(a.grad, b, g, a.each, a.pixels, [&](auto& some) {
      store_kept(kept, some);
      auto x = some;
      load_kept(product, x);
#pragma unroll
      for (int j = 0; j < some.size; ++j) x.value[j] *= some.value[j];
      store_kept(product, x);
    });
    __syncthreads();
    sums_of_kept(product, each, pixels, 1.0f, logit);
    __syncthreads();
    gate_mlp_backward(a, sample_group, g, logit, h, grad_h, slopes);
    if (a.grad_x.data) {
      const float share = 1.0f / (float)pixels;
      const float* gate = a.gate + first_entry(sample_group, each);
      for_each_pack<T, true>(a.grad_x, b, g, a.each, a.pixels, [&](auto& some) {
        load_kept(kept, some);
#pragma unroll
        for (int j = 0; j < some.size; ++j) {
          const int c = some.channel[j];
          some.value[j] = __fmaf_rn(some.value[j], gate[c], a.use_x ? slopes[c] * share : 0.0f);
        }
      });
    }
    if (a.grad_guide.data) {
      const float share = 1.0f / (float)a.guide.pixels;
      const float* slope = slopes + (a.use_x ? each : 0);
      for_each_pack<T, true>(a.grad_guide, b, g, a.guide_each, a.guide_pixels, [&](auto& some) {
#pragma unroll
        for (int j = 0; j < some.size; ++j) some.value[j] = slope[some.channel[j]] * share;
      });
    }
    __syncthreads();
  }
}

// partial[b][c][chunk] = sum over a chunk of pixels of x, or of x * other. A warp takes a channel's chunk, or of 32
// channels that lie side by side a shorter one.
template <class T, bool kProduct>
__global__ void __launch_bounds__(256) gate_sums_kernel(const Image x, const Image other, int64_t batch, float* partial) {
  BDGF_THREADS(256);
  const bool inner = x.channels_inner && (!kProduct || other.channels_inner);
  const int64_t chunk = inner ? kGateChunkInner : kGateChunk, chunks = (x.pixels + chunk - 1) / chunk;
  const int64_t rows = inner ? (x.channels + 31) / 32 : x.channels, tasks = batch * rows * chunks;
  const int lane = threadIdx.x % 32;
  for (int64_t task = (int64_t)blockIdx.x * 8 + threadIdx.x / 32; task < tasks; task += (int64_t)gridDim.x * 8) {
    const int64_t rest = task / chunks, k = task - rest * chunks, b = rest / rows, r = rest - b * rows;
    const int64_t c = inner ? 32 * r + lane : r, first = k * chunk, last = x.pixels - first < chunk ? x.pixels : first + chunk;
    const T *p = (const T*)x.data + b * x.batch + c * x.channel, *q = (const T*)other.data + b * other.batch + c * other.channel;
    float sum = 0.0f;
    if (!inner) {
      sum = sum_of_lanes<32>(lane_sum<T, kProduct>(p, x, q, other, first, last));
    } else if (c < x.channels) {
      for (int64_t i = first; i < last; ++i) {
        const float value = widen(p[pixel_offset(x, i)]);
        sum = kProduct ? __fmaf_rn(value, widen(q[pixel_offset(other, i)]), sum) : sum + value;
      }
    }
    if (c < x.channels && (inner || lane == 0)) partial[(b * x.channels + c) * chunks + k] = sum;
  }
}
// The sums of one channel of one sample, in order.
static __device__ __forceinline__ float total_of(const float* partial, const Image& x, bool inner, int64_t b, int64_t c) {
  const int64_t chunk = inner ? kGateChunkInner : kGateChunk, chunks = (x.pixels + chunk - 1) / chunk;
  float sum = 0.0f;
  for (int64_t k = 0; k < chunks; ++k) sum += partial[(b * x.channels + c) * chunks + k];
  return sum;
}

static __global__ void __launch_bounds__(128) gate_mlp_kernel(const GateWork a) {
  BDGF_THREADS(128);
  BDGF_DYNAMIC_SHARED(float, means);
  float *h = means + a.in, *gain = h + a.hidden_size;
  for (unsigned sample_group = blockIdx.x; sample_group < a.sample_groups; sample_group += gridDim.x) {
    const int64_t b = sample_group / (unsigned)a.groups;
    const int g = (int)(sample_group - b * a.groups), from_x = a.use_x ? a.sizes_each : 0;
    for (int i = threadIdx.x; i < a.in; i += blockDim.x) {
      const bool of_x = i < from_x;
      const Image& image = of_x ? a.x : a.guide;
      const int c = of_x ? g * a.sizes_each + i : g * a.sizes_guide + i - from_x;
      means[i] = total_of(of_x ? a.partial : a.guide_partial, image, image.channels_inner, b, c) / (float)image.pixels;
    }
    __syncthreads();
    gate_mlp(a, sample_group, g, means, h, gain);
  }
}
static __global__ void __launch_bounds__(128) gate_mlp_backward_kernel(const GateWork a) {
  BDGF_THREADS(128);
  BDGF_DYNAMIC_SHARED(float, logit);
  float *h = logit + a.sizes_each, *grad_h = h + a.hidden_size, *slopes = grad_h + a.hidden_size;
  for (unsigned sample_group = blockIdx.x; sample_group < a.sample_groups; sample_group += gridDim.x) {
    const int64_t b = sample_group / (unsigned)a.groups;
    const int g = (int)(sample_group - b * a.groups), from_x = a.use_x ? a.sizes_each : 0;
    const bool inner = a.x.channels_inner && a.grad.channels_inner;
    for (int c = threadIdx.x; c < a.sizes_each; c += blockDim.x)
      logit[c] = total_of(a.partial, a.x, inner, b, g * a.sizes_each + c);
    __syncthreads();
    gate_mlp_backward(a, sample_group, g, logit, h, grad_h, slopes);
    for (int c = threadIdx.x; c < a.sizes_each; c += blockDim.x)
      a.offset[first_entry(sample_group, a.sizes_each) + c] = a.use_x ? slopes[c] / (float)a.x.pixels : 0.0f;
    for (int c = threadIdx.x; c < a.in - from_x; c += blockDim.x)
      a.guide_offset[first_entry(sample_group, a.sizes_guide) + c] = slopes[from_x + c] / (float)a.guide.pixels;
    __syncthreads();
  }
}

// to = from * gain[b][c] + offset[b][c], either of them absent; in the order of to's memory, 16 bytes a thread.
template <class T>
__global__ void __launch_bounds__(256) gate_scale_kernel(const Image from, const Image to, const float* gain, const float* offset,
                                                         int64_t batch, Divider inner, Divider outer) {
  BDGF_THREADS(256);
  constexpr int W = 16 / sizeof(T);
  const int64_t n = batch * to.channels * to.pixels, step = (int64_t)gridDim.x * blockDim.x * W;
  const bool packs = to.flat && (!from.data || (from.flat && from.channels_inner == to.channels_inner)) &&
                     pack_aligned<T, W>((const T*)to.data) && (!from.data || pack_aligned<T, W>((const T*)from.data));
  for (int64_t first = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * W; first < n; first += step) {
    int64_t row = divide(first, inner), i = first - row * inner.divisor, b = divide(row, outer), o = row - b * outer.divisor;
    const bool whole_pack = packs && n - first >= W;
    float v[W] = {};
    if (whole_pack && from.data) load_packs<T, W>((const T*)from.data + first, v);
    if (whole_pack && inner.divisor % W == 0) {  // of one channel, or of channels that lie side by side
      const int64_t at = b * to.channels + (to.channels_inner ? i : o), next = to.channels_inner ? 1 : 0;
#pragma unroll
      for (int j = 0; j < W; ++j) v[j] = __fmaf_rn(v[j], gain ? gain[at + j * next] : 0.0f, offset ? offset[at + j * next] : 0.0f);
      store_packs<T, W>((T*)to.data + first, v);
      continue;
    }
#pragma unroll
    for (int j = 0; j < W; ++j) {
      if (first + j < n) {
        const int64_t c = to.channels_inner ? i : o, p = to.channels_inner ? o : i, at = b * to.channels + c;
        if (from.data && !whole_pack)
          v[j] = widen(((const T*)from.data)[b * from.batch + c * from.channel + pixel_offset(from, p)]);
        v[j] = __fmaf_rn(v[j], gain ? gain[at] : 0.0f, offset ? offset[at] : 0.0f);
        if (!whole_pack) store_rounded((T*)to.data + b * to.batch + c * to.channel + pixel_offset(to, p), v[j]);
        if (++i == inner.divisor) {
          i = 0;
          if (++o == outer.divisor) {
            o = 0;
            ++b;
          }
        }
      }
    }
    if (whole_pack) store_packs<T, W>((T*)to.data + first, v);
  }
}

// Gradients of the parameters: 32 of them a block, the batch in 16 slices that are added in order.
static __global__ void __launch_bounds__(512) gate_weights_kernel(const GateWork a, int64_t batch) {
  BDGF_THREADS(512);
  BDGF_SHARED(float, sums, [16][33]);
  const int64_t hidden_all = (int64_t)a.groups * a.hidden_size, channels = (int64_t)a.groups * a.sizes_each;
  const int64_t of_w2 = channels * a.hidden_size, of_w1 = hidden_all * a.in, outputs = of_w2 + channels + of_w1 + hidden_all;
  const int lane = threadIdx.x % 32, slice = threadIdx.x / 32;
  for (int64_t first = (int64_t)blockIdx.x * 32; first < outputs; first += (int64_t)gridDim.x * 32) {
    int64_t o = first + lane;
    const float *left = nullptr, *right = nullptr;
    int64_t left_stride = channels, right_stride = hidden_all;
    float* to = nullptr;
    if (o < of_w2) {
      const int64_t c = o / a.hidden_size;
      if (a.grad_weight2) to = a.grad_weight2 + o;
      left = a.logit + c;
      right = a.hidden + c / a.sizes_each * a.hidden_size + o % a.hidden_size;
    } else if ((o -= of_w2) < channels) {
      if (a.grad_bias2) to = a.grad_bias2 + o;
      left = a.logit + o;
    } else if ((o -= channels) < of_w1) {
      const int64_t r = o / a.in;
      if (a.grad_weight1) to = a.grad_weight1 + o;
      left = a.grad_hidden + r;
      left_stride = hidden_all;
      right = a.squeezed + r / a.hidden_size * a.in + o % a.in;
      right_stride = (int64_t)a.groups * a.in;
    } else if ((o -= of_w1) < hidden_all) {
      if (a.grad_bias1) to = a.grad_bias1 + o;
      left = a.grad_hidden + o;
      left_stride = hidden_all;
    }
    float sum = 0.0f;
    if (to)
      for (int64_t b = slice; b < batch; b += 16)
        sum = __fmaf_rn(left[b * left_stride], right ? right[b * right_stride] : 1.0f, sum);
    sums[slice][lane] = sum;
    __syncthreads();
    if (slice == 0 && to) {
      for (int s = 1; s < 16; ++s) sum += sums[s][lane];
      *to = sum;
    }
    __syncthreads();
  }
}

}  // namespace BDGF_ISA
}  // namespace bdgf
