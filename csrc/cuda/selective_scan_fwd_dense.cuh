// Selective scan, forward: how tiles of dense tensors (selective_scan_dense.cuh) are loaded and stored. A thread takes one of the
// 32 steps (its lane), and every fourth channel and state from the number of its warp on. B and C of a state that does not exist
// are set to 0; of a step or channel that does not exist nothing is stored.
#pragma once
#include "cuda/selective_scan_fwd_tile.cuh"

namespace bdgf {
namespace BDGF_ISA {

template <class T, bool kOutputs, ScanLayout kLayout>
struct DenseTiles {
  static constexpr int kElements = kTileChannels / kMostSplit;  // channels of a thread
  const DenseTensor* tensors;
  int rows, steps;                                              // of the pack
  Raw<T> raw_u[kElements / 4], raw_delta[kElements / 4], raw_b, raw_c;  // of the next tile

  // This thread's place in the tile from step `first` of the pack on, and the number of its first channel and state.
  BDGF_DEV_METHOD DensePlace place(int first) const {
    const int wanted = first + fresh_thread() % 32, all = size(), step = smaller(wanted, all - 1);
    const int row = kLayout == kDensePack ? step / steps : 0;
    return {row, step - row * steps, wanted < all};
  }
  BDGF_DEV_METHOD int size() const { return kLayout == kDensePack ? rows * steps : steps; }
  BDGF_DEV_METHOD static int number() { return fresh_thread() / 32; }

  // Starts loading the tile at step `first`.
  BDGF_DEV_METHOD void fetch(const BlockWork& b, int first) {
    const DensePlace at = place(first);
    const int number = this->number();
    const DenseColumn<T> in_b(tensors[kB], at, b.states), in_c(tensors[kC], at, b.states);
    const DenseColumn<T> in_u(tensors[kU], at, b.channels);
    const DenseColumn<T> in_delta(tensors[kDelta], at, b.channels);
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      raw_b.v[q] = load_raw(in_b.at(number + q * kMostSplit));
      if (kOutputs) raw_c.v[q] = load_raw(in_c.at(number + q * kMostSplit));
    }
#pragma unroll
    for (int i = 0; i < kElements; ++i) {
      raw_delta[i / 4].v[i % 4] = load_raw(in_delta.at(number + i * kMostSplit));
      raw_u[i / 4].v[i % 4] = load_raw(in_u.at(number + i * kMostSplit));
    }
  }
  // Moves what fetch() loaded into shared memory.
  BDGF_DEV_METHOD void stage(const SelectiveScanArgs& a, const BlockWork& b, float2* pair, float* tile_b, float* tile_c,
                             const float* bias) const {
    const int j = fresh_thread() % 32, number = this->number(), left = b.states - number;
    float d[kElements];
#pragma unroll
    for (int i = 0; i < kElements; ++i) d[i] = widened(raw_delta[i / 4].v[i % 4], a.u.dtype) + bias[number + i * kMostSplit];
    if (a.softplus) {
#pragma unroll
      for (int i = 0; i < kElements; ++i) d[i] = scan_softplus<ScanMath>(d[i]);
    }
    float2* const pairs = pair + j * kTilePitch + number;
#pragma unroll
    for (int i = 0; i < kElements; ++i) pairs[i * kMostSplit] = make_float2(d[i], widened(raw_u[i / 4].v[i % 4], a.u.dtype));
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      const int at = j * kMatrixPitch + number + q * kMostSplit;
      tile_b[at] = q * kMostSplit < left ? widened(raw_b.v[q], a.u.dtype) : 0.0f;
      if (kOutputs) tile_c[at] = q * kMostSplit < left ? widened(raw_c.v[q], a.u.dtype) : 0.0f;
    }
  }
  // out = (y + D u) silu(z) of the tile at step `first`, which is scanned.
  BDGF_DEV_METHOD void store(const SelectiveScanArgs& a, const BlockWork& b, int first, const float2* pair, const float* tile_y,
                             const float* skip) const {
    const DensePlace at = place(first);
    const int j = fresh_thread() % 32, number = this->number(), e = j * kTilePitch + number;
    float value[kElements];
#pragma unroll
    for (int i = 0; i < kElements; ++i) {
      value[i] = fmaf(skip[number + i * kMostSplit], pair[e + i * kMostSplit].y, tile_y[e + i * kMostSplit]);
    }
    if (a.z.data) {
      const DenseColumn<T> in_z(tensors[kZ], at, b.channels);
#pragma unroll
      for (int i = 0; i < kElements; ++i) {
        value[i] *= ScanMath::silu(widened(load_raw(in_z.at(number + i * kMostSplit)), a.u.dtype));
      }
    }
    if (!at.exists) return;
    const DenseColumn<T> to(tensors[kOut], at, b.channels);
#pragma unroll
    for (int i = 0; i < kElements; ++i) {
      if (number + i * kMostSplit <= to.most) store_f32(to.at(number + i * kMostSplit), value[i], a.u.dtype);
    }
  }
};

}  // namespace BDGF_ISA
}  // namespace bdgf
