// A (batch, ...) tensor of any strides, for operations that go through each sample in its own element order.
#pragma once
#include "bdgf/tensor_view.h"

namespace bdgf {

// The axes inside a sample, those of size 1 left out and neighbours merged where one stride covers both.
struct SampleView {
  void* data = nullptr;
  DType dtype = DType::other;
  bool present = false;
  bool dense = false;  // a sample's elements lie one after another
  int32_t ndim = 1;
  int64_t batch_stride = 0;  // strides in elements
  int64_t shape[kMaxDims] = {1};
  int64_t stride[kMaxDims] = {1};
};

inline SampleView sample_view(const TensorView& t) {
  SampleView v;
  v.data = t.data;
  v.dtype = t.dtype;
  v.present = t.present;
  if (t.ndim > 0) v.batch_stride = t.stride[0];
  int n = 0;
  for (int d = 1; d < t.ndim; ++d) {
    if (t.shape[d] == 1) continue;
    if (n > 0 && v.stride[n - 1] == t.shape[d] * t.stride[d]) {
      v.shape[n - 1] *= t.shape[d];
      v.stride[n - 1] = t.stride[d];
    } else {
      v.shape[n] = t.shape[d];
      v.stride[n] = t.stride[d];
      ++n;
    }
  }
  if (n > 0) v.ndim = n;
  v.dense = v.ndim == 1 && v.stride[0] == 1;
  return v;
}

}  // namespace bdgf
