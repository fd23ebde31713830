// Argument checks for the bindings: one sentence that names the op, the argument, what it got and what it takes.
// invalid_argument becomes ValueError in Python, TypeError becomes TypeError.
#pragma once
#include <initializer_list>
#include <stdexcept>
#include <string>

#include "bdgf/tensor_view.h"

namespace bdgf {

struct TypeError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline const char* dtype_name(DType t) {
  static const char* const names[] = {"float32", "float16", "bfloat16", "float64", "int64",
                                      "int32",   "uint8",   "bool",     "unsupported"};
  return names[static_cast<int>(t)];
}

inline std::string shape_text(const int64_t* shape, int n) {
  std::string text = "(";
  for (int i = 0; i < n; ++i) {
    text += (i ? ", " : "") + (shape[i] < 0 ? std::string("*") : std::to_string(shape[i]));
  }
  return text + (n == 1 ? ",)" : ")");
}
inline std::string shape_text(const TensorView& t) { return shape_text(t.shape, t.ndim); }

[[noreturn]] inline void bad_value(const char* op, const char* name, const std::string& what) {
  throw std::invalid_argument(std::string(op) + ": " + name + " " + what);
}
[[noreturn]] inline void bad_type(const char* op, const char* name, const std::string& what) {
  throw TypeError(std::string(op) + ": " + name + " " + what);
}

inline void check_dtype(const char* op, const char* name, const TensorView& t, std::initializer_list<DType> accepted) {
  std::string list;
  for (DType d : accepted) {
    if (t.dtype == d) return;
    list += (list.empty() ? "" : ", ") + std::string(dtype_name(d));
  }
  bad_type(op, name, std::string("has dtype ") + dtype_name(t.dtype) + "; it takes " + list);
}

// -1 stands for any size.
inline void check_shape(const char* op, const char* name, const TensorView& t, std::initializer_list<int64_t> shape) {
  bool same = t.ndim == static_cast<int>(shape.size());
  for (int i = 0; same && i < t.ndim; ++i) same = shape.begin()[i] < 0 || shape.begin()[i] == t.shape[i];
  if (!same) {
    bad_value(op, name,
              "has shape " + shape_text(t) + "; expected " + shape_text(shape.begin(), static_cast<int>(shape.size())));
  }
}

inline void check_ndim(const char* op, const char* name, const TensorView& t, int least, int most) {
  if (t.ndim >= least && t.ndim <= most) return;
  bad_value(op, name,
            "has shape " + shape_text(t) + "; it takes " + std::to_string(least) +
                (least == most ? "" : " to " + std::to_string(most)) + " dimensions");
}

inline bool is_contiguous(const TensorView& t) {
  if (t.numel == 0) return true;
  int64_t expected = 1;
  for (int i = t.ndim - 1; i >= 0; --i) {
    if (t.shape[i] != 1 && t.stride[i] != expected) return false;
    expected *= t.shape[i];
  }
  return true;
}
inline void check_contiguous(const char* op, const char* name, const TensorView& t) {
  if (!is_contiguous(t)) {
    bad_value(op, name, "has strides " + shape_text(t.stride, t.ndim) + "; it must be contiguous: call .contiguous()");
  }
}

inline void check_same_device(const char* op, const char* name, const TensorView& t, const char* other_name,
                              const TensorView& other) {
  if (t.device != other.device || t.device_index != other.device_index) {
    bad_value(op, name, std::string("and ") + other_name + " are on different devices");
  }
}

}  // namespace bdgf
