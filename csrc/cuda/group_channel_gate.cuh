// group_channel_gate. Three stages: sums over space, the block-diagonal MLP, scaling. Where a (sample, group) fits on chip one
// block does all three and reads its channels once (gate_fused_kernel, gate_fused_backward_kernel); else each stage is a
// kernel of its own over the whole batch, and space is summed in chunks that are added in their order. The weights' gradients
// are sums over the batch of what the backward left per sample, in a fixed order.
#pragma once
#include "cuda/sample_loop.cuh"

#include "bdgf/group_channel_gate.h"

namespace bdgf {
namespace BDGF_ISA {

// A tensor [batch, C, H, W].
struct Image {
  void* data;
  int64_t batch, channel, row, column;  // strides
  int64_t channels, pixels;
  Divider width;        // of a run of pixels with one stride: H W of them where that is possible
  bool channels_inner;  // memory goes from channel to channel
  bool flat;            // without gaps: the index in memory's order is the offset
};
struct GateWork {
  Image x, guide, out;                // forward; out's strides
  Image grad, grad_x, grad_guide;     // backward
  const float *weight1, *bias1, *weight2, *bias2;
  float *squeezed, *gate;             // [batch, groups, in], [batch, C]
  float *logit, *hidden, *grad_hidden;  // backward: [batch, C], [batch, groups, hidden] twice
  float *partial, *guide_partial;     // sums by chunk: [batch, C, chunks]
  float *offset, *guide_offset;       // backward in stages: what is added to each pixel, [batch, C], [batch, C_guide]
  float *grad_weight1, *grad_bias1, *grad_weight2, *grad_bias2;
  uint32_t units;                     // batch * groups
  Divider pixels, each, guide_pixels, guide_each;
  int groups, sizes_each, sizes_guide, hidden_size, in;
  bool use_x, use_guide;
};

static __device__ __forceinline__ int64_t pixel_offset(const Image& t, int64_t p) {
  if (t.width.divisor == t.pixels) return p * t.column;
  const int64_t y = divide(p, t.width);
  return y * t.row + (p - y * t.width.divisor) * t.column;
}
static __device__ __forceinline__ float sum_of_warp(float value) {
#pragma unroll
  for (int by = 16; by > 0; by /= 2) value += __shfl_xor_sync(0xffffffffu, value, by);
  return value;
}

// A lane's share of the sum over pixels first ... last - 1 of a channel, of x or of x * other: every 32nd pixel, in order, with four
// loads in flight.
template <class T, bool kProduct>
static __device__ __forceinline__ float lane_sum(const T* p, const Image& x, const T* q, const Image& other, int64_t first, int64_t last) {
  float sum = 0.0f;
  int64_t i = first + threadIdx.x % 32;
  for (; i + 96 < last; i += 128) {
    float v[4], w[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      v[k] = widen(p[pixel_offset(x, i + 32 * k)]);
      if (kProduct) w[k] = widen(q[pixel_offset(other, i + 32 * k)]);
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) sum = kProduct ? __fmaf_rn(v[k], w[k], sum) : sum + v[k];
  }
  for (; i < last; i += 32) {
    const float v = widen(p[pixel_offset(x, i)]);
    sum = kProduct ? __fmaf_rn(v, widen(q[pixel_offset(other, i)]), sum) : sum + v;
  }
  return sum;
}

// f(r, bias[r] + row r of w . x) for each row, by a warp.
template <class F>
static __device__ __forceinline__ void rows_times(const float* w, const float* bias, int rows, int columns, const float* x, const F& f) {
  const int lane = threadIdx.x % 32;
  for (int r = threadIdx.x / 32; r < rows; r += blockDim.x / 32) {
    float sum = 0.0f;
    for (int k = lane; k < columns; k += 32) sum = __fmaf_rn(w[(int64_t)r * columns + k], x[k], sum);
    sum = sum_of_warp(sum);
    if (lane == 0) f(r, sum + bias[r]);
  }
}
// f(k, column k of w . y) for each column, by a thread.
template <class F>
static __device__ __forceinline__ void columns_times(const float* w, int rows, int columns, const float* y, const F& f) {
  for (int k = threadIdx.x; k < columns; k += blockDim.x) {
    float sum = 0.0f;
    for (int r = 0; r < rows; ++r) sum = __fmaf_rn(w[(int64_t)r * columns + k], y[r], sum);
    f(k, sum);
  }
}

// means [in] -> h [hidden], gain [each]; all in shared memory. Leaves the block in step.
static __device__ __forceinline__ void gate_mlp(const GateWork& a, int64_t unit, int g, const float* means, float* h, float* gain) {
  rows_times(a.weight1 + (int64_t)g * a.hidden_size * a.in, a.bias1 + g * a.hidden_size, a.hidden_size, a.in, means,
             [&](int r, float v) { h[r] = v <= 0.0f ? 0.0f : v; });
  for (int i = threadIdx.x; i < a.in; i += blockDim.x) a.squeezed[unit * a.in + i] = means[i];
  __syncthreads();
  rows_times(a.weight2 + (int64_t)g * a.sizes_each * a.hidden_size, a.bias2 + g * a.sizes_each, a.sizes_each, a.hidden_size, h,
             [&](int c, float v) {
               gain[c] = 1.0f / (1.0f + expf(-v));
               a.gate[unit * a.sizes_each + c] = gain[c];
             });
  __syncthreads();
}
// logit [each] holds sums of grad * x -> what the weights' gradients need, and slopes [in] of the means.
static __device__ __forceinline__ void gate_mlp_backward(const GateWork& a, int64_t unit, int g, float* logit, float* h, float* grad_h, float* slopes) {
  for (int c = threadIdx.x; c < a.sizes_each; c += blockDim.x) {
    const float gate = a.gate[unit * a.sizes_each + c];
    logit[c] *= gate * (1.0f - gate);
    a.logit[unit * a.sizes_each + c] = logit[c];
  }
  rows_times(a.weight1 + (int64_t)g * a.hidden_size * a.in, a.bias1 + g * a.hidden_size, a.hidden_size, a.in, a.squeezed + unit * a.in,
             [&](int r, float v) { a.hidden[unit * a.hidden_size + r] = h[r] = v <= 0.0f ? 0.0f : v; });
  __syncthreads();
  columns_times(a.weight2 + (int64_t)g * a.sizes_each * a.hidden_size, a.sizes_each, a.hidden_size, logit, [&](int k, float v) {
    a.grad_hidden[unit * a.hidden_size + k] = grad_h[k] = h[k] <= 0.0f ? 0.0f : v;
  });
  __syncthreads();
  columns_times(a.weight1 + (int64_t)g * a.hidden_size * a.in, a.hidden_size, a.in, grad_h, [&](int k, float v) { slopes[k] = v; });
  __syncthreads();
}

// The elements of a (sample, group) in memory's order, 16 bytes at once where they lie together. Channels: how many.
// use(index in [channels][pixels], value) for each, or *element = make(index, channel).
template <class T, bool kStore, class F>
static __device__ __forceinline__ void for_unit(const Image& t, int64_t b, int g, const Divider& channels, const Divider& pixels, const F& f) {
  constexpr int W = 16 / sizeof(T);
  T* base = (T*)t.data + b * t.batch + g * channels.divisor * t.channel;
  const int n = (int)(channels.divisor * pixels.divisor), size = (int)pixels.divisor;
  const bool dense = t.width.divisor == t.pixels && (t.column == 1 || size == 1) && (t.channel == size || channels.divisor == 1);
  if (dense && n % W == 0 && pack_aligned<T, W>(base)) {
#pragma unroll 2
    for (int e = threadIdx.x * W; e < n; e += blockDim.x * W) {
      float v[W];
      if (!kStore) load_packs<T, W>(base + e, v);
      int c = (int)divide(e, pixels), next = (c + 1) * size;
#pragma unroll
      for (int j = 0; j < W; ++j) {
        if (e + j >= next) {
          ++c;
          next += size;
        }
        f(e + j, c, v[j]);
      }
      if (kStore) store_packs<T, W>(base + e, v);
    }
    return;
  }
  for (int e = threadIdx.x; e < n; e += blockDim.x) {
    int c, p;
    if (t.channels_inner) {
      p = (int)divide(e, channels);
      c = e - p * (int)channels.divisor;
    } else {
      c = (int)divide(e, pixels);
      p = e - c * size;
    }
    T* at = base + c * t.channel + pixel_offset(t, p);
    float v = 0.0f;
    if (!kStore) v = widen(*at);
    f(c * size + p, c, v);
    if (kStore) store_rounded(at, v);
  }
}
// sums[c] over a channel's pixels in shared memory, by a warp each.
static __device__ __forceinline__ void sums_of_kept(const float* kept, int channels, int pixels, float factor, float* sums) {
  for (int c = threadIdx.x / 32; c < channels; c += blockDim.x / 32) {
    float sum = 0.0f;
    for (int p = threadIdx.x % 32; p < pixels; p += 32) sum += kept[c * pixels + p];
    sum = sum_of_warp(sum);
    if (threadIdx.x % 32 == 0) sums[c] = sum * factor;
  }
}
// means[c] of the guide's channels of a (sample, group), read once.
template <class T>
static __device__ __forceinline__ void guide_means(const GateWork& a, int64_t b, int g, float* means) {
  const Image& t = a.guide;
  const T* base = (const T*)t.data + b * t.batch + (int64_t)g * a.sizes_guide * t.channel;
  const float factor = 1.0f / (float)t.pixels;
  if (t.channels_inner) {
    for (int c = threadIdx.x; c < a.sizes_guide; c += blockDim.x) {
      float sum = 0.0f;
      for (int64_t p = 0; p < t.pixels; ++p) sum += widen(base[c * t.channel + pixel_offset(t, p)]);
      means[c] = sum * factor;
    }
    return;
  }
  for (int c = threadIdx.x / 32; c < a.sizes_guide; c += blockDim.x / 32) {
    const T* const row = base + c * t.channel;
    const float sum = sum_of_warp(lane_sum<T, false>(row, t, row, t, 0, t.pixels));
    if (threadIdx.x % 32 == 0) means[c] = sum * factor;
  }
}

template <class T>
__global__ void __launch_bounds__(256, 4) gate_fused_kernel(const GateWork a) {
  BDGF_THREADS(256);
  BDGF_DYNAMIC_SHARED(float, kept);
  const int each = a.sizes_each, pixels = (int)a.pixels.divisor;
  float *means = kept + each * pixels, *h = means + a.in, *gain = h + a.hidden_size;
  for (unsigned unit = blockIdx.x; unit < a.units; unit += gridDim.x) {
    const int64_t b = unit / (unsigned)a.groups;
    const int g = (int)(unit - b * a.groups);
    for_unit<T, false>(a.x, b, g, a.each, a.pixels, [&](int i, int, float v) { kept[i] = v; });
    if (a.use_guide) guide_means<T>(a, b, g, means + (a.use_x ? each : 0));
    __syncthreads();
    if (a.use_x) sums_of_kept(kept, each, pixels, 1.0f / (float)pixels, means);
    __syncthreads();
    gate_mlp(a, unit, g, means, h, gain);
    for_unit<T, true>(a.out, b, g, a.each, a.pixels, [&](int i, int c, float& v) { v = kept[i] * gain[c]; });
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
  for (unsigned unit = blockIdx.x; unit < a.units; unit += gridDim.x) {
    const int64_t b = unit / (unsigned)a.groups;
    const int g = (int)(unit - b * a.groups);
    for_unit<T, false>(a.x, b, g, a.each, a.pixels, [&](int i, int, float v) { product[i] = v; });
    __syncthreads();
    for_unit<T, false>(a.grad, b, g, a.each, a.pixels, [&](int i, int, float v) {
      kept[i] = v;
      product[i] *= v;
    });
    __syncthreads();
    sums_of_kept(product, each, pixels, 1.0f, logit);
    __syncthreads();
    gate_mlp_backward(a, unit, g, logit, h, grad_h, slopes);
    if (a.grad_x.data) {
      const float share = 1.0f / (float)pixels;
      const float* gate = a.gate + unit * each;
      for_unit<T, true>(a.grad_x, b, g, a.each, a.pixels, [&](int i, int c, float& v) {
        v = __fmaf_rn(kept[i], gate[c], a.use_x ? slopes[c] * share : 0.0f);
      });
    }
    if (a.grad_guide.data) {
      const float share = 1.0f / (float)a.guide.pixels;
      const float* slope = slopes + (a.use_x ? each : 0);
      for_unit<T, true>(a.grad_guide, b, g, a.guide_each, a.guide_pixels, [&](int, int c, float& v) { v = slope[c] * share; });
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
    const int64_t k = task % chunks, r = task / chunks % rows, b = task / chunks / rows;
    const int64_t c = inner ? 32 * r + lane : r, first = k * chunk, last = x.pixels - first < chunk ? x.pixels : first + chunk;
    const T *p = (const T*)x.data + b * x.batch + c * x.channel, *q = (const T*)other.data + b * other.batch + c * other.channel;
    float sum = 0.0f;
    if (!inner) {
      sum = sum_of_warp(lane_sum<T, kProduct>(p, x, q, other, first, last));
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
  for (unsigned unit = blockIdx.x; unit < a.units; unit += gridDim.x) {
    const int64_t b = unit / (unsigned)a.groups;
    const int g = (int)(unit - b * a.groups), from_x = a.use_x ? a.sizes_each : 0;
    for (int i = threadIdx.x; i < a.in; i += blockDim.x)
      means[i] = i < from_x ? total_of(a.partial, a.x, a.x.channels_inner, b, g * a.sizes_each + i) / (float)a.x.pixels
                            : total_of(a.guide_partial, a.guide, a.guide.channels_inner, b, g * a.sizes_guide + i - from_x) / (float)a.guide.pixels;
    __syncthreads();
    gate_mlp(a, unit, g, means, h, gain);
  }
}
static __global__ void __launch_bounds__(128) gate_mlp_backward_kernel(const GateWork a) {
  BDGF_THREADS(128);
  BDGF_DYNAMIC_SHARED(float, logit);
  float *h = logit + a.sizes_each, *grad_h = h + a.hidden_size, *slopes = grad_h + a.hidden_size;
  for (unsigned unit = blockIdx.x; unit < a.units; unit += gridDim.x) {
    const int64_t b = unit / (unsigned)a.groups;
    const int g = (int)(unit - b * a.groups), from_x = a.use_x ? a.sizes_each : 0;
    const bool inner = a.x.channels_inner && a.grad.channels_inner;
    for (int c = threadIdx.x; c < a.sizes_each; c += blockDim.x) logit[c] = total_of(a.partial, a.x, inner, b, g * a.sizes_each + c);
    __syncthreads();
    gate_mlp_backward(a, unit, g, logit, h, grad_h, slopes);
    for (int c = threadIdx.x; c < a.sizes_each; c += blockDim.x)
      a.offset[unit * a.sizes_each + c] = a.use_x ? slopes[c] / (float)a.x.pixels : 0.0f;
    for (int c = threadIdx.x; c < a.in - from_x; c += blockDim.x)
      a.guide_offset[unit * a.sizes_guide + c] = slopes[from_x + c] / (float)a.guide.pixels;
    __syncthreads();
  }
}

// to = from * gain[b][c] + offset[b][c], either of them absent; in the order of to's memory, 16 bytes a thread.
template <class T>
__global__ void __launch_bounds__(256) gate_scale_kernel(const Image from, const Image to, const float* gain, const float* offset, int64_t batch,
                                                         Divider inner, Divider outer) {
  BDGF_THREADS(256);
  constexpr int W = 16 / sizeof(T);
  const int64_t n = batch * to.channels * to.pixels, step = (int64_t)gridDim.x * blockDim.x * W;
  const bool packs = to.flat && (!from.data || (from.flat && from.channels_inner == to.channels_inner)) && pack_aligned<T, W>((const T*)to.data) &&
                     (!from.data || pack_aligned<T, W>((const T*)from.data));
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
        if (from.data && !whole_pack) v[j] = widen(((const T*)from.data)[b * from.batch + c * from.channel + pixel_offset(from, p)]);
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
      for (int64_t b = slice; b < batch; b += 16) sum = __fmaf_rn(left[b * left_stride], right ? right[b * right_stride] : 1.0f, sum);
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
