// The host side of the scan: what the shapes decide (segments, packs, segments a launch takes, workspace), and
// the launches that forward and backward share. All of it follows from the shapes, the dtypes and which
// gradients are asked for, so that results repeat.
#pragma once
#include "bdgf/workspace.h"
#include "cuda/launch.h"
#include "cuda/selective_scan_tile.cuh"

namespace bdgf {
namespace BDGF_ISA {

// Partial results in f32 workspace that are added up and stored in a tensor.
struct PartialSum {
  enum Gate { kNoGate, kGate, kGateGradient };
  const float* from = nullptr;
  int64_t partials = 1, partial = 0, segment = 0, direction = 0, group = 0, row = 0, step = 0;    // strides
  int64_t segments = 0, directions = 1, groups = 1, rows = 0, steps = 0, first = 0;           // sizes; first segment (or row)
  ScanTensor to;
  bool by_segment = false;      // [segment][step of the segment], else [row][position]
  bool of_parameters = false;   // the tensor stands in the order of the parameters
  bool of_states = false;       // its rows are states, not channels
  Gate gate = kNoGate;
};

// One block's entries in call.sums: dA, then constant dB and dC, [direction and slice][channel][state of the slice], then dD and
// d(delta_bias), [direction and slice][channel].
struct SumLayout {
  int64_t matrix, b, c, skip, bias, all;
};
static __host__ __device__ __forceinline__ SumLayout sum_layout(const ScanCall& call) {
  SumLayout l;
  const int64_t rows = call.g.direction_slices * call.a.dim;
  l.matrix = kThreadStates * call.g.split;
  l.b = rows * l.matrix;
  l.c = l.b + (call.a.constant_b ? rows * l.matrix : 0);
  l.skip = l.c + (call.a.constant_c ? rows * l.matrix : 0);
  l.bias = l.skip + rows;
  l.all = l.bias + rows;
  return l;
}

static inline int64_t between(int64_t least, int64_t v, int64_t most) {  // where they contradict each other: the least
  const int64_t capped = v < most ? v : most;
  return capped > least ? capped : least;
}

#ifdef BDGF_EMULATED  // so that small tests take several launches, and several packs a block
constexpr int64_t kLeastWorkspace = 64 << 10, kBlocksPlenty = 8;
#else
constexpr int64_t kLeastWorkspace = 32 << 20, kBlocksPlenty = 4096;  // bytes; blocks that suffice: beyond, each takes more
#endif
constexpr int64_t kWaveBlocks = 3 * 132;  // blocks of the backward that run at the same time on an H100 or H200
constexpr int64_t kBlocksWanted = 2048;  // as many as fill any GPU several times over
constexpr int64_t kWorthSplitting = 512;  // sequences of at least so many steps are cut into segments if there are fewer blocks

static inline ScanGrid scan_grid(const SelectiveScanArgs& a) {
  ScanGrid g;
  const int64_t quads = ceil_div(a.states, kThreadStates);
  g.log_split = quads > 2 ? 2 : quads > 1 ? 1 : 0;
  g.split = 1 << g.log_split;
  g.slices = (int)ceil_div(quads, g.split);
  g.direction_slices = (int)a.directions * g.slices;
  g.group_channels = greatest_common_divisor(a.constant_b ? a.dim : a.dim / a.groups_b, a.constant_c ? a.dim : a.dim / a.groups_c);
  g.tiles_per_group = ceil_div(g.group_channels, kTileChannels);
  g.tiles = a.dim / g.group_channels * g.tiles_per_group;
  g.segment_steps = a.length;
  const int64_t blocks = a.batch * g.tiles * g.direction_slices;
  if (blocks > 0 && blocks < kWorthSplitting && a.length >= kWorthSplitting) {
    const int64_t steps = ceil_div(a.length, ceil_div(kBlocksWanted, blocks));
    const auto chunks = [](int64_t n) { return ceil_div(n, kChunkSteps) * kChunkSteps; };
    g.segment_steps = between(4 * kChunkSteps, chunks(steps), chunks(a.length));
    g.segments_per_row = ceil_div(a.length, g.segment_steps);
  }
  return g;
}

// How many sequences share a tile of steps. In the backward each must fit in one group of steps, and takes a multiple of four.
static inline int forward_rows_per_pack(const SelectiveScanArgs& a) {
  return a.length > kForwardSteps ? 1 : (int)(kForwardSteps / a.length);
}
static inline int backward_rows_per_pack(const SelectiveScanArgs& a) {
  return a.length > kGroupSteps ? 1 : (int)(kBackwardSteps / (ceil_div(a.length, kFoldSteps) * kFoldSteps));
}

// How the segments of a call are packed into tiles and blocks, decided by its largest launch of `segments`: a smaller one keeps to
// it, so that its blocks never outnumber those that the workspace was reserved for.
static inline ScanGrid packed_grid(ScanGrid g, int64_t segments, int most_in_tile) {
  g.segments = segments;
  g.rows_per_pack = (int)between(1, most_in_tile, segments);
  const int64_t blocks = ceil_div(segments, g.rows_per_pack) * g.tiles * g.direction_slices;
  g.packs_per_block = between(1, 128 / (g.rows_per_pack * g.segment_steps), blocks / kBlocksPlenty);
  return g;
}
// The launch of `segments` segments from `first` on.
static inline ScanGrid launch_grid(ScanGrid g, int64_t first, int64_t segments) {
  g.first_segment = first;
  g.segments = segments;
  return g;
}
// The blocks of a launch for each tile of channels, direction and slice; and all of them.
static inline int64_t blocks_of_launch(const ScanGrid& g) {
  return ceil_div(ceil_div(g.segments, g.rows_per_pack), g.packs_per_block);
}
static inline unsigned blocks_in_grid(const ScanGrid& g) {
  return static_cast<unsigned>(blocks_of_launch(g) * g.tiles * g.direction_slices);
}

// Bytes of inputs, outputs and, for the backward, gradients: the workspace may take a tenth of them.
static inline int64_t scan_bytes(const SelectiveScanArgs& a, bool backward) {
  const auto size = [](const ScanTensor& t) -> int64_t { return !t.data ? 0 : t.dtype == DType::f32 ? 4 : 2; };
  const int64_t cells = a.batch * a.length, copies = a.shared_delta ? 1 : a.directions;
  int64_t bytes = cells * a.dim * (size(a.u) * 2 + size(a.z) + size(a.delta) * copies);
  const int64_t matrices = (a.constant_b ? 0 : a.groups_b * size(a.B)) + (a.constant_c ? 0 : a.groups_c * size(a.C));
  bytes += cells * a.directions * a.states * matrices;
  return backward ? 2 * bytes : bytes;
}
static inline int64_t workspace_limit(const SelectiveScanArgs& a, bool backward) {  // in floats
  const int64_t tenth = scan_bytes(a, backward) / 10;
  return (tenth > kLeastWorkspace ? tenth : kLeastWorkspace) / 4;
}
// Segments a launch takes, of which each needs `segment_floats` of workspace.
static inline int64_t segments_per_launch(const SelectiveScanArgs& a, const ScanGrid& g, int64_t left, int64_t segment_floats) {
  // An image's directions are added up: its segments stay in one launch.
  const int64_t step = a.directions > 1 ? g.segments_per_row : 1;
  const int64_t grid = 0x7fffffff / (g.tiles * g.direction_slices), fits = segment_floats ? left / segment_floats : grid;
  const int64_t most = fits < grid ? fits : grid, wave = ceil_div(kWaveBlocks, g.tiles * g.direction_slices);
  // Several launches are whole waves, as far as they can be: the last few blocks of a launch would leave the GPU idle.
  const bool several = most < a.batch * g.segments_per_row && most >= wave;
  const int64_t segments = (several ? most / wave * wave : most) / step * step;
  return between(step, segments, a.batch * g.segments_per_row);
}

// f32 partial results of `like`, as [partial][segment or row][channel and step in the order of like].
static inline ScanTarget partial_target(const SelectiveScanArgs& a, const ScanGrid& g, const ScanTensor& like, float* data,
                                      int64_t partial, bool by_segment, int64_t first_segment) {
  const int64_t steps = by_segment ? g.segment_steps : a.length;
  const bool along = along_steps(like, like.channel);
  ScanTarget o;
  o.t.data = data;
  o.t.dtype = DType::f32;
  o.t.batch = a.dim * steps;
  o.t.direction = partial;
  o.t.channel = along ? steps : 1;
  o.t.step = along ? 1 : a.dim;
  o.first = by_segment ? first_segment : first_segment / g.segments_per_row;
  o.by_segment = by_segment;
  o.partial = true;
  return o;
}

struct Launcher {
  const char* op;
  cudaStream_t stream;
  std::string sizes;
  Launcher(const SelectiveScanArgs& a, const CudaLaunch& launch)
      : op(a.width ? "selective_scan_2d" : "selective_scan"), stream(cuda::stream_of(launch)),
        sizes("(" + std::to_string(a.batch) + ", " + std::to_string(a.dim) + ", " + std::to_string(a.length) + ") with " +
              std::to_string(a.states) + " states") {}
  void check() const { cuda::check_cuda(cudaGetLastError(), op, sizes); }
};

// launch_states runs the forward's kernel without outputs, see selective_scan_fwd.cuh.
void launch_states(const Launcher& on, const ScanCall& call);
void launch_partial_sums(const Launcher& on, const ScanCall& call, const PartialSum& sum);
void launch_block_sums(const Launcher& on, const ScanCall& call, int64_t blocks, bool add);
void launch_borders(const Launcher& on, const ScanCall& call, float* states, const float* delta_sums, bool backwards);

}  // namespace BDGF_ISA
}  // namespace bdgf
