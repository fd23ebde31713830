#define BDGF_ISA device
#include "cuda/selective_scan_bwd.cuh"

#include "cuda/kernels.h"

namespace bdgf {
namespace device {

template <class T, bool kConstant>
static void launch_backward(const Launcher& on, const ScanCall& call) {
  const ScanGrid& g = call.g;
  const unsigned blocks = static_cast<unsigned>(blocks_of_launch(g) * g.tiles * g.partials), threads = kTileChannels * g.split;
  const size_t bytes = 4 * backward_shared_floats(g.split, kConstant);
  BDGF_LAUNCH((selective_scan_backward_kernel<T, kConstant>), blocks, threads, bytes, on.stream, call);
  on.check();
}
static void launch_backward(const Launcher& on, const ScanCall& call) {
  const bool constant = call.a.constant_b || call.a.constant_c;
  if (call.narrow) constant ? launch_backward<Narrow, true>(on, call) : launch_backward<Narrow, false>(on, call);
  else constant ? launch_backward<float, true>(on, call) : launch_backward<float, false>(on, call);
}

// A gradient that is first written as partial results: its part of the workspace, and where it goes from there.
struct Partials {
  ScanTensor to;
  float* data = nullptr;
  int64_t partial = 0;  // floats
  bool used = false;
};

}  // namespace device

namespace cuda {
using namespace device;

void selective_scan_bwd(const SelectiveScanArgs& a, const CudaLaunch& launch) {
  const ScanGrid g = scan_grid(a);
  const int64_t all_segments = a.batch * g.segments_per_row, states = a.directions * a.dim * a.states;
  const int64_t kept = (g.segment_steps - 1) / kChunkSteps;  // states before chunks, of a segment
  const bool local = a.directions == 1;
  Partials to_u{a.grad_u}, to_delta{a.grad_delta}, to_z{a.grad_z}, to_b{a.grad_B}, to_c{a.grad_C};
  to_u.used = a.grad_u.data && g.partials > 1;
  to_delta.used = a.grad_delta.data && (a.shared_delta ? g.partials : g.slices) > 1;
  to_z.used = a.grad_z.data && g.partials > 1;
  to_b.used = a.grad_B.data && !a.constant_b && g.tiles > a.groups_b;
  to_c.used = a.grad_C.data && !a.constant_c && g.tiles > a.groups_c;
  const bool delta_local = local || !a.shared_delta;

  ScanCall call;
  call.a = a;
  call.narrow = a.u.dtype != DType::f32;
  call.g = launch_grid(a, g, 0, all_segments, backward_rows_per_pack(a));
  const int64_t sum_floats = sum_layout(call).all;
  const int64_t per_block = call.g.rows_per_pack * call.g.packs_per_block;
  Arena arena(a.workspace);
  const bool cut = g.segments_per_row > 1;
  float* ends = arena.take(cut ? all_segments * states : 0);
  float* carries_before = arena.take(cut ? all_segments * states : 0);
  float* rates = arena.take(cut ? all_segments * a.directions * a.dim : 0);
  const int64_t pixels = a.dim * ceil_div(a.length, g.segments_per_row), cells = a.dim * g.segment_steps;
  const int64_t terms = g.tiles * a.directions * a.states * g.segment_steps;
  const int64_t segment_floats = kept * states + to_u.used * g.partials * (local ? cells : pixels) + to_z.used * g.partials * cells +
                              to_delta.used * g.partials * (delta_local ? cells : pixels) + (to_b.used + to_c.used) * terms +
                              ceil_div(sum_floats, per_block);
  const int64_t per_launch = segments_per_launch(a, g, workspace_limit(a, true) - arena.used, segment_floats);
  const auto partial_floats = [&](bool by_segment) { return by_segment ? per_launch * cells : per_launch / g.segments_per_row * a.dim * a.length; };
  const auto reserve = [&](Partials& p, int64_t partial, int64_t partials) {
    p.partial = partial;
    p.data = arena.take(p.used ? partial * partials : 0);
  };
  float* starts = arena.take(per_launch * kept * states);
  reserve(to_u, partial_floats(local), g.partials);
  reserve(to_delta, partial_floats(delta_local), g.partials);
  reserve(to_z, partial_floats(true), g.partials);
  reserve(to_b, per_launch * a.directions * a.states * g.segment_steps, g.tiles);
  reserve(to_c, per_launch * a.directions * a.states * g.segment_steps, g.tiles);
  float* sums = arena.take(blocks_of_launch(launch_grid(a, g, 0, per_launch, backward_rows_per_pack(a))) * sum_floats);
  if (a.workspace_floats) {
    *a.workspace_floats = arena.used;
    return;
  }
  if (a.batch == 0) return;
  const Launcher on(a, launch);
  const DeviceGuard guard(launch.device, on.op);

  if (cut) {
    ScanCall pass = call;
    pass.g = launch_grid(a, g, 0, all_segments, 1);
    pass.a.last.data = nullptr;
    pass.ends = ends;
    pass.rates = rates;
    launch_states(on, pass);
    launch_carry(on, pass, ends, rates, false);
    pass.adjoint = true;
    pass.ends = carries_before;
    pass.rates = nullptr;
    pass.a.u = a.grad_out;
    pass.a.B = a.C;
    pass.a.constant_b = a.constant_c;
    pass.a.groups_b = a.groups_c;
    launch_states(on, pass);
    launch_carry(on, pass, carries_before, rates, true);
    call.states_after = ends;
    call.carries_before = carries_before;
  }
  for (int64_t first = 0; first < all_segments; first += per_launch) {
    const int64_t segments = all_segments - first < per_launch ? all_segments - first : per_launch;
    if (kept > 0) {
      ScanCall pass = call;
      pass.g = launch_grid(a, g, first, segments, 1);
      pass.starts = starts;
      launch_states(on, pass);
    }
    call.g = launch_grid(a, g, first, segments, backward_rows_per_pack(a));
    call.starts = starts;
    call.sums = sums;
    const auto target = [&](const Partials& p, bool by_segment) {
      ScanTarget o;
      o.t = p.to;
      return p.used ? partial_target(a, g, p.to, p.data, p.partial, by_segment, first) : o;
    };
    // dB, dC of each tile: [tile][segment][direction][state and step in the order of the tensor].
    const auto matrix_target = [&](const Partials& p, bool constant) {
      ScanTarget o;
      if (constant) return o;
      o.t = p.to;
      if (!p.used) return o;
      const bool along = (p.to.step < 0 ? -p.to.step : p.to.step) <= (p.to.state < 0 ? -p.to.state : p.to.state);
      o.t.data = p.data;
      o.t.dtype = DType::f32;
      o.t.group = p.partial;
      o.t.direction = a.states * g.segment_steps;
      o.t.batch = a.directions * o.t.direction;
      o.t.state = along ? g.segment_steps : 1;
      o.t.step = along ? 1 : a.states;
      o.first = first;
      o.local = o.partials = true;
      return o;
    };
    call.grad_u = target(to_u, local);
    call.grad_delta = target(to_delta, delta_local);
    call.grad_z = target(to_z, true);
    call.grad_B = matrix_target(to_b, a.constant_b);
    call.grad_C = matrix_target(to_c, a.constant_c);
    launch_backward(on, call);
    launch_rows(on, call, blocks_of_launch(call.g), first > 0);

    const auto add_up = [&](const Partials& p, const ScanTarget& from, int64_t directions, int64_t partials) {
      PartialSum m;
      m.from = p.data;
      m.partials = partials;
      m.partial = p.partial;
      m.direction = partials * p.partial;
      m.segment = from.t.batch;
      m.row = from.t.channel;
      m.step = from.t.step;
      m.segments = from.local ? segments : segments / g.segments_per_row;
      m.directions = directions;
      m.rows = a.dim;
      m.steps = from.local ? g.segment_steps : a.length;
      m.first = from.first;
      m.to = p.to;
      m.local = from.local;
      return m;
    };
    if (to_u.used) launch_partial_sums(on, call, add_up(to_u, call.grad_u, 1, g.partials));
    if (to_delta.used) {
      PartialSum m = add_up(to_delta, call.grad_delta, a.shared_delta ? 1 : a.directions, a.shared_delta ? g.partials : g.slices);
      m.of_parameters = !a.shared_delta;
      launch_partial_sums(on, call, m);
    }
    if (to_z.used) {
      PartialSum m = add_up(to_z, call.grad_z, 1, g.partials);
      m.gate = PartialSum::kGateGradient;
      launch_partial_sums(on, call, m);
    }
    const auto add_up_matrix = [&](const Partials& p, const ScanTarget& from, int64_t groups) {
      if (!p.used) return;
      PartialSum m = add_up(p, from, a.directions, g.tiles / groups);
      m.direction = from.t.direction;
      m.group = m.partials * p.partial;
      m.groups = groups;
      m.row = from.t.state;
      m.rows = a.states;
      m.of_states = m.of_parameters = true;
      launch_partial_sums(on, call, m);
    };
    add_up_matrix(to_b, call.grad_B, a.groups_b);
    add_up_matrix(to_c, call.grad_C, a.groups_c);
  }
}

}  // namespace cuda
}  // namespace bdgf
