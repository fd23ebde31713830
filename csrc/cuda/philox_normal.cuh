// One thread, one item of the loop: four normals, or eight of 16 bits.
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
  const int64_t items = a.loop.batch * a.loop.items, step = (int64_t)gridDim.x * blockDim.x;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < items; i += step) {
    const int64_t b = divide(i, a.loop.per_sample);
    const Item<K, 1> item = locate<K>(a.loop, a.t, b, i - b * a.loop.items);
    if (item.begin >= item.end) continue;
    float normal[4 * K];
    draw(item, noise_sample(a.noise, b), stream, key, normal);
    store<T>(a.t[0], item, 0, normal);
  }
}

}  // namespace BDGF_ISA
}  // namespace bdgf
