// The noise address of an op's Python arguments, checked; shared by the bindings of every op that draws noise.
#pragma once
#include "bdgf/noise.h"
#include "tensor_arg.h"

namespace bdgf {

// like: the (batch, ...) tensor whose elements are counted, contiguous in the count. seed, stream: int or 0-d int64
// tensor. sample_ids: int64 (batch,) or None. origin: int64 (batch, 2) or None, then like is (batch, C, H, W) and extent
// the scene's size. purpose: bdgf/philox.h's table. The result borrows the tensors.
NoiseAddress noise_arg(const char* op, const TensorView& like, py::handle seed, py::handle stream, py::handle sample_ids,
                       py::handle origin, int64_t extent_h, int64_t extent_w, int purpose);

}  // namespace bdgf
