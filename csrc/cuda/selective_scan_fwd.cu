#define BDGF_ISA device
#include "cuda/selective_scan_fwd.cuh"

#include "cuda/kernels.h"
#include "cuda/selective_scan_launch.h"

namespace bdgf {
namespace device {

template <bool kOutputs>
static void launch_scan(const Launcher& on, const ScanCall& call) {
  const ScanGrid& g = call.g;
  const unsigned blocks = blocks_in_grid(g), threads = kTileChannels * g.split;
  const size_t bytes = 4 * forward_shared_floats(g.split);
  if (call.narrow) {
    BDGF_LAUNCH((selective_scan_fwd_kernel<Narrow, kOutputs>), blocks, threads, bytes, on.stream, call);
  } else {
    BDGF_LAUNCH((selective_scan_fwd_kernel<float, kOutputs>), blocks, threads, bytes, on.stream, call);
  }
  on.check();
}
void launch_states(const Launcher& on, const ScanCall& call) { launch_scan<false>(on, call); }

}  // namespace device

namespace cuda {
using namespace device;

void selective_scan_fwd(const SelectiveScanArgs& a, const CudaLaunch& launch) {
  const ScanGrid g = scan_grid(a);
  const int64_t all_segments = a.batch * g.segments_per_row;
  const bool cut = g.segments_per_row > 1, partial = g.direction_slices > 1, by_segment = a.directions == 1;
  Arena arena(a.workspace);
  float* ends = cut ? arena.take(all_segments * a.directions * a.dim * a.states) : nullptr;
  float* delta_sums = cut ? arena.take(all_segments * a.directions * a.dim) : nullptr;
  const int64_t segment_steps = by_segment ? g.segment_steps : ceil_div(a.length, g.segments_per_row);
  const int64_t segment_floats = partial ? g.direction_slices * a.dim * segment_steps : 0;
  const int64_t per_launch = segments_per_launch(a, g, workspace_limit(a, false) - arena.used, segment_floats);
  const int64_t partial_steps = by_segment ? per_launch * g.segment_steps : per_launch / g.segments_per_row * a.length;
  const int64_t partial_floats = partial_steps * a.dim;
  float* summed = partial ? arena.take(partial_floats * g.direction_slices) : nullptr;
  if (a.workspace_floats) {
    *a.workspace_floats = arena.used;
    return;
  }
  if (a.batch == 0) return;
  const Launcher on(a, launch);
  const DeviceGuard guard(launch.device, on.op);

  ScanCall call;
  call.a = a;
  call.narrow = a.u.dtype != DType::f32;
  if (cut) {
    call.g = packed_grid(g, all_segments, 1);
    call.ends = ends;
    call.delta_sums = delta_sums;
    launch_states(on, call);
    launch_borders(on, call, ends, delta_sums, false);
    call.ends = call.delta_sums = nullptr;
    call.states_after = ends;
    call.a.last.data = nullptr;
  }
  const ScanGrid packed = packed_grid(g, per_launch, forward_rows_per_pack(a));
  call.out.t = a.out;
  if (partial) call.a.z.data = nullptr;  // the gate needs the sum of the partial results
  for (int64_t first = 0; first < all_segments; first += per_launch) {
    const int64_t segments = all_segments - first < per_launch ? all_segments - first : per_launch;
    call.g = launch_grid(packed, first, segments);
    if (partial) call.out = partial_target(a, g, a.out, summed, partial_floats, by_segment, first);
    launch_scan<true>(on, call);
    if (!partial) continue;
    PartialSum m;
    m.from = summed;
    m.partials = g.direction_slices;
    m.partial = partial_floats;
    m.segment = call.out.t.batch;
    m.row = call.out.t.channel;
    m.step = call.out.t.step;
    m.segments = by_segment ? segments : segments / g.segments_per_row;
    m.rows = a.dim;
    m.steps = by_segment ? g.segment_steps : a.length;
    m.first = call.out.first;
    m.to = a.out;
    m.by_segment = by_segment;
    m.gate = a.z.data ? PartialSum::kGate : PartialSum::kNoGate;
    ScanCall sum = call;
    sum.a.z = a.z;
    launch_partial_sums(on, sum, m);
  }
}

}  // namespace cuda
}  // namespace bdgf
