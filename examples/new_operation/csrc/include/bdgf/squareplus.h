// squareplus: out = (x + sqrt(x^2 + b)) / 2, grad_x = grad_out (1 + x / sqrt(x^2 + b)) / 2.
#pragma once
#include "bdgf/tensor_view.h"

namespace bdgf {

// All tensors are contiguous, of one shape and one type: f32 | f16 | bf16.
struct SquareplusArgs {
  TensorView x, out;            // forward
  TensorView grad_out, grad_x;  // backward
  float b;
};

}  // namespace bdgf
