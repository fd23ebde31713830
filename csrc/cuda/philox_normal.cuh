// The normals themselves, item by item (sample_loop.cuh).
#pragma once
#include "cuda/sample_loop.cuh"

namespace bdgf {
namespace BDGF_ISA {

struct PhiloxNormalWork {
  SampleLoop loop;
  NoiseAddress noise;
  Strided t[1];  // out
};

template <class T>
__global__ void __launch_bounds__(256) philox_normal_kernel(const PhiloxNormalWork a) {
  BDGF_THREADS(256);
  constexpr int K = kBlocksPerItem<T>;
  const uint64_t key = noise_key(a.noise);
  const uint32_t stream = noise_stream(a.noise);
  for_each_item<T, true>(
      a.loop, a.t, [&](int64_t b) { return noise_sample(a.noise, b); },
      [&](uint32_t sample, int64_t, const Item<K, 1>& item) {
        float normal[4 * kBlocksPerItem<T>];
        draw(item, sample, stream, key, normal);
        store<T>(a.t[0], item, 0, normal);
      });
}

}  // namespace BDGF_ISA
}  // namespace bdgf
