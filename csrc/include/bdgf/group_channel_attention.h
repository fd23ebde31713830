// group_channel_attention: out = softmax(tau Q^ K^') V between the channels of a group, rows of Q and K divided by their
// L2 norm over L (Zamir et al., "Restormer", arXiv 2111.09881, eq. 1), and its gradients.
#pragma once
#include "bdgf/tensor_view.h"

namespace bdgf {

struct GroupChannelAttentionArgs {
  TensorView q, k, v;      // [batch, C, L] f32 | f16 | bf16 | f64, one dtype, any strides; C / groups <= kMaxGroupSize
  TensorView temperature;  // [groups] f32 (f64 for f64), any stride
  TensorView out;          // like q
  TensorView workspace;    // contiguous f32 (f64 for f64)
  int64_t groups;
};

struct GroupChannelAttentionBwdArgs {
  GroupChannelAttentionArgs forward;  // out absent
  TensorView grad_out;                // like q
  TensorView grad_q, grad_k, grad_v;  // like their inputs, each may be absent
  TensorView grad_temperature;        // [groups], or absent
};

constexpr int64_t kMaxGroupSize = 256;

static inline __attribute__((always_inline)) int64_t group_padded(int64_t n) { return (n + 15) / 16 * 16; }
// Steps along L that are worked on together: a multiple of 16.
static inline __attribute__((always_inline)) int64_t group_steps(int64_t size, int64_t length) {
  const int64_t most = (258048 - 3 * size * group_padded(size)) / (5 * size) / 16 * 16, all = group_padded(length);
  return all < most ? all : most;
}
// Elements of a thread's scratch: three matrices [size][size], five panels [size][steps], six vectors.
static inline __attribute__((always_inline)) int64_t group_scratch(int64_t size, int64_t length) {
  return 3 * size * group_padded(size) + 5 * size * group_steps(size, length) + 6 * group_padded(size);
}

}  // namespace bdgf
