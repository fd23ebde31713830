// cross_attention: out = dropout(softmax(scale Q K' + bias)) V for each sample and head (Vaswani et al., arXiv
// 1706.03762, eq. 1), and its gradients.
#pragma once
#include "bdgf/tensor_view.h"

namespace bdgf {

struct CrossAttentionArgs {
  TensorView query;          // [batch, heads, Lq, d] f32 | f16 | bf16 | f64, any strides; d <= kMaxHeadDim
  TensorView key, value;     // [batch, heads, Lk, d], query's dtype
  TensorView key_mask;       // [batch, Lk] bool, true = attend; or absent
  TensorView attn_bias;      // [1|batch, 1|heads, 1|Lq, Lk] query's dtype or f32; or absent
  TensorView out;            // [batch, heads, Lq, d] query's dtype
  TensorView statistics;     // [2, batch, heads, Lq] f32 (f64 for f64) contiguous: a row's largest score, and the log of the sum of
                             // exp(score - largest), +inf for rows without a key. Their sum would lose the log of large scores.
  TensorView workspace;      // [num_threads * attention_workspace(...)] f32
  double scale;
  float dropout_p;           // in [0, 1)
  uint32_t drop_below;       // a weight whose word is below this is dropped
  double keep_factor;        // 1 / (1 - dropout_p): what the others are multiplied by
  uint64_t seed;             // ignored where seed_at is set
  const int64_t* seed_at;    // 0-d tensor, or null
};

struct CrossAttentionBwdArgs {
  CrossAttentionArgs forward;                             // out absent
  TensorView grad_out;                                    // like query
  TensorView grad_query, grad_key, grad_value, grad_bias; // like their inputs, each may be absent
  TensorView delta;                                       // [batch, heads, Lq] f32 contiguous scratch: rows' sum of P dP
};

constexpr int kMaxHeadDim = 128;
constexpr int kAttentionRows = 32;         // most query rows that are worked on together, at any level
constexpr int64_t kForwardKeys = 256;      // keys a pass in the forward
constexpr int64_t kWorkspaceFloats = 229376;  // 896 KiB a thread in the backward

static inline __attribute__((always_inline)) int64_t attention_depth(int64_t d) { return (d + 15) / 16 * 16; }

// Floats per key of the backward's panels: P, dP, dropout factors; dK and dV; K and V, where they have to be copied.
static inline __attribute__((always_inline)) int64_t backward_floats_per_key(int64_t d, bool copied, bool dropout) {
  return kAttentionRows * (dropout ? 3 : 2) + attention_depth(d) * (copied ? 4 : 2) + 1;
}
// Keys a pass of the backward: all of them where the workspace allows.
static inline __attribute__((always_inline)) int64_t backward_keys(int64_t keys, int64_t d, bool copied, bool dropout) {
  const int64_t most = kWorkspaceFloats / backward_floats_per_key(d, copied, dropout);
  return keys < most ? keys : most;
}
// Floats a thread needs.
static inline __attribute__((always_inline)) int64_t attention_workspace(int64_t keys, int64_t d, bool backward,
                                                                         bool copied, bool dropout) {
  if (backward) return backward_keys(keys, d, copied, dropout) * backward_floats_per_key(d, copied, dropout) + 64;
  const int64_t n = keys < kForwardKeys ? keys : kForwardKeys;
  return n * (kAttentionRows * (dropout ? 2 : 1) + (copied ? 2 * attention_depth(d) : 0) + 1) + 64;
}

}  // namespace bdgf
