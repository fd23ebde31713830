// Selective scan, backward: how tiles of dense tensors (selective_scan_dense.cuh) are staged and stored. Of a tile, a thread takes
// one of the 16 steps and every eighth channel; of the terms of dB and dC every eighth state. Delta, u and dy are 0 where a step or
// channel does not exist, and B and C where a state does not.
#pragma once
#include "cuda/selective_scan_bwd_tile.cuh"

namespace bdgf {
namespace BDGF_ISA {

constexpr int kDenseStride = kMostThreads / kBackwardSteps;        // from one of a thread's channels to the next
constexpr int kDenseElements = kTileChannels / kDenseStride;       // channels of a thread
static_assert(kDenseElements == 4, "a thread's elements are loaded as one Raw");

template <class T>
BDGF_DEV void load_column(Raw<T>& raw, const DenseColumn<T>& from, int number, int stride) {
#pragma unroll
  for (int i = 0; i < 4; ++i) raw.v[i] = load_raw(from.at(number + i * stride));
}

// The place of step j of the tile of `count` steps from step `first` on; in a pack, every row takes a slot of the tile.
template <class T, bool kConstant, ScanLayout kLayout>
BDGF_DEV_METHOD DensePlace BackwardScan<T, kConstant, kLayout>::dense_place(int j, int first, int count) const {
  if (!packed()) return {0, first + smaller(j, count - 1), j < count};
  const int steps = (int)pack.steps, slot = row_slot(steps), row = j / slot, step = j - row * slot;
  return {smaller(row, pack.rows - 1), smaller(step, steps - 1), row < pack.rows && step < steps};
}
// As stage(), of which this takes the place.
template <class T, bool kConstant, ScanLayout kLayout>
BDGF_DEV_METHOD void BackwardScan<T, kConstant, kLayout>::stage_dense(int first, int count, bool inputs, bool adjoint_too) {
  __syncthreads();  // the tile before is done with
  const DenseTensor* const dense = block.dense;
  const DType dtype = a.u.dtype;
  const int filler = fresh_thread(), j = filler % kBackwardSteps, number = filler / kBackwardSteps;
  const DensePlace at = dense_place(j, first, count);
  // B or C of four states: half of the threads take B, half take C.
  const bool second = filler >= kMostThreads / 2, matrix = !second || adjoint_too;
  const int group = filler / kBackwardSteps % kMostSplit;
  const bool gradient = adjoint_too && a.grad_out.data;
  Raw<T> raw_u, raw_delta, raw_grad, raw_z;
  if (inputs) {
    load_column(raw_u, DenseColumn<T>(dense[kInU], at, b.channels), number, kDenseStride);
    load_column(raw_delta, DenseColumn<T>(dense[kInDelta], at, b.channels), number, kDenseStride);
  }
  if (gradient) load_column(raw_grad, DenseColumn<T>(dense[kGradOut], at, b.channels), number, kDenseStride);
  if (gradient && gated) load_column(raw_z, DenseColumn<T>(dense[kInZ], at, b.channels), number, kDenseStride);

  const int e = j * kTilePitch + number, channels = at.exists ? b.channels - number : 0;
  if (inputs) {
    float d[kDenseElements];
#pragma unroll
    for (int i = 0; i < kDenseElements; ++i) d[i] = widened(raw_delta.v[i], dtype) + bias[number + i * kDenseStride];
    if (a.softplus) {
#pragma unroll
      for (int i = 0; i < kDenseElements; ++i) d[i] = scan_softplus<ScanMath>(d[i]);
    }
#pragma unroll
    for (int i = 0; i < kDenseElements; ++i) {
      const bool exists = i * kDenseStride < channels;
      pair[e + i * kDenseStride] = exists ? make_float2(d[i], widened(raw_u.v[i], dtype)) : make_float2(0.0f, 0.0f);
    }
  }
  if (matrix) {
    Raw<T> raw_matrix;
    load_column(raw_matrix, DenseColumn<T>(dense[second ? kInC : kInB], at, b.states), group * kThreadStates, 1);
    float r[kThreadStates];
#pragma unroll
    for (int q = 0; q < kThreadStates; ++q) r[q] = group * kThreadStates + q < b.states ? widened(raw_matrix.v[q], dtype) : 0.0f;
    store_orders((second ? tile_c : tile_b) + j * matrix_pitch + group * kOrders * kThreadStates, r);
  }
  if (adjoint_too) {
#pragma unroll
    for (int i = 0; i < kDenseElements; ++i) {
      float gy = gradient && i * kDenseStride < channels ? widened(raw_grad.v[i], dtype) : 0.0f;
      if (gradient && gated) gy *= ScanMath::silu(widened(raw_z.v[i], dtype));
      tile_g[e + i * kDenseStride] = gy;
    }
  }
  __syncthreads();
}

// As store_tile(), of which this takes the place: the tile of `count` steps from step `first` on.
template <class T, bool kConstant, ScanLayout kLayout>
BDGF_DEV_METHOD void BackwardScan<T, kConstant, kLayout>::store_dense(int first, int count) {
  const DenseTensor* const dense = block.dense;
  const int filler = fresh_thread(), j = filler % kBackwardSteps, number = filler / kBackwardSteps;
  const int e = j * kTilePitch + number;
  const DensePlace at = dense_place(j, first, count);
  if (!at.exists) return;
  const auto store = [&](const ScanTarget& o, int tensor, const auto& value) {
    if (!o.t.data) return;
    const DenseColumn<T> to(dense[tensor], at, b.channels);
#pragma unroll
    for (int i = 0; i < kDenseElements; ++i) {
      if (number + i * kDenseStride <= to.most) store_f32(to.at(number + i * kDenseStride), value(i), a.u.dtype);
    }
  };
  store(call.grad_delta, kGradDelta, [&](int i) { return pair[e + i * kDenseStride].x; });
  store(call.grad_u, kGradU, [&](int i) { return pair[e + i * kDenseStride].y; });
  if (call.grad_z.t.data && a.grad_out.data) {
    Raw<T> raw_z, raw_grad;
    load_column(raw_z, DenseColumn<T>(dense[kInZ], at, b.channels), number, kDenseStride);
    load_column(raw_grad, DenseColumn<T>(dense[kGradOut], at, b.channels), number, kDenseStride);
    store(call.grad_z, kGradZ, [&](int i) {
      const float z = widened(raw_z.v[i], a.u.dtype), grad = widened(raw_grad.v[i], a.u.dtype);
      return grad * tile_g[e + i * kDenseStride] * scan_silu_slope<ScanMath>(z);
    });
  } else {
    store(call.grad_z, kGradZ, [&](int) { return 0.0f; });
  }
  store_dense_terms(call.grad_B, dense[kGradB], at, terms + j * kTermPitch + number);
  store_dense_terms(call.grad_C, dense[kGradC], at, terms + j * kTermPitch + 16 + number);
}
// dB or dC at a step: the sums over the warps, of whose terms `mine` are the first warp's of this thread's first state.
template <class T, bool kConstant, ScanLayout kLayout>
BDGF_DEV_METHOD void BackwardScan<T, kConstant, kLayout>::store_dense_terms(const ScanTarget& o, const DenseTensor& to,
                                                                            const DensePlace& at, const float* mine) {
  if (!o.t.data) return;
  const int number = fresh_thread() / kBackwardSteps;
#pragma unroll
  for (int i = 0; i < kThreadStates * kMostSplit / kDenseStride; ++i) {
    float sum = 0.0f;
#pragma unroll
    for (int warp = 0; warp < kMostSplit; ++warp) sum += mine[warp * kBackwardSteps * kTermPitch + i * kDenseStride];
    const int n = number + i * kDenseStride;
    if (n >= b.states) continue;
    if (sizeof(T) == 4 || o.t.dtype == DType::f32) store_f32(DenseColumn<float>(to, at, b.states).at(n), sum, DType::f32);
    else store_f32(DenseColumn<T>(to, at, b.states).at(n), sum, o.t.dtype);
  }
}

}  // namespace BDGF_ISA
}  // namespace bdgf
