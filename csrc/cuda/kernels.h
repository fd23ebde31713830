// The CUDA entry points the bindings call; empty of CUDA headers. In a build without CUDA nothing calls them: the
// bindings' cuda_launch() throws first.
// How a kernel is added: docs/adding_an_operation.md.
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
