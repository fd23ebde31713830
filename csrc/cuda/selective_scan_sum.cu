#define BDGF_ISA device
#include "cuda/selective_scan_sum.cuh"

namespace bdgf {
namespace device {

void launch_partial_sums(const Launcher& on, const ScanCall& call, const PartialSum& m) {
  const int64_t across = m.of_states ? m.to.state : m.to.channel;
  const bool along = (m.to.step < 0 ? -m.to.step : m.to.step) <= (across < 0 ? -across : across);
  const int64_t tasks = m.segments * m.directions * m.groups * (along ? m.rows : m.steps);
  BDGF_LAUNCH(selective_scan_partial_sums_kernel, cuda::grid_for(tasks, 8), 256, 0, on.stream, call, m);
  on.check();
}

void launch_block_sums(const Launcher& on, const ScanCall& call, int64_t blocks, bool add) {
  const int64_t most = call.a.directions * call.a.dim * call.a.states;
  BDGF_LAUNCH(selective_scan_block_sums_kernel, dim3(cuda::grid_for(most, 32), 5), 256, 0, on.stream, call, blocks, add);
  on.check();
}

void launch_borders(const Launcher& on, const ScanCall& call, float* states, const float* delta_sums, bool backwards) {
  const int64_t threads = call.a.batch * call.a.directions * call.a.dim * call.a.states;
  BDGF_LAUNCH(selective_scan_borders_kernel, cuda::grid_for(threads, 128), 128, 0, on.stream, call, states, delta_sums,
              call.a.batch, backwards);
  on.check();
}

}  // namespace device
}  // namespace bdgf
