#define BDGF_ISA device
#include "cuda/selective_scan_fwd.cuh"

#include "cuda/kernels.h"
#include "cuda/selective_scan_launch.h"

namespace bdgf {
namespace device {

template <bool kOutputs>
static void launch_scan(const Launcher& on, const ScanCall& call) {
  const ScanGrid& g = call.g;
  const unsigned blocks = static_cast<unsigned>(blocks_of_launch(g) * g.tiles * g.partials), threads = kTileChannels * g.split;
  const size_t bytes = 4 * forward_shared_floats(g.split);
  if (call.narrow) {
    BDGF_LAUNCH((selective_scan_kernel<Narrow, kOutputs>), blocks, threads, bytes, on.stream, call);
  } else {
    BDGF_LAUNCH((selective_scan_kernel<float, kOutputs>), blocks, threads, bytes, on.stream, call);
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
  const bool cut = g.segments_per_row > 1, partials = g.partials > 1, local = a.directions == 1;
  Arena arena(a.workspace);
  float* ends = cut ? arena.take(all_segments * a.directions * a.dim * a.states) : nullptr;
  float* delta_sums = cut ? arena.take(all_segments * a.directions * a.dim) : nullptr;
  const int64_t steps = local ? g.segment_steps : ceil_div(a.length, g.segments_per_row);  // of a segment, in its partial results
  const int64_t segment_floats = partials ? g.partials * a.dim * steps : 0;
  const int64_t per_launch = segments_per_launch(a, g, workspace_limit(a, false) - arena.used, segment_floats);
  const int64_t partial = per_launch / (local ? 1 : g.segments_per_row) * a.dim * (local ? g.segment_steps : a.length);
  float* summed = partials ? arena.take(partial * g.partials) : nullptr;
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
  if (partials) call.a.z.data = nullptr;  // the gate needs the sum of the partial results
  for (int64_t first = 0; first < all_segments; first += per_launch) {
    const int64_t segments = all_segments - first < per_launch ? all_segments - first : per_launch;
    call.g = launch_grid(packed, first, segments);
    if (partials) call.out = partial_target(a, g, a.out, summed, partial, local, first);
    launch_scan<true>(on, call);
    if (!partials) continue;
    PartialSum m;
    m.from = summed;
    m.partials = g.partials;
    m.partial = partial;
    m.segment = call.out.t.batch;
    m.row = call.out.t.channel;
    m.step = call.out.t.step;
    m.segments = local ? segments : segments / g.segments_per_row;
    m.rows = a.dim;
    m.steps = local ? g.segment_steps : a.length;
    m.first = call.out.first;
    m.to = a.out;
    m.local = local;
    m.gate = a.z.data ? PartialSum::kGate : PartialSum::kNoGate;
    ScanCall sum = call;
    sum.a.z = a.z;
    launch_partial_sums(on, sum, m);
  }
}

}  // namespace cuda
}  // namespace bdgf
