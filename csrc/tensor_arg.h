// From torch tensors to TensorViews, without torch's headers: by the DLPack C exchange API (torch >= 2.10), else by
// the tensor's own Python methods. The view borrows: keep the tensor alive while it is used.
#pragma once
#include <pybind11/pybind11.h>

#include "bdgf/check.h"
#include "bdgf/cuda_launch.h"
#include "bdgf/tensor_view.h"

namespace bdgf {

namespace py = pybind11;

// A tensor that must be there. Refuses, with a sentence: anything that is no tensor, negated lazy views, tensors
// without memory (fake, meta), more than kMaxDims dimensions.
TensorView tensor_arg(const char* op, const char* name, py::handle value);
// The same, or None: then view.present is false.
TensorView optional_arg(const char* op, const char* name, py::handle value);
// A tensor, or None if `optional`, of the shape, the dtype and the device of `like`.
TensorView like_arg(const char* op, const char* name, py::handle value, const TensorView& like, bool optional = false);

// An int, taken mod 2^64, or a 0-d int64 tensor on the device of `like`: its address in `at`.
uint64_t counter_arg(const char* op, const char* name, py::handle value, const TensorView& like, const int64_t*& at);

// The device of `like` and torch's current stream there, or the stream handle that the caller gave as an int.
CudaLaunch cuda_launch(const char* op, const TensorView& like, py::handle cuda_stream);

// One per group of ops; bindings.cpp calls them.
void bind_noise(py::module_& m);
void bind_scan(py::module_& m);
void bind_attention(py::module_& m);
void bind_forest(py::module_& m);
void bind_boxes(py::module_& m);

}  // namespace bdgf
