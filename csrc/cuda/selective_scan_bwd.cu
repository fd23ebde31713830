#define BDGF_ISA device
#include "cuda/selective_scan_bwd.cuh"

#include "cuda/kernels.h"

namespace bdgf {
namespace device {

template <class T, bool kConstant>
static void launch_backward(const Launcher& on, const ScanCall& call) {
  const ScanGrid& g = call.g;
  const unsigned blocks = blocks_in_grid(g), threads = kTileChannels * g.split;
  const size_t bytes = 4 * backward_shared_floats(g.split, kConstant);
  cuda::allow_shared(selective_scan_bwd_kernel<T, kConstant>, bytes, on.op);
  BDGF_LAUNCH((selective_scan_bwd_kernel<T, kConstant>), blocks, threads, bytes, on.stream, call);
  on.check();
}
static void launch_backward(const Launcher& on, const ScanCall& call) {
  const bool constant = call.a.constant_b || call.a.constant_c;
  if (call.narrow) constant ? launch_backward<Narrow, true>(on, call) : launch_backward<Narrow, false>(on, call);
  else constant ? launch_backward<float, true>(on, call) : launch_backward<float, false>(on, call);
}

// A gradient that is first written as partial results: its part of the workspace, and where it goes from there.
struct PartialGradient {
  ScanTensor to;
  bool used = false;
  float* data = nullptr;
  int64_t floats = 0;  // of one partial result
};

// The backward of a call: what the shapes decide, the workspace, and the launches.
struct Backward {
  const SelectiveScanArgs& a;
  const ScanGrid g;
  const int64_t all_segments, states, chunks_kept;  // of the batch; floats of a segment's state; chunks whose first state is kept
  const bool cut;  // into segments
  const bool by_segment, delta_by_segment;  // whether the partial results of du and ddelta lie by segment, not by position
  PartialGradient to_u, to_delta, to_z, to_b, to_c;
  ScanCall call;
  int64_t per_launch, floats;  // segments of a launch; of workspace
  float *ends, *carries_before, *delta_sums, *starts, *sums;

  explicit Backward(const SelectiveScanArgs& args)
      : a(args),
        g(scan_grid(args)),
        all_segments(a.batch * g.segments_per_row),
        states(a.directions * a.dim * a.states),
        chunks_kept((g.segment_steps - 1) / kChunkSteps),
        cut(g.segments_per_row > 1),
        by_segment(a.directions == 1),
        delta_by_segment(by_segment || !a.shared_delta),
        to_u{a.grad_u, a.grad_u.data && g.direction_slices > 1},
        to_delta{a.grad_delta, a.grad_delta.data && (a.shared_delta ? g.direction_slices : g.slices) > 1},
        to_z{a.grad_z, a.grad_z.data && g.direction_slices > 1},
        to_b{a.grad_B, a.grad_B.data && !a.constant_b && g.tiles > a.groups_b},
        to_c{a.grad_C, a.grad_C.data && !a.constant_c && g.tiles > a.groups_c} {
    call.a = a;
    call.narrow = a.u.dtype != DType::f32;
    call.g = packed_grid(g, all_segments, backward_rows_per_pack(a));
    reserve_workspace();
  }

  int64_t cells() const { return a.dim * g.segment_steps; }  // (channel, step) pairs of a segment
  // Floats of workspace that a segment takes.
  int64_t segment_floats() const {
    const int64_t pixels = a.dim * ceil_div(a.length, g.segments_per_row);
    const int64_t terms = g.tiles * a.directions * a.states * g.segment_steps;
    const int64_t of_u = to_u.used * g.direction_slices * (by_segment ? cells() : pixels);
    const int64_t of_z = to_z.used * g.direction_slices * cells();
    const int64_t of_delta = to_delta.used * g.direction_slices * (delta_by_segment ? cells() : pixels);
    const int64_t of_sums = ceil_div(sum_layout(call).all, call.g.rows_per_pack * call.g.packs_per_block);
    return chunks_kept * states + of_u + of_z + of_delta + (to_b.used + to_c.used) * terms + of_sums;
  }
  void reserve_workspace() {
    Arena arena(a.workspace);
    ends = cut ? arena.take(all_segments * states) : nullptr;
    carries_before = cut ? arena.take(all_segments * states) : nullptr;
    delta_sums = cut ? arena.take(all_segments * a.directions * a.dim) : nullptr;
    per_launch = segments_per_launch(a, g, workspace_limit(a, true) - arena.used, segment_floats());
    const int64_t in_segments = per_launch * cells(), in_rows = per_launch / g.segments_per_row * a.dim * a.length;
    const int64_t matrix = per_launch * a.directions * a.states * g.segment_steps;
    const auto reserve = [&](PartialGradient& p, int64_t floats, int64_t partials) {
      p.floats = floats;
      p.data = p.used ? arena.take(floats * partials) : nullptr;
    };
    starts = chunks_kept ? arena.take(per_launch * chunks_kept * states) : nullptr;
    reserve(to_u, by_segment ? in_segments : in_rows, g.direction_slices);
    reserve(to_delta, delta_by_segment ? in_segments : in_rows, g.direction_slices);
    reserve(to_z, in_segments, g.direction_slices);
    reserve(to_b, matrix, g.tiles);
    reserve(to_c, matrix, g.tiles);
    call.g = packed_grid(g, per_launch, backward_rows_per_pack(a));
    sums = arena.take(blocks_of_launch(call.g) * sum_layout(call).all);
    floats = arena.used;
  }

  void run(const Launcher& on) {
    if (cut) scan_borders(on);
    for (int64_t first = 0; first < all_segments; first += per_launch) {
      const int64_t segments = all_segments - first < per_launch ? all_segments - first : per_launch;
      launch_segments(on, first, segments);
      add_partials(on, segments);
    }
  }

  // The states and the carries at the borders of the segments: first what each segment contributes by itself, then from border to
  // border. The second pass is the adjoint's, for which grad_out stands in for u, and C for B.
  void scan_borders(const Launcher& on) {
    ScanCall pass = call;
    pass.g = packed_grid(g, all_segments, 1);
    pass.a.last.data = nullptr;
    pass.ends = ends;
    pass.delta_sums = delta_sums;
    launch_states(on, pass);
    launch_borders(on, pass, ends, delta_sums, false);
    pass.adjoint = true;
    pass.ends = carries_before;
    pass.delta_sums = nullptr;
    pass.a.u = a.grad_out;
    pass.a.B = a.C;
    pass.a.constant_b = a.constant_c;
    pass.a.groups_b = a.groups_c;
    launch_states(on, pass);
    launch_borders(on, pass, carries_before, delta_sums, true);
    call.states_after = ends;
    call.carries_before = carries_before;
  }

  // Computes the states before the chunks of `segments` segments from `first` on, then their gradients.
  void launch_segments(const Launcher& on, int64_t first, int64_t segments) {
    if (chunks_kept > 0) {
      ScanCall pass = call;
      pass.g = launch_grid(packed_grid(g, per_launch, 1), first, segments);
      pass.starts = starts;
      launch_states(on, pass);
    }
    call.g = launch_grid(call.g, first, segments);
    call.starts = starts;
    call.sums = sums;
    call.grad_u = target(to_u, by_segment, first);
    call.grad_delta = target(to_delta, delta_by_segment, first);
    call.grad_z = target(to_z, true, first);
    call.grad_B = matrix_target(to_b, a.constant_b, first);
    call.grad_C = matrix_target(to_c, a.constant_c, first);
    launch_backward(on, call);
    launch_block_sums(on, call, blocks_of_launch(call.g), first > 0);
  }
  ScanTarget target(const PartialGradient& p, bool by_segment, int64_t first) const {
    if (p.used) return partial_target(a, g, p.to, p.data, p.floats, by_segment, first);
    ScanTarget o;
    o.t = p.to;
    return o;
  }
  // dB, dC of each tile: [tile][segment][direction][state and step in the order of the tensor].
  ScanTarget matrix_target(const PartialGradient& p, bool constant, int64_t first) const {
    ScanTarget o;
    if (constant) return o;
    o.t = p.to;
    if (!p.used) return o;
    const bool along = (p.to.step < 0 ? -p.to.step : p.to.step) <= (p.to.state < 0 ? -p.to.state : p.to.state);
    o.t.data = p.data;
    o.t.dtype = DType::f32;
    o.t.group = p.floats;
    o.t.direction = a.states * g.segment_steps;
    o.t.batch = a.directions * o.t.direction;
    o.t.state = along ? g.segment_steps : 1;
    o.t.step = along ? 1 : a.states;
    o.first = first;
    o.by_segment = o.partial = true;
    return o;
  }

  // Adds up the partial results of a launch over `segments` segments and stores the gradients.
  void add_partials(const Launcher& on, int64_t segments) const {
    if (to_u.used) launch_partial_sums(on, call, sum_of(to_u, call.grad_u, segments, 1, g.direction_slices));
    if (to_delta.used) {
      const int64_t directions = a.shared_delta ? 1 : a.directions, partials = a.shared_delta ? g.direction_slices : g.slices;
      PartialSum m = sum_of(to_delta, call.grad_delta, segments, directions, partials);
      m.of_parameters = !a.shared_delta;
      launch_partial_sums(on, call, m);
    }
    if (to_z.used) {
      PartialSum m = sum_of(to_z, call.grad_z, segments, 1, g.direction_slices);
      m.gate = PartialSum::kGateGradient;
      launch_partial_sums(on, call, m);
    }
    if (to_b.used) launch_partial_sums(on, call, sum_of_matrix(to_b, call.grad_B, segments, a.groups_b));
    if (to_c.used) launch_partial_sums(on, call, sum_of_matrix(to_c, call.grad_C, segments, a.groups_c));
  }
  PartialSum sum_of(const PartialGradient& p, const ScanTarget& from, int64_t segments, int64_t directions,
                    int64_t partials) const {
    PartialSum m;
    m.from = p.data;
    m.partials = partials;
    m.partial = p.floats;
    m.direction = partials * p.floats;
    m.segment = from.t.batch;
    m.row = from.t.channel;
    m.step = from.t.step;
    m.segments = from.by_segment ? segments : segments / g.segments_per_row;
    m.directions = directions;
    m.rows = a.dim;
    m.steps = from.by_segment ? g.segment_steps : a.length;
    m.first = from.first;
    m.to = p.to;
    m.by_segment = from.by_segment;
    return m;
  }
  PartialSum sum_of_matrix(const PartialGradient& p, const ScanTarget& from, int64_t segments, int64_t groups) const {
    PartialSum m = sum_of(p, from, segments, a.directions, g.tiles / groups);
    m.direction = from.t.direction;
    m.group = m.partials * p.floats;
    m.groups = groups;
    m.row = from.t.state;
    m.rows = a.states;
    m.of_states = m.of_parameters = true;
    return m;
  }
};

}  // namespace device

namespace cuda {
using namespace device;

void selective_scan_bwd(const SelectiveScanArgs& a, const CudaLaunch& launch) {
  Backward backward(a);
  if (a.workspace_floats) {
    *a.workspace_floats = backward.floats;
    return;
  }
  if (a.batch == 0) return;
  const Launcher on(a, launch);
  const DeviceGuard guard(launch.device, on.op);
  backward.run(on);
}

}  // namespace cuda
}  // namespace bdgf
