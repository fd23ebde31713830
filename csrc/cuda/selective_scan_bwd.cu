#define BDGF_ISA device
#include "cuda/selective_scan_bwd.cuh"

#include "cuda/kernels.h"

namespace bdgf {
namespace device {

template <class T, bool kConstant>
static void launch_backward(const Launcher& on, const ScanCall& call) {
  const ScanGrid& g = call.g;
  const unsigned blocks = static_cast<unsigned>(unit_blocks(g) * g.tiles * g.planes), threads = kTileChannels * g.split;
  const size_t bytes = 4 * backward_shared_floats(g.split, kConstant);
  BDGF_LAUNCH((selective_scan_backward_kernel<T, kConstant>), blocks, threads, bytes, on.stream, call);
  on.check();
}
static void launch_backward(const Launcher& on, const ScanCall& call) {
  const bool constant = call.a.constant_b || call.a.constant_c;
  if (call.narrow) constant ? launch_backward<Narrow, true>(on, call) : launch_backward<Narrow, false>(on, call);
  else constant ? launch_backward<float, true>(on, call) : launch_backward<float, false>(on, call);
}

// A gradient that is first written as planes: its share of the workspace, and where it goes from there.
struct Planes {
  ScanTensor to;
  float* data = nullptr;
  int64_t plane = 0;  // floats
  bool used = false;
};

}  // namespace device

namespace cuda {
using namespace device;

void selective_scan_bwd(const SelectiveScanArgs& a, const CudaLaunch& launch) {
  const ScanGrid g = scan_grid(a);
  const int64_t all_units = a.batch * g.segments, states = a.directions * a.dim * a.states;
  const int64_t kept = (g.segment_steps - 1) / kChunkSteps;  // states before chunks, of a unit
  const bool local = a.directions == 1;
  Planes to_u{a.grad_u}, to_delta{a.grad_delta}, to_z{a.grad_z}, to_b{a.grad_B}, to_c{a.grad_C};
  to_u.used = a.grad_u.data && g.planes > 1;
  to_delta.used = a.grad_delta.data && (a.shared_delta ? g.planes : g.slices) > 1;
  to_z.used = a.grad_z.data && g.planes > 1;
  to_b.used = a.grad_B.data && !a.constant_b && g.tiles > a.groups_b;
  to_c.used = a.grad_C.data && !a.constant_c && g.tiles > a.groups_c;
  const bool delta_local = local || !a.shared_delta;

  ScanCall call;
  call.a = a;
  call.narrow = a.u.dtype != DType::f32;
  call.g = launch_grid(a, g, 0, all_units, backward_bundle(a));
  const int64_t sum_floats = sum_layout(call).all;
  const int64_t per_block = call.g.bundle * call.g.bundles_per_block;
  Arena arena(a.workspace);
  const bool cut = g.segments > 1;
  float* ends = arena.take(cut ? all_units * states : 0);
  float* returned = arena.take(cut ? all_units * states : 0);
  float* rates = arena.take(cut ? all_units * a.directions * a.dim : 0);
  const int64_t pixels = a.dim * ceil_div(a.length, g.segments), cells = a.dim * g.segment_steps;
  const int64_t terms = g.tiles * a.directions * a.states * g.segment_steps;
  const int64_t unit_floats = kept * states + to_u.used * g.planes * (local ? cells : pixels) + to_z.used * g.planes * cells +
                              to_delta.used * g.planes * (delta_local ? cells : pixels) + (to_b.used + to_c.used) * terms +
                              ceil_div(sum_floats, per_block);
  const int64_t together = units_together(a, g, workspace_limit(a, true) - arena.used, unit_floats);
  const auto plane_floats = [&](bool by_unit) { return by_unit ? together * cells : together / g.segments * a.dim * a.length; };
  const auto reserve = [&](Planes& p, int64_t plane, int64_t planes) {
    p.plane = plane;
    p.data = arena.take(p.used ? plane * planes : 0);
  };
  float* starts = arena.take(together * kept * states);
  reserve(to_u, plane_floats(local), g.planes);
  reserve(to_delta, plane_floats(delta_local), g.planes);
  reserve(to_z, plane_floats(true), g.planes);
  reserve(to_b, together * a.directions * a.states * g.segment_steps, g.tiles);
  reserve(to_c, together * a.directions * a.states * g.segment_steps, g.tiles);
  float* sums = arena.take(unit_blocks(launch_grid(a, g, 0, together, backward_bundle(a))) * sum_floats);
  if (a.workspace_floats) {
    *a.workspace_floats = arena.used;
    return;
  }
  if (a.batch == 0) return;
  const Launcher on(a, launch);
  const DeviceGuard guard(launch.device, on.op);

  if (cut) {
    ScanCall pass = call;
    pass.g = launch_grid(a, g, 0, all_units, 1);
    pass.a.last.data = nullptr;
    pass.ends = ends;
    pass.rates = rates;
    launch_states(on, pass);
    launch_carry(on, pass, ends, rates, false);
    pass.adjoint = true;
    pass.ends = returned;
    pass.rates = nullptr;
    pass.a.u = a.grad_out;
    pass.a.B = a.C;
    pass.a.constant_b = a.constant_c;
    pass.a.groups_b = a.groups_c;
    launch_states(on, pass);
    launch_carry(on, pass, returned, rates, true);
    call.carried = ends;
    call.returned = returned;
  }
  for (int64_t first = 0; first < all_units; first += together) {
    const int64_t units = all_units - first < together ? all_units - first : together;
    if (kept > 0) {
      ScanCall pass = call;
      pass.g = launch_grid(a, g, first, units, 1);
      pass.starts = starts;
      launch_states(on, pass);
    }
    call.g = launch_grid(a, g, first, units, backward_bundle(a));
    call.starts = starts;
    call.sums = sums;
    const auto target = [&](const Planes& p, bool by_unit) {
      ScanTarget o;
      o.t = p.to;
      return p.used ? plane_target(a, g, p.to, p.data, p.plane, by_unit, first) : o;
    };
    // dB, dC of each tile: [tile][unit][direction][state and step in the order of the tensor].
    const auto matrix_target = [&](const Planes& p, bool constant) {
      ScanTarget o;
      if (constant) return o;
      o.t = p.to;
      if (!p.used) return o;
      const bool along = (p.to.step < 0 ? -p.to.step : p.to.step) <= (p.to.state < 0 ? -p.to.state : p.to.state);
      o.t.data = p.data;
      o.t.dtype = DType::f32;
      o.t.group = p.plane;
      o.t.direction = a.states * g.segment_steps;
      o.t.batch = a.directions * o.t.direction;
      o.t.state = along ? g.segment_steps : 1;
      o.t.step = along ? 1 : a.states;
      o.first = first;
      o.local = o.planes = true;
      return o;
    };
    call.grad_u = target(to_u, local);
    call.grad_delta = target(to_delta, delta_local);
    call.grad_z = target(to_z, true);
    call.grad_B = matrix_target(to_b, a.constant_b);
    call.grad_C = matrix_target(to_c, a.constant_c);
    launch_backward(on, call);
    launch_rows(on, call, unit_blocks(call.g), first > 0);

    const auto add_up = [&](const Planes& p, const ScanTarget& from, int64_t directions, int64_t planes) {
      PlaneSum m;
      m.from = p.data;
      m.planes = planes;
      m.plane = p.plane;
      m.direction = planes * p.plane;
      m.unit = from.t.batch;
      m.row = from.t.channel;
      m.step = from.t.step;
      m.units = from.local ? units : units / g.segments;
      m.directions = directions;
      m.rows = a.dim;
      m.steps = from.local ? g.segment_steps : a.length;
      m.first = from.first;
      m.to = p.to;
      m.local = from.local;
      return m;
    };
    if (to_u.used) launch_planes(on, call, add_up(to_u, call.grad_u, 1, g.planes));
    if (to_delta.used) {
      PlaneSum m = add_up(to_delta, call.grad_delta, a.shared_delta ? 1 : a.directions, a.shared_delta ? g.planes : g.slices);
      m.of_parameters = !a.shared_delta;
      launch_planes(on, call, m);
    }
    if (to_z.used) {
      PlaneSum m = add_up(to_z, call.grad_z, 1, g.planes);
      m.gate = PlaneSum::kGateGradient;
      launch_planes(on, call, m);
    }
    const auto add_up_matrix = [&](const Planes& p, const ScanTarget& from, int64_t groups) {
      if (!p.used) return;
      PlaneSum m = add_up(p, from, a.directions, g.tiles / groups);
      m.direction = from.t.direction;
      m.group = m.planes * p.plane;
      m.groups = groups;
      m.row = from.t.state;
      m.rows = a.states;
      m.of_states = m.of_parameters = true;
      launch_planes(on, call, m);
    };
    add_up_matrix(to_b, call.grad_B, a.groups_b);
    add_up_matrix(to_c, call.grad_C, a.groups_c);
  }
}

}  // namespace cuda
}  // namespace bdgf
