// The host side of sample_loop.cuh: the axes that the tensors of a call have in common.
#pragma once
#include "cuda/launch.h"
#include "cuda/sample_loop.cuh"

namespace bdgf {
namespace BDGF_ISA {

using cuda::grid_for;

// The noise's count as a view of the sample: its own (C, H, W), or its scene's.
static inline SampleView count_view(const NoiseAddress& a) {
  TensorView t;
  t.present = true;
  t.ndim = 4;
  t.shape[0] = a.batch;
  t.shape[1] = a.origin ? a.rows / a.height : 1;
  t.shape[2] = a.origin ? a.height : a.rows;
  t.shape[3] = a.row_length;
  t.stride[1] = a.origin ? a.extent_h * a.extent_w : 0;
  t.stride[2] = a.origin ? a.extent_w : a.row_length;
  t.stride[3] = 1;
  return sample_view(t);
}
// A sample of two axes that are never taken as one.
static inline SampleView split_view(int64_t outer, int64_t inner) {
  SampleView v;
  v.ndim = 0;
  if (outer > 1) {
    v.shape[v.ndim] = outer;
    v.stride[v.ndim++] = inner;
  }
  if (inner > 1) {
    v.shape[v.ndim] = inner;
    v.stride[v.ndim++] = 1;
  }
  if (v.ndim == 0) {
    v.ndim = 1;
    v.shape[0] = 1;
    v.stride[0] = 1;
  }
  return v;
}

#ifdef BDGF_EMULATED  // so that small tests take several items a thread
constexpr int64_t kDenseThreads = 0;
#else
constexpr int64_t kDenseThreads = 512 * 256;  // fewer would leave a large GPU's schedulers less than eight warps each
#endif

// The loop over `batch` samples of the views, each of which gets its Strided (with data null if it is absent). A sample's axes are
// split where those of `split` are; `may_pack` false: the loop is not dense (see SampleLoop) even where it could be.
template <class T, int N>
SampleLoop make_sample_loop(const NoiseAddress& address, const SampleView* const (&views)[N], Strided (&strided)[N],
                            const SampleView* split = nullptr, bool may_pack = true) {
  constexpr int K = kBlocksPerItem<T>, M = kItemsPerThread<T>;
  SampleLoop w{};
  const SampleView count = count_view(address);
  const SampleView* all[N + 2] = {};
  Strided* to[N + 2] = {};
  Strided dropped{};
  int n = 0;
  for (int i = 0; i < N; ++i) {
    strided[i] = {};
    if (views[i]->present) {
      strided[i].data = views[i]->data;
      strided[i].batch = views[i]->batch_stride;
      to[n] = &strided[i];
      all[n++] = views[i];
    }
  }
  to[n] = &w.count;
  all[n++] = &count;
  if (split) {
    to[n] = &dropped;
    all[n++] = split;
  }

  int64_t size[2 * kMaxDims], stride[N + 2][2 * kMaxDims], rest[N + 2], step[N + 2];
  int axis[N + 2], axes = 0;
  for (int i = 0; i < n; ++i) {
    axis[i] = all[i]->ndim - 1;
    rest[i] = all[i]->shape[axis[i]];
    step[i] = all[i]->stride[axis[i]];
  }
  for (;;) {  // from the innermost out: the longest stretch that has one stride in all of them
    int64_t common = rest[0];
    for (int i = 1; i < n; ++i) common = rest[i] < common ? rest[i] : common;
    size[axes] = common;
    bool done = true;
    for (int i = 0; i < n; ++i) {
      stride[i][axes] = step[i];
      rest[i] /= common;
      step[i] *= common;
      if (rest[i] == 1 && axis[i] > 0) {
        --axis[i];
        rest[i] = all[i]->shape[axis[i]];
        step[i] = all[i]->stride[axis[i]];
      }
      done &= rest[i] == 1;
    }
    ++axes;
    if (done) break;
  }
  const int inner = stride[n - 1 - (split != nullptr)][0] == 1 ? 1 : 0;  // 0: neighbours in the row are none in the count
  w.row_length = inner ? size[0] : 1;
  w.axes = axes - inner;
  if (w.axes > kMaxDims) throw std::invalid_argument("tensors of more than eight axes");
  for (int i = 0; i < n; ++i) to[i]->column = inner ? stride[i][0] : 1;
  int64_t rows = 1;
  for (int d = 0; d < w.axes; ++d) {
    const int from = axes - 1 - d;
    w.extent[d] = divider(size[from]);
    rows *= size[from];
    for (int i = 0; i < n; ++i) to[i]->stride[d] = stride[i][from];
  }
  w.batch = address.batch;
  w.inner_rows = w.axes ? rows / w.extent[0].divisor : 1;
  const bool aligned = !address.origin && w.axes == 0;
  w.per_row = divider((w.row_length + 4 * K - 1 + (aligned ? 0 : 4 * K - 1)) / (4 * K));
  w.rows = divider(rows);
  const int64_t items = rows * w.per_row.divisor;
  w.dense = may_pack && aligned && w.row_length % (4 * K * M) == 0 && address.batch * (items / M) >= kDenseThreads;
  for (int i = 0; i < N && w.dense; ++i) {
    const int64_t bytes = views[i]->dtype == DType::f32 ? 4 : 2;
    w.dense = !strided[i].data ||
              (strided[i].column == 1 && (uintptr_t)strided[i].data % 16 == 0 && strided[i].batch * bytes % 16 == 0);
  }
  w.per_sample = divider(w.dense ? items / M : items);
  w.origin = address.origin;
  w.count_row = address.extent_w;
  w.row_fastest = w.axes && strided[0].data && strided[0].stride[0] < strided[0].column;
  return w;
}

// The grid of the kernels that go through it by for_each_item.
static inline unsigned grid_of(const SampleLoop& w, int threads) { return grid_for(w.batch * w.per_sample.divisor, threads); }

}  // namespace BDGF_ISA
}  // namespace bdgf
