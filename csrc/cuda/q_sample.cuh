// x_t, item by item (sample_loop.cuh). Bits as in bdgf/q_sample.h.
#pragma once
#include "cuda/sample_loop.cuh"

#include "bdgf/q_sample.h"

namespace bdgf {
namespace BDGF_ISA {

// The two coefficients of sample b; NaN where its timestep is out of range.
static __device__ __forceinline__ float2 schedule_at(const ScheduleView& s, int64_t b) {
  const int64_t t = s.t[b * s.t_stride];
  if (t < 0 || t >= s.steps) return make_float2(__int_as_float(0x7fc00000), __int_as_float(0x7fc00000));
  return make_float2(s.sqrt_abar[t], s.sqrt_rest[t]);
}

struct QSampleWork {
  SampleLoop loop;
  QSampleArgs args;
  Divider pixels;
  Strided t[3];  // x0, out, the sample's own count
};

// A bit per element of the item, set where its channel is hidden.
template <int K, int N>
static __device__ __forceinline__ unsigned hidden_elements(const QSampleWork& a, const Item<K, N>& item, int64_t b) {
  const uint8_t* mask = a.args.channel_mask + b * a.args.mask_batch_stride;
  const int64_t own = item.offset[2] + item.column;
  int64_t channel = divide(own + item.begin, a.pixels), next = (channel + 1) * a.pixels.divisor;
  bool is_hidden = mask[channel * a.args.mask_channel_stride];
  unsigned hidden = 0;
  for (int j = item.begin; j < item.end; ++j) {
    if (own + j >= next) {
      ++channel;
      next += a.pixels.divisor;
      is_hidden = mask[channel * a.args.mask_channel_stride];
    }
    hidden |= (unsigned)is_hidden << j;
  }
  return hidden;
}

struct OfSample {
  float2 c;  // the coefficients
  uint32_t sample;
};

template <class T>
__global__ void __launch_bounds__(256) q_sample_kernel(const QSampleWork a) {
  BDGF_THREADS(256);
  constexpr int K = kBlocksPerItem<T>;
  const uint64_t key = noise_key(a.args.noise);
  const uint32_t stream = noise_stream(a.args.noise);
  for_each_item<T, true>(
      a.loop, a.t, [&](int64_t b) { return OfSample{schedule_at(a.args.schedule, b), noise_sample(a.args.noise, b)}; },
      [&](const OfSample& of, int64_t b, const Item<K, 3>& item) {
        const bool masked = !item.packed && a.args.channel_mask;  // run_q_sample takes no packed items where there is a mask
        const unsigned hidden = masked ? hidden_elements(a, item, b) : 0, all = (1u << item.end) - (1u << item.begin);
        float value[4 * K], eps[4 * K];
        if (hidden != all) {
          load<T>(a.t[0], item, 0, value);
          if (a.args.draw) {
            draw(item, of.sample, stream, key, eps);
#pragma unroll
            for (int j = 0; j < 4 * K; ++j) value[j] = noised<DeviceMath>(of.c.x, value[j], of.c.y, eps[j]);
          } else {
#pragma unroll
            for (int j = 0; j < 4 * K; ++j) value[j] = __fmul_rn(of.c.x, value[j]);
          }
        }
        if (hidden) {
#pragma unroll
          for (int j = 0; j < 4 * K; ++j) eps[j] = 0.0f;
          if (a.args.fill_with_noise)
            draw(item, noise_sample(a.args.fill, b), noise_stream(a.args.fill), noise_key(a.args.fill), eps);
#pragma unroll
          for (int j = 0; j < 4 * K; ++j) value[j] = hidden >> j & 1 ? eps[j] : value[j];
        }
        store<T>(a.t[1], item, 1, value);
      });
}

}  // namespace BDGF_ISA
}  // namespace bdgf
