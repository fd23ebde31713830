// group_channel_gate: out = x * sigmoid(W2 relu(W1 s + b1) + b2) per group of channels, s = spatial means of x and guide
// (Hu et al., arXiv 1709.01507, eq. 2-4, in blocks), and its gradients.
#pragma once
#include "bdgf/tensor_view.h"

namespace bdgf {

struct GroupChannelGateArgs {
  TensorView x;                // [batch, C, H, W] f32 | f16 | bf16 | f64, any strides
  TensorView guide;            // [batch, C_guide, H', W'] x's dtype; or absent
  TensorView weight1, bias1;   // [groups, hidden, in], [groups, hidden] contiguous f32 (f64 for f64)
  TensorView weight2, bias2;   // [groups, C / groups, hidden], [groups, C / groups]
  TensorView out;              // like x
  TensorView squeezed;         // [batch, groups, in] contiguous, parameters' dtype: the means; x's channels first
  TensorView gate;             // [batch, C] contiguous, parameters' dtype
  TensorView workspace;        // contiguous f32 (f64 for f64), see below
  int64_t groups;
  bool use_x, use_guide;
};

struct GroupChannelGateBwdArgs {
  GroupChannelGateArgs forward;  // out absent
  TensorView grad_out;           // like x
  // Like their inputs, the parameters' contiguous; each may be absent.
  TensorView grad_x, grad_guide, grad_weight1, grad_bias1, grad_weight2, grad_bias2;
};

// Samples whose small vectors are held at a time in the backward, before they go into the weights' gradients.
static inline __attribute__((always_inline)) int64_t gate_samples(int64_t batch, int64_t channels, int64_t groups, int64_t hidden) {
  const int64_t each = channels + 2 * groups * ((hidden + 15) / 16 * 16), most = 131072 / each;  // 512 KiB
  const int64_t samples = batch < most ? batch : most;
  return samples < 1 ? 1 : samples;
}
// Elements of a thread's scratch: a tile of weight gradients, and three vectors.
static inline __attribute__((always_inline)) int64_t gate_scratch(int64_t hidden, int64_t in, int64_t channels, int64_t groups) {
  const int64_t padded = (hidden + 15) / 16 * 16;
  return 16 * padded + padded + (in + 15) / 16 * 16 + (channels / groups + 15) / 16 * 16 + 16;
}

// ---- CUDA -----------------------------------------------------------------------------------------------------------------
struct GateShape {
  int64_t batch, channels, pixels, guide_channels, guide_pixels, groups, hidden, in;
};
constexpr int64_t kGateOnChip = 8192;  // elements of a (sample, group)
constexpr int64_t kGateVectors = 8000;  // floats of the MLP of a group, on chip in any case
constexpr int64_t kGateChunk = 2048, kGateChunkInner = 128;  // pixels whose sum is one number of the workspace

inline int64_t gate_vectors(const GateShape& s) { return s.in + 2 * s.hidden + s.channels / s.groups; }
inline bool gate_on_chip(const GateShape& s) {  // one block reads the whole; the guide's part it reads once
  const int64_t each = s.channels / s.groups;
  return each * s.pixels <= kGateOnChip && gate_vectors(s) <= 4096 &&
         s.guide_channels / s.groups * s.guide_pixels <= 4 * kGateOnChip;
}
inline int64_t gate_partial(int64_t batch, int64_t channels, int64_t pixels) {
  return batch * channels * ((pixels + kGateChunkInner - 1) / kGateChunkInner);
}
// Floats of workspace.
inline int64_t gate_cuda_workspace(const GateShape& s, bool backward) {
  const bool on_chip = gate_on_chip(s);
  if (!backward) {
    return on_chip ? 0 : gate_partial(s.batch, s.channels, s.pixels) + gate_partial(s.batch, s.guide_channels, s.guide_pixels);
  }
  const int64_t vectors = s.batch * (s.channels + 2 * s.groups * s.hidden);
  return on_chip ? vectors : vectors + s.batch * (s.channels + s.guide_channels) + gate_partial(s.batch, s.channels, s.pixels);
}

}  // namespace bdgf
