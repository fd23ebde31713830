// decision_forest: out[i] = mean over the trees of share[the leaf that row i of x reaches].
#pragma once
#include "bdgf/tensor_view.h"

namespace bdgf {

struct DecisionForestArgs {
  TensorView x;             // [n, S] f32, any strides
  const int32_t* feature;   // [nodes], 0 ... S - 1
  const float* threshold;   // [nodes]
  const int32_t* child;     // [nodes, 2]: both the node itself (a leaf), or both after it
  const float* share;       // [nodes, K]
  const int32_t* root;      // [trees], at least one
  float* out;               // [n, K]
  int64_t classes, trees;
};

}  // namespace bdgf
