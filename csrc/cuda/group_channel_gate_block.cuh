// group_channel_gate on CUDA: what its kernels are made of. Images of any layout, sums over space, the block-diagonal MLP and its
// backward, and the elements of a (sample, group) in the order of memory. The kernels are in group_channel_gate.cuh.
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
  Divider width;        // the pixels that one stride reaches: W, or H W where rows follow each other
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
  uint32_t sample_groups;                     // batch * groups
  Divider pixels, each, guide_pixels, guide_each;
  int groups, sizes_each, sizes_guide, hidden_size, in;
  bool use_x, use_guide;
};

// The index of the first of a (sample, group)'s entries, in 64 bits: batch * C passes 2^32 where batch * groups does not.
static constexpr __host__ __device__ int64_t first_entry(uint32_t sample_group, int entries) {
  return static_cast<int64_t>(sample_group) * entries;
}
static_assert(first_entry(0x7fffffffu, 64) == int64_t{0x7fffffff} * 64, "an index must not wrap at 2^32");

static __device__ __forceinline__ int64_t pixel_offset(const Image& t, int64_t p) {
  if (t.width.divisor == t.pixels) return p * t.column;
  const int64_t y = divide(p, t.width);
  return y * t.row + (p - y * t.width.divisor) * t.column;
}

// The sum of a row is made by kLanes neighbouring lanes: by few of them where it is short, so that a warp makes several at once.
constexpr int kFewLanes = 8, kShort = 8 * kFewLanes;
template <int kLanes>
static __device__ __forceinline__ float sum_of_lanes(float value) {
#pragma unroll
  for (int by = kLanes / 2; by > 0; by /= 2) value += __shfl_xor_sync(0xffffffffu, value, by);
  return value;
}
// f(r, whether there is such a row) for each row, by a group of lanes. Whole warps call it, so that their lanes can shuffle.
template <int kLanes, class F>
static __device__ __forceinline__ void for_each_row(int rows, const F& f) {
  for (int first = threadIdx.x / 32 * (32 / kLanes); first < rows; first += blockDim.x / kLanes) {
    const int r = first + threadIdx.x % 32 / kLanes;
    f(r, r < rows);
  }
}

// A lane's share of the sum over pixels first ... last - 1 of a channel, of x or of x * other: every kLanes-th pixel, in order,
// with four loads in flight where the pixels have one stride.
template <class T, bool kProduct, int kLanes = 32>
static __device__ __forceinline__ float lane_sum(const T* p, const Image& x, const T* q, const Image& other, int64_t first,
                                                 int64_t last) {
  float sum = 0.0f;
  int64_t i = first + threadIdx.x % kLanes;
  if (x.width.divisor == x.pixels && (!kProduct || other.width.divisor == other.pixels)) {
    const T *at = p + i * x.column, *beside = q + i * other.column;
    int left = (int)(last - i);
    const auto add_four = [&](int there) {
      float v[4] = {}, w[4] = {};
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        if (kLanes * k < there) {
          v[k] = widen(at[kLanes * k * x.column]);
          if (kProduct) w[k] = widen(beside[kLanes * k * other.column]);
        }
      }
#pragma unroll
      for (int k = 0; k < 4; ++k) sum = kProduct ? __fmaf_rn(v[k], w[k], sum) : sum + v[k];
    };
    for (; left > 3 * kLanes; left -= 4 * kLanes, at += 4 * kLanes * x.column, beside += 4 * kLanes * other.column)
      add_four(4 * kLanes);
    if (left > 0) add_four(left);
    return sum;
  }
  for (; i < last; i += kLanes) {
    const float v = widen(p[pixel_offset(x, i)]);
    sum = kProduct ? __fmaf_rn(v, widen(q[pixel_offset(other, i)]), sum) : sum + v;
  }
  return sum;
}

// f(r, bias[r] + row r of w . x) for each row.
template <int kLanes, class F>
static __device__ __forceinline__ void rows_times(const float* w, const float* bias, int rows, int columns, const float* x,
                                                  const F& f) {
  for_each_row<kLanes>(rows, [&](int r, bool there) {
    const int lane = threadIdx.x % kLanes;
    float sum = 0.0f;
    for (int k = there ? lane : columns; k < columns; k += kLanes) sum = __fmaf_rn(w[r * columns + k], x[k], sum);
    sum = sum_of_lanes<kLanes>(sum);
    if (there && lane == 0) f(r, sum + bias[r]);
  });
}
template <class F>
static __device__ __forceinline__ void rows_times(const float* w, const float* bias, int rows, int columns, const float* x,
                                                  const F& f) {
  if (columns <= kFewLanes)
    rows_times<1>(w, bias, rows, columns, x, f);
  else if (columns <= kShort)
    rows_times<kFewLanes>(w, bias, rows, columns, x, f);
  else
    rows_times<32>(w, bias, rows, columns, x, f);
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
static __device__ __forceinline__ void gate_mlp(const GateWork& a, int64_t sample_group, int g, const float* means, float* h,
                                                    float* gain) {
  rows_times(a.weight1 + (int64_t)g * a.hidden_size * a.in, a.bias1 + g * a.hidden_size, a.hidden_size, a.in, means,
             [&](int r, float v) { h[r] = v <= 0.0f ? 0.0f : v; });
  for (int i = threadIdx.x; i < a.in; i += blockDim.x) a.squeezed[sample_group * a.in + i] = means[i];
  __syncthreads();
  rows_times(a.weight2 + (int64_t)g * a.sizes_each * a.hidden_size, a.bias2 + g * a.sizes_each, a.sizes_each, a.hidden_size, h,
             [&](int c, float v) {
               gain[c] = 1.0f / (1.0f + expf(-v));
               a.gate[sample_group * a.sizes_each + c] = gain[c];
             });
  __syncthreads();
}
// logit [each] holds sums of grad * x -> what the weights' gradients need, and slopes [in] of the means.
static __device__ __forceinline__ void gate_mlp_backward(const GateWork& a, int64_t sample_group, int g, float* logit, float* h,
                                                             float* grad_h, float* slopes) {
  for (int c = threadIdx.x; c < a.sizes_each; c += blockDim.x) {
    const float gate = a.gate[sample_group * a.sizes_each + c];
    logit[c] *= gate * (1.0f - gate);
    a.logit[sample_group * a.sizes_each + c] = logit[c];
  }
  rows_times(a.weight1 + (int64_t)g * a.hidden_size * a.in, a.bias1 + g * a.hidden_size, a.hidden_size, a.in,
             a.squeezed + sample_group * a.in,
             [&](int r, float v) { a.hidden[sample_group * a.hidden_size + r] = h[r] = v <= 0.0f ? 0.0f : v; });
  __syncthreads();
  columns_times(a.weight2 + (int64_t)g * a.sizes_each * a.hidden_size, a.sizes_each, a.hidden_size, logit, [&](int k, float v) {
    a.grad_hidden[sample_group * a.hidden_size + k] = grad_h[k] = h[k] <= 0.0f ? 0.0f : v;
  });
  __syncthreads();
  columns_times(a.weight1 + (int64_t)g * a.hidden_size * a.in, a.hidden_size, a.in, grad_h, [&](int k, float v) { slopes[k] = v; });
  __syncthreads();
}

// Elements of a (sample, group) that lie together.
template <int N>
struct Elements {
  static constexpr int size = N;
  int first;  // index in [channels][pixels]
  int channel[N];
  float value[N];
};
template <int N>
static __device__ __forceinline__ void find_channels(Elements<N>& some, const Divider& pixels) {
  const int size = (int)pixels.divisor;
  some.channel[0] = (int)divide(some.first, pixels);
  int next = (some.channel[0] + 1) * size;
#pragma unroll
  for (int j = 1; j < N; ++j) {
    const bool over = some.first + j >= next;
    some.channel[j] = some.channel[j - 1] + over;
    next += over ? size : 0;
  }
}
// use(elements) for those of a (sample, group) in memory's order, 16 bytes at once where they lie together; their values are loaded
// before it, or stored afterwards. Channels: how many.
template <class T, bool kStore, class F>
static __device__ __forceinline__ void for_each_pack(const Image& t, int64_t b, int g, const Divider& channels,
                                                     const Divider& pixels, const F& use) {
  constexpr int W = 16 / sizeof(T);
  T* base = (T*)t.data + b * t.batch + g * channels.divisor * t.channel;
  const int n = (int)(channels.divisor * pixels.divisor), size = (int)pixels.divisor;
  const bool dense = t.width.divisor == t.pixels && (t.column == 1 || size == 1) && (t.channel == size || channels.divisor == 1);
  if (dense && n % W == 0 && pack_aligned<T, W>(base)) {
    constexpr int kTogether = kStore ? 1 : 16 / W;  // whose loads are in flight at the same time
    const int step = blockDim.x * W;
    for (int e = threadIdx.x * W; e < n; e += kTogether * step) {
      Elements<W> some[kTogether];
#pragma unroll
      for (int m = 0; m < kTogether; ++m) {
        some[m].first = e + m * step;
        if (!kStore && some[m].first < n) load_packs<T, W>(base + some[m].first, some[m].value);
      }
#pragma unroll
      for (int m = 0; m < kTogether; ++m) {
        if (some[m].first < n) {
          find_channels(some[m], pixels);
          use(some[m]);
          if (kStore) store_packs<T, W>(base + some[m].first, some[m].value);
        }
      }
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
    Elements<1> one{c * size + p, {c}};
    if (!kStore) one.value[0] = widen(*at);
    use(one);
    if (kStore) store_rounded(at, one.value[0]);
  }
}
// The values of elements, kept in shared memory.
template <int N>
static __device__ __forceinline__ void load_kept(const float* kept, Elements<N>& some) {
  load_packs<float, N < 4 ? N : 4>(kept + some.first, some.value);
}
template <int N>
static __device__ __forceinline__ void store_kept(float* kept, const Elements<N>& some) {
  store_packs<float, N < 4 ? N : 4>(kept + some.first, some.value);
}
// sums[c] over a channel's pixels in shared memory.
template <int kLanes>
static __device__ __forceinline__ void sums_of_kept(const float* kept, int channels, int pixels, float factor, float* sums) {
  for_each_row<kLanes>(channels, [&](int c, bool there) {
    float sum = 0.0f;
    const float* at = kept + c * pixels + threadIdx.x % kLanes;
    for (int left = there ? pixels - (int)(threadIdx.x % kLanes) : 0; left > 0; left -= 4 * kLanes, at += 4 * kLanes) {
#pragma unroll
      for (int k = 0; k < 4; ++k) sum += kLanes * k < left ? at[kLanes * k] : 0.0f;
    }
    sum = sum_of_lanes<kLanes>(sum);
    if (there && threadIdx.x % kLanes == 0) sums[c] = sum * factor;
  });
}
static __device__ __forceinline__ void sums_of_kept(const float* kept, int channels, int pixels, float factor, float* sums) {
  if (pixels <= kShort)
    sums_of_kept<kFewLanes>(kept, channels, pixels, factor, sums);
  else
    sums_of_kept<32>(kept, channels, pixels, factor, sums);
}
// means[c] of the guide's channels of a (sample, group), read once.
template <class T, int kLanes>
static __device__ __forceinline__ void guide_means(const T* base, const Image& t, int channels, float factor, float* means) {
  for_each_row<kLanes>(channels, [&](int c, bool there) {
    const T* const row = base + c * t.channel;
    const float sum = sum_of_lanes<kLanes>(lane_sum<T, false, kLanes>(row, t, row, t, 0, there ? t.pixels : 0));
    if (there && threadIdx.x % kLanes == 0) means[c] = sum * factor;
  });
}
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
  } else if (t.pixels <= kShort) {
    guide_means<T, kFewLanes>(base, t, a.sizes_guide, factor, means);
  } else {
    guide_means<T, 32>(base, t, a.sizes_guide, factor, means);
  }
}

}  // namespace BDGF_ISA
}  // namespace bdgf
