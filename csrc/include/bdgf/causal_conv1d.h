// causal_conv1d: out_l = act(bias + sum_w weight_w x_{l - width + 1 + w}) per channel, x being 0 before the first step, and
// its gradients; act is silu or nothing.
#pragma once
#include "bdgf/tensor_view.h"

namespace bdgf {

struct CausalConv1dArgs {
  TensorView x;       // [batch, dim, L] f32 | f16 | bf16 | f64, any strides
  TensorView weight;  // [dim, width] contiguous f32 (f64 for f64), width 2 ... 4
  TensorView bias;    // [dim] likewise; or absent
  TensorView out;     // like x
  bool silu;
};

struct CausalConv1dBwdArgs {
  CausalConv1dArgs forward;                    // out absent
  TensorView grad_out;                         // like x
  TensorView grad_x, grad_weight, grad_bias;   // like their inputs, each may be absent
};

}  // namespace bdgf
