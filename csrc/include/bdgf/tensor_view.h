// A tensor as the kernels see it: a plain struct that owns nothing.
#pragma once
#include <stdint.h>

namespace bdgf {

enum class DType : int32_t { f32, f16, bf16, f64, i64, i32, u8, boolean, other };
enum class Device : int32_t { cpu, cuda, other };

constexpr int kMaxDims = 8;

struct TensorView {
  void* data = nullptr;  // of element 0; null for an absent tensor and for an empty one
  bool present = false;  // false: the caller passed None
  DType dtype = DType::other;
  Device device = Device::cpu;
  int32_t device_index = 0;
  int32_t ndim = 0;
  int64_t numel = 0;
  int64_t shape[kMaxDims] = {};
  int64_t stride[kMaxDims] = {};  // in elements; 0 and negative are allowed
};

}  // namespace bdgf
