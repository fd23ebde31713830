// The CPU kernels of one instruction set level, as a table of function pointers.
#pragma once
#include "bdgf/box_statistics.h"
#include "bdgf/causal_conv1d.h"
#include "bdgf/cross_attention.h"
#include "bdgf/group_channel_attention.h"
#include "bdgf/group_channel_gate.h"
#include "bdgf/decision_forest.h"
#include "bdgf/denoising_loss.h"
#include "bdgf/diffusion_step.h"
#include "bdgf/philox_normal.h"
#include "bdgf/q_sample.h"
#include "bdgf/selective_scan.h"

// X(name, argument struct): one line per kernel, each ending in a backslash, then an empty line. Bodies: csrc/cpu/<op>.inc.
// How an operation is added: docs/adding_an_operation.md.
#define BDGF_CPU_KERNELS(X) \
  X(box_statistics_fwd, BoxStatisticsArgs) \
  X(box_statistics_bwd, BoxStatisticsArgs) \
  X(philox_normal, PhiloxNormalArgs) \
  X(decision_forest, DecisionForestArgs) \
  X(selective_scan_fwd, SelectiveScanArgs) \
  X(selective_scan_bwd, SelectiveScanArgs) \
  X(cross_attention_fwd, CrossAttentionArgs) \
  X(cross_attention_bwd, CrossAttentionBwdArgs) \
  X(group_channel_gate_fwd, GroupChannelGateArgs) \
  X(group_channel_gate_bwd, GroupChannelGateBwdArgs) \
  X(q_sample, QSampleArgs) \
  X(denoising_loss, DenoisingLossArgs) \
  X(denoising_loss_backward, DenoisingLossArgs) \
  X(diffusion_step, DiffusionStepArgs) \
  X(diffusion_step_backward, DiffusionStepArgs) \
  X(group_channel_attention_fwd, GroupChannelAttentionArgs) \
  X(group_channel_attention_bwd, GroupChannelAttentionBwdArgs) \
  X(causal_conv1d_fwd, CausalConv1dArgs) \
  X(causal_conv1d_bwd, CausalConv1dBwdArgs)

namespace bdgf {

struct KernelTable {
  const char* isa;
  int lanes;
#define BDGF_ENTRY(name, Args) void (*name)(const Args&, int num_threads);
  BDGF_CPU_KERNELS(BDGF_ENTRY)
#undef BDGF_ENTRY
  // For tests and as the benchmarks' limit: out[i] = function(in[i]) over n elements, `repeats` times over.
  bool (*elementwise)(const char* function, const float* in, float* out, int64_t n, int64_t repeats);
  // For tests: 16-bit storage and back; dtype f16 or bf16.
  void (*round_trip)(bool bfloat, const float* in, uint16_t* bits, float* out, int64_t n);
};

// The level in use: the best this CPU has, or BDGF_CPU_ISA, or what select_kernels last chose.
const KernelTable& kernels();
// Null: done. Otherwise a sentence that says why not; the level in use stays.
const char* select_kernels(const char* isa);
// Levels that this build has and this CPU can run, best last; returns how many (at most 4).
int available_kernels(const KernelTable* out[4]);

}  // namespace bdgf
