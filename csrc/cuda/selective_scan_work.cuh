// Selective scan on CUDA: how the problem is divided. What a launch is given, which part of it a block works on, and the
// states and adjoints at the borders of segments.
//
// A block takes 32 channels (a tile of channels). A thread holds kThreadStates states of a channel in registers, and `split` lanes
// share a channel, for up to 16 states. The lanes of a warp are [state group][channel], channels lowest, so that lanes next to each
// other read the same B and C. Beyond 16 states every slice of 16 states has a block of its own, and so has every direction of an
// image: each writes f32 partial results, and selective_scan_sum.cuh adds them up in order.
// A row is one sample of the batch. Where blocks would be few, a long sequence is cut into segments, each for a block of its own;
// elsewhere a sequence is one segment, and short ones share a tile of steps (a pack). The backward takes a segment in chunks of
// kChunkSteps steps, a chunk in tiles of kBackwardSteps; the forward takes a segment in tiles of kForwardSteps. The steps of a tile
// are unrolled in groups of kGroupSteps.
#pragma once
#include <stdint.h>

#include "bdgf/scan_step.h"
#include "bdgf/selective_scan.h"

#define BDGF_DEV static __device__ __forceinline__
#define BDGF_DEV_METHOD __device__ __forceinline__

namespace bdgf {
namespace BDGF_ISA {

constexpr int kTileChannels = 32, kThreadStates = 4, kMostSplit = 4, kMostThreads = kTileChannels * kMostSplit;
constexpr int kRow = kTileChannels + 1;       // pitch of a tile's steps, in elements: odd, so that a column lies in different banks
constexpr int kForwardSteps = 32, kBackwardSteps = 16;  // of a tile
constexpr int kLogChannels = 5, kLogForward = 5, kLogBackward = 4;
static_assert(kTileChannels == 1 << kLogChannels && kForwardSteps == 1 << kLogForward && kBackwardSteps == 1 << kLogBackward, "");
constexpr int kGroupSteps = 8;                // steps that are unrolled at a time; a state is kept before each of them
constexpr int kFoldSteps = 4;                 // steps whose sums over a channel's lanes are formed at a time
constexpr int kChunkSteps = 64;               // steps for whose groups the shared memory can keep states

// Where a launch writes an output: the tensor itself, or f32 workspace of the same roles.
struct ScanTarget {
  ScanTensor t;
  int64_t first = 0;    // the row (or segment) that comes first in it
  bool by_segment = false;  // [segment][step of the segment] instead of [row][position]
  bool partial = false;     // its directions (or, of dB and dC, its groups) are partial results, to be added up
};

struct ScanGrid {
  int split = 1, log_split = 0, slices = 1, direction_slices = 1;  // direction_slices = directions * slices
  int rows_per_pack = 1;                               // short sequences that share a tile
  int64_t group_channels = 0, tiles_per_group = 0, tiles = 0;  // channels that share one B and one C; tiles of those; of all
  int64_t segments_per_row = 1, segment_steps = 0;
  // Of this launch. A segment's number is row * segments_per_row + its number in the row.
  int64_t first_segment = 0, segments = 0, packs_per_block = 1;
};

struct ScanCall {
  SelectiveScanArgs a;
  ScanGrid g;
  bool narrow = false;               // the big tensors are stored in 16 bits
  bool adjoint = false;              // states only: the recurrence of the adjoint, from the last step to the first
  const float* states_after = nullptr;    // [segment][direction][channel][state]: the states after each segment
  const float* carries_before = nullptr;   // likewise: what the adjoint carries over the border before each segment
  float* ends = nullptr;             // as states_after, written
  float* delta_sums = nullptr;       // [segment][direction][channel], the sum of delta over the segment, written
  float* starts = nullptr;           // [segment of the launch][direction][chunk][channel][state], written, then read
  float* sums = nullptr;             // [block][SumLayout]: a block's share of what is summed over rows
  ScanTarget out, grad_u, grad_delta, grad_z, grad_B, grad_C;
};

struct ScanMath {
  typedef float F;
  BDGF_DEV F splat(float v) { return v; }
  BDGF_DEV F fma(F a, F b, F c) { return fmaf(a, b, c); }
  BDGF_DEV F exp2(F v) {
#ifdef __CUDA_ARCH__
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(v));
    return r;
#else
    return exp2f(v);
#endif
  }
  BDGF_DEV F sigmoid(F z) { return __fdividef(1.0f, 1.0f + exp2(z * -kScanLog2E)); }
  BDGF_DEV F silu(F z) { return z * sigmoid(z); }
  BDGF_DEV F max(F a, F b) { return fmaxf(a, b); }
  BDGF_DEV F abs(F a) { return fabsf(a); }
  BDGF_DEV F below(F a, F b, F x, F y) { return a < b ? x : y; }
};

// a / b of numbers that are not negative: a 64-bit division takes ten times as long as one of 32 bits.
BDGF_DEV int64_t divide(int64_t a, int64_t b) {
  return (a | b) >> 32 ? a / b : (int64_t)((uint32_t)a / (uint32_t)b);
}
BDGF_DEV int smaller(int a, int b) { return a < b ? a : b; }
BDGF_DEV float load_parameter(const ScanTensor& t, int64_t index) { return __ldg((const float*)t.data + index); }

// What a block works on. Kept in shared memory, like the ByteTensors of selective_scan_tile.cuh.
struct BlockWork {
  int64_t k, slice;                  // the direction, and the slice of 16 states
  int64_t direction_slice;           // both as one number
  int64_t tile;                      // of channels
  int64_t block;                     // among those with the same tile and direction_slice: which packs it takes
  int64_t channel;                   // the first of the tile
  int64_t group_b, group_c;          // of B and C that the tile's channels share
  int channels, states;              // that exist, of the tile and of the slice
  ScanDirection direction;
};
BDGF_DEV BlockWork block_work(const ScanCall& call) {
  const ScanGrid& g = call.g;
  BlockWork b;
  int64_t i = divide(blockIdx.x, g.direction_slices);
  b.direction_slice = blockIdx.x - i * g.direction_slices;
  b.block = divide(i, g.tiles);
  b.tile = i - b.block * g.tiles;
  b.k = divide(b.direction_slice, g.slices);
  b.slice = b.direction_slice - b.k * g.slices;
  const int64_t group = divide(b.tile, g.tiles_per_group), within = (b.tile - group * g.tiles_per_group) * kTileChannels;
  b.channel = group * g.group_channels + within;
  b.channels = (int)(g.group_channels - within < kTileChannels ? g.group_channels - within : kTileChannels);
  b.group_b = divide(b.channel * call.a.groups_b, call.a.dim);
  b.group_c = divide(b.channel * call.a.groups_c, call.a.dim);
  const int64_t width = kThreadStates * g.split, left = call.a.states - b.slice * width;
  b.states = (int)(left < width ? left : width);
  b.direction = scan_direction(call.a, b.k);
  return b;
}

// The pack that a block works on: `rows` sequences of `steps` steps each, or one segment of `steps` steps, from `segment` on.
struct SequencePack {
  int64_t segment, steps;
  int rows;
};
BDGF_DEV int64_t steps_of_segment(const ScanCall& call, int64_t segment) {
  if (call.g.segments_per_row == 1) return call.a.length;
  const int64_t left = call.a.length - segment % call.g.segments_per_row * call.g.segment_steps;
  return left < call.g.segment_steps ? left : call.g.segment_steps;
}

// Pack `pack` of a block; it has no rows after the last one.
BDGF_DEV SequencePack pack_of(const ScanCall& call, int64_t block, int64_t pack) {
  const int64_t first = (block * call.g.packs_per_block + pack) * call.g.rows_per_pack, left = call.g.segments - first;
  SequencePack t;
  t.segment = call.g.first_segment + first;
  t.rows = pack >= call.g.packs_per_block || left <= 0 ? 0 : left < call.g.rows_per_pack ? (int)left : call.g.rows_per_pack;
  t.steps = t.rows > 0 ? steps_of_segment(call, t.segment) : 0;
  return t;
}

// Step `step` of a segment: its row, and its position in tensors in the order of u and in those in the order of the parameters.
struct Position {
  int64_t segment, row, step, input, parameter;
};
BDGF_DEV int64_t input_position(const SelectiveScanArgs& a, ScanDirection direction, int64_t visit) {
  const int64_t i = direction.reversed ? a.length - 1 - visit : visit;
  if (!direction.columns) return i;
  const int64_t column = divide(i, a.height);
  return (i - column * a.height) * a.width + column;
}
BDGF_DEV Position position_of(const ScanCall& call, ScanDirection direction, int64_t segment, int64_t step) {
  Position p;
  p.segment = segment;
  p.row = segment;
  p.step = step;
  int64_t visit = step;
  if (call.g.segments_per_row > 1) {
    p.row = divide(segment, call.g.segments_per_row);
    visit += (segment - p.row * call.g.segments_per_row) * call.g.segment_steps;
  }
  p.input = input_position(call.a, direction, visit);
  p.parameter = call.a.visiting_order ? visit : p.input;
  return p;
}

// The state before a segment, and the carry of the adjoint into it from the segment after it; and whether they can be nonzero.
BDGF_DEV bool has_states_before(const ScanCall& call) { return call.a.initial.data || call.states_after; }
BDGF_DEV bool has_adjoint_after(const ScanCall& call) { return call.a.grad_last.data || call.carries_before; }
BDGF_DEV float state_before(const ScanCall& call, int64_t k, int64_t segment, int64_t channel, int64_t n) {
  const int64_t row = divide(segment, call.g.segments_per_row);
  if (segment == row * call.g.segments_per_row) {
    const ScanTensor& t = call.a.initial;
    return t.data ? load_parameter(t, row * t.batch + channel * t.channel + n * t.state) : 0.0f;
  }
  if (!call.states_after) return 0.0f;
  return __ldg(call.states_after + (((segment - 1) * call.a.directions + k) * call.a.dim + channel) * call.a.states + n);
}
BDGF_DEV float adjoint_after(const ScanCall& call, int64_t k, int64_t segment, int64_t channel, int64_t n) {
  const int64_t row = divide(segment, call.g.segments_per_row);
  if (segment == (row + 1) * call.g.segments_per_row - 1) {
    const ScanTensor& t = call.a.grad_last;
    return t.data ? load_parameter(t, row * t.batch + channel * t.channel + n * t.state) : 0.0f;
  }
  if (!call.carries_before) return 0.0f;
  return __ldg(call.carries_before + (((segment + 1) * call.a.directions + k) * call.a.dim + channel) * call.a.states + n);
}
// The index in call.starts of the state before chunk 1, 2, ... of a segment; chunk 0 begins with the segment's own state.
BDGF_DEV int64_t start_index(const ScanCall& call, int64_t k, int64_t segment, int64_t chunk, int64_t channel, int64_t n) {
  const int64_t kept = (call.g.segment_steps - 1) / kChunkSteps;
  const int64_t row = ((segment - call.g.first_segment) * call.a.directions + k) * kept + chunk - 1;
  return (row * call.a.dim + channel) * call.a.states + n;
}

}  // namespace BDGF_ISA
}  // namespace bdgf
