// The selective scan's arguments, for the sequence and for the cross-scan of images: `directions` scans of one input.
#pragma once
#include <stdint.h>

#include "bdgf/tensor_view.h"

namespace bdgf {

// A tensor by the role of its dimensions. Strides in elements; 0 for a dimension it does not have.
struct ScanTensor {
  void* data = nullptr;  // null: absent (an input) or not wanted (an output)
  DType dtype = DType::f32;
  int64_t batch = 0, direction = 0, group = 0, channel = 0, state = 0, step = 0;
};

constexpr int64_t kCheckpointSteps = 256;

// x_l = exp(delta_l A) x_{l-1} + delta_l B_l u_l; y_l = C_l . x_l + D u_l; out = y silu(z), summed over directions.
// Storage f32, bf16 or f16 with f32 arithmetic, or all f64. A, D, delta_bias, the states and a constant B or C have
// the dtype of the arithmetic.
struct SelectiveScanArgs {
  int64_t batch = 0, dim = 0, length = 0, states = 0, directions = 1;
  int64_t groups_b = 1, groups_c = 1;  // of a variable B and C
  bool constant_b = false, constant_c = false, softplus = false;
  bool reverse = false;           // of a sequence (directions == 1, width == 0)
  int64_t height = 0, width = 0;  // of an image, length = height * width; 0: a sequence
  // Image only: delta, B and C (and their gradients) stand in the order in which their direction visits the pixels,
  // instead of row by row.
  bool visiting_order = false;
  bool shared_delta = false;      // one delta for all directions, row by row in any case

  ScanTensor u, out;                // [batch, channel, step]
  ScanTensor delta;                 // [batch, direction (one if shared), channel, step]
  ScanTensor A;                     // [direction, channel, state]
  ScanTensor B, C;                  // [batch, direction, group, state, step] or constant [channel, state]
  ScanTensor D, delta_bias;         // [direction, channel]
  ScanTensor z;                     // [batch, channel, step]
  ScanTensor initial, last;         // [batch, channel, state]
  // Only of a sequence, in f32, on the CPU: the states before steps 0, kCheckpointSteps, ... in the order of the scan,
  // [batch, step / kCheckpointSteps, channel, state]. If present, the forward writes them and the backward reads them.
  ScanTensor checkpoints;
  // Backward only. An absent gradient of an output counts as 0; one of an input is not computed.
  ScanTensor grad_out, grad_last;
  ScanTensor grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_z, grad_delta_bias, grad_initial;

  float* workspace = nullptr;            // 64-byte aligned
  int64_t* workspace_floats = nullptr;   // set: only say how many floats the workspace takes, touch nothing else
};

// The order of direction k: reversed, by columns. 4: rows, columns, rows reversed, columns reversed; 2: rows, reversed.
struct ScanDirection {
  bool reversed, columns;
};
#ifdef __CUDACC__
__host__ __device__
#endif
static inline ScanDirection scan_direction(const SelectiveScanArgs& a, int64_t k) {
  if (a.width == 0) return {a.reverse, false};
  return a.directions == 4 ? ScanDirection{k >= 2, k % 2 == 1} : ScanDirection{k == 1, false};
}

}  // namespace bdgf
