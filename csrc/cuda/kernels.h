// The CUDA entry points the bindings call; empty of CUDA headers. In a build without CUDA nothing calls them: the
// bindings' cuda_launch() throws first.
#pragma once
#include "bdgf/cuda_launch.h"
#include "bdgf/philox_normal.h"

// One line per kernel: X(name, argument struct).
#define BDGF_CUDA_KERNELS(X) \
  X(philox_normal, PhiloxNormalArgs)

namespace bdgf {
namespace cuda {

#ifdef BDGF_WITH_CUDA
#define BDGF_ENTRY(name, Args) void name(const Args&, const CudaLaunch&);
#else
#define BDGF_ENTRY(name, Args) \
  inline void name(const Args&, const CudaLaunch&) {}
#endif
BDGF_CUDA_KERNELS(BDGF_ENTRY)
#undef BDGF_ENTRY

}  // namespace cuda
}  // namespace bdgf
