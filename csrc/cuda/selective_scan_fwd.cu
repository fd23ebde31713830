#define BDGF_ISA device
#include "cuda/selective_scan_fwd.cuh"

#include "cuda/kernels.h"
#include "cuda/selective_scan_launch.h"

namespace bdgf {
namespace device {

template <bool kOutputs>
static void launch_scan(const Launcher& on, const ScanCall& call) {
  const ScanGrid& g = call.g;
  const unsigned blocks = static_cast<unsigned>(unit_blocks(g) * g.tiles * g.planes), threads = kTileChannels * g.split;
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
  const int64_t all_units = a.batch * g.segments;
  const bool planes = g.planes > 1, local = a.directions == 1;
  Arena arena(a.workspace);
  float* ends = arena.take(g.segments > 1 ? all_units * a.directions * a.dim * a.states : 0);
  float* rates = arena.take(g.segments > 1 ? all_units * a.directions * a.dim : 0);
  const int64_t unit_floats = planes ? g.planes * a.dim * (local ? g.segment_steps : ceil_div(a.length, g.segments)) : 0;
  const int64_t together = units_together(a, g, workspace_limit(a, false) - arena.used, unit_floats);
  const int64_t plane = together / (local ? 1 : g.segments) * a.dim * (local ? g.segment_steps : a.length);
  float* summed = arena.take(planes ? plane * g.planes : 0);
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
  if (g.segments > 1) {
    call.g = launch_grid(a, g, 0, all_units, 1);
    call.ends = ends;
    call.rates = rates;
    launch_states(on, call);
    launch_carry(on, call, ends, rates, false);
    call.ends = call.rates = nullptr;
    call.carried = ends;
    call.a.last.data = nullptr;
  }
  call.out.t = a.out;
  if (planes) call.a.z.data = nullptr;  // the gate needs the sum of the planes
  for (int64_t first = 0; first < all_units; first += together) {
    const int64_t units = all_units - first < together ? all_units - first : together;
    call.g = launch_grid(a, g, first, units, forward_bundle(a));
    if (planes) call.out = plane_target(a, g, a.out, summed, plane, local, first);
    launch_scan<true>(on, call);
    if (!planes) continue;
    PlaneSum m;
    m.from = summed;
    m.planes = g.planes;
    m.plane = plane;
    m.unit = call.out.t.batch;
    m.row = call.out.t.channel;
    m.step = call.out.t.step;
    m.units = local ? units : units / g.segments;
    m.rows = a.dim;
    m.steps = local ? g.segment_steps : a.length;
    m.first = call.out.first;
    m.to = a.out;
    m.local = local;
    m.gate = a.z.data ? PlaneSum::kGate : PlaneSum::kNoGate;
    ScanCall sum = call;
    sum.a.z = a.z;
    launch_planes(on, sum, m);
  }
}

}  // namespace cuda
}  // namespace bdgf
