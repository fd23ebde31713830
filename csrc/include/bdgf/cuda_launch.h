// Where a CUDA kernel is launched; no CUDA header needed.
#pragma once

namespace bdgf {

struct CudaLaunch {
  int device;
  void* stream;  // cudaStream_t
};

}  // namespace bdgf
