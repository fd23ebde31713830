#define BDGF_ISA device
#include "cuda/selective_scan_fwd.cuh"

#include "cuda/kernels.h"
#include "cuda/selective_scan_launch.h"

namespace bdgf {
namespace device {

template <class T, bool kOutputs, ScanLayout kLayout>
static void launch_scan_as(const Launcher& on, const ScanCall& call) {
  const ScanGrid& g = call.g;
  const unsigned blocks = blocks_in_grid(g), threads = kTileChannels * g.split;
  const size_t bytes = 4 * forward_shared_floats(g.split);
  BDGF_LAUNCH((selective_scan_fwd_kernel<T, kOutputs, kLayout>), blocks, threads, bytes, on.stream, call);
  on.check();
}
// The recurrence of the adjoint reads z too, and has no path for dense tensors.
static bool takes_dense(const ScanCall& call, bool outputs) {
  if (call.adjoint || !inputs_dense(call)) return false;
  const ScanTensor& out = call.out.t;
  return !outputs || (out.dtype == call.a.u.dtype && lies_dense(out, out.channel));
}
template <class T, bool kOutputs>
static void launch_scan(const Launcher& on, const ScanCall& call) {
  if (!takes_dense(call, kOutputs)) launch_scan_as<T, kOutputs, kTables>(on, call);
  else if (kOutputs && call.g.rows_per_pack > 1) launch_scan_as<T, true, kDensePack>(on, call);
  else launch_scan_as<T, kOutputs, kDenseRow>(on, call);
}
template <bool kOutputs>
static void launch_scan(const Launcher& on, const ScanCall& call) {
  if (call.narrow) launch_scan<Narrow, kOutputs>(on, call);
  else launch_scan<float, kOutputs>(on, call);
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
    PartialSum m = partial_sum(a, g, call.out, summed, g.direction_slices, partial_floats, segments, 1, a.out);
    m.gate = a.z.data ? PartialSum::kGate : PartialSum::kNoGate;
    ScanCall sum = call;
    sum.a.z = a.z;
    launch_partial_sums(on, sum, m);
  }
}

}  // namespace cuda
}  // namespace bdgf
