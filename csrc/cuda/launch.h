// The host side of every CUDA kernel, in this order: (validated by the bindings) device guard, stream, launch, error.
#pragma once
#include <cuda_runtime.h>
#include <stdint.h>

#include <stdexcept>
#include <string>

#include "bdgf/check.h"
#include "bdgf/cuda_launch.h"
#include "bdgf/sample_view.h"
#include "cuda/dialect.h"
#include "cuda/storage.cuh"

namespace bdgf {
namespace cuda {

// sizes: what the user would recognise the call by, usually shape_text(...).
inline void check_cuda(cudaError_t error, const char* op, const std::string& sizes) {
  if (error == cudaSuccess) return;
  throw std::runtime_error(std::string(op) + " on " + sizes + ": " + cudaGetErrorName(error) + ", " +
                           cudaGetErrorString(error));
}

class DeviceGuard {
 public:
  DeviceGuard(int device, const char* op) {
    check_cuda(cudaGetDevice(&previous_), op, "device " + std::to_string(device));
    if (previous_ != device) check_cuda(cudaSetDevice(device), op, "device " + std::to_string(device));
    changed_ = previous_ != device;
  }
  ~DeviceGuard() {
    if (changed_) cudaSetDevice(previous_);
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int previous_ = 0;
  bool changed_ = false;
};

inline cudaStream_t stream_of(const CudaLaunch& launch) { return static_cast<cudaStream_t>(launch.stream); }

// Lets a kernel be launched with more dynamic shared memory than the 48 KiB that every kernel may take.
constexpr size_t kSharedOfAnyKernel = 48 * 1024;
template <class Kernel>
void allow_shared(Kernel* kernel, size_t bytes, const char* op) {
  if (bytes <= kSharedOfAnyKernel) return;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)), op,
             std::to_string(bytes) + " bytes of shared memory");
}

// Blocks of `threads` for `work` items; kernels loop over the grid, so the limit costs nothing but a round more.
inline unsigned grid_for(int64_t work, int threads) {
  const int64_t blocks = (work + threads - 1) / threads;
  return static_cast<unsigned>(blocks < 1 ? 1 : blocks > 0x7fffffff ? 0x7fffffff : blocks);
}

// body(T()) for the storage type.
template <class Body>
void for_storage(DType dtype, const Body& body) {
  if (dtype == DType::f32) return body(float());
  if (dtype == DType::f16) return body(__half());
  body(__nv_bfloat16());
}
inline void check_same_storage(const char* op, const SampleView& main, const SampleView& other, const char* name) {
  if (other.present && other.dtype != main.dtype) {
    bad_type(op, name, std::string("is ") + dtype_name(other.dtype) + "; it takes " + dtype_name(main.dtype));
  }
}
inline std::string sample_text(int64_t batch, int64_t elements) {
  return std::to_string(batch) + " samples of " + std::to_string(elements) + " elements";
}

}  // namespace cuda
}  // namespace bdgf
