// The CUDA entry points the bindings call; empty of CUDA headers. In a build without CUDA nothing calls them: the
// bindings' cuda_launch() throws first.
//
// How to add a kernel: its line below; <op>.cuh with the kernel in the words of dialect.h and <op>.cu with the launch
// function; the .cu in CMakeLists.txt; the branch for CUDA tensors in the bindings; register(op, "cuda", ...) in
// bdgf_fast/ops/<op>.py. From then on tests/emulated runs the whole of tests/ops/test_<op>.py on it, on the CPU, in several
// orders of its threads, under AddressSanitizer; what only makes sense there goes to tests/emulated/cases_<op>.py. Its
// registers are held against tests/compiled/cuda_budget.json, which names every kernel.
#pragma once
#include "bdgf/cuda_launch.h"
#include "bdgf/denoising_loss.h"
#include "bdgf/diffusion_step.h"
#include "bdgf/group_channel_gate.h"
#include "bdgf/philox_normal.h"
#include "bdgf/q_sample.h"
#include "bdgf/selective_scan.h"

// One line per kernel: X(name, argument struct).
#define BDGF_CUDA_KERNELS(X) \
  X(philox_normal, PhiloxNormalArgs) \
  X(q_sample, QSampleArgs) \
  X(denoising_loss, DenoisingLossArgs) \
  X(denoising_loss_backward, DenoisingLossArgs) \
  X(diffusion_step, DiffusionStepArgs) \
  X(diffusion_step_backward, DiffusionStepArgs) \
  X(group_channel_gate_fwd, GroupChannelGateArgs) \
  X(group_channel_gate_bwd, GroupChannelGateBwdArgs) \
  X(selective_scan_fwd, SelectiveScanArgs) \
  X(selective_scan_bwd, SelectiveScanArgs)

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
