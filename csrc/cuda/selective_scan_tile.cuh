// What the scan's kernels share: which part of the problem a block works on, and tiles of (steps, channels) between
// global memory, of any layout and storage type, and f32 shared memory.
//
// A block takes 32 channels; kThreadStates states of a channel live in the registers of a thread, `split` lanes hold up
// to 16 states. The lanes of a warp are [state group][channel], channels lowest, so that lanes next to each other read
// the same B and C. Beyond 16 states a slice of states is a block of its own, and so is a direction of an image: each
// writes f32 partial results, and selective_scan_sum.cuh adds them up in order.
// A long sequence is cut into segments; a short one is a segment by itself, and several go through a tile together (a pack).
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

#include "bdgf/scan_step.h"
#include "bdgf/selective_scan.h"

#define BDGF_DEV static __device__ __forceinline__
#define BDGF_DEV_METHOD __device__ __forceinline__

namespace bdgf {
namespace BDGF_ISA {

constexpr int kTileChannels = 32, kThreadStates = 4, kMostSplit = 4, kMostThreads = kTileChannels * kMostSplit;
constexpr int kRow = kTileChannels + 1;       // pitch of a tile's steps, in elements: no bank twice
constexpr int kForwardSteps = 32, kBackwardSteps = 16;  // of a tile
constexpr int kLogChannels = 5, kLogForward = 5, kLogBackward = 4;
static_assert(kTileChannels == 1 << kLogChannels && kForwardSteps == 1 << kLogForward && kBackwardSteps == 1 << kLogBackward, "");
constexpr int kGroupSteps = 8;                // steps that are unrolled at a time; a state is kept before each of them
constexpr int kFoldSteps = 4;                 // steps whose sums over a channel's lanes are formed at a time
constexpr int kChunkSteps = 64;               // steps whose kept states fit the shared memory

// Where a launch writes an output: the tensor itself, or f32 workspace of the same roles.
struct ScanTarget {
  ScanTensor t;
  int64_t first = 0;    // the row (or segment) that comes first in it
  bool local = false;   // [segment][step of the segment] instead of [row][position]
  bool partials = false;  // its directions (or, of dB and dC, its groups) are partial results, to be added up
};

struct ScanGrid {
  int split = 1, log_split = 0, slices = 1, partials = 1;  // partials = directions * slices
  int rows_per_pack = 1;                               // short sequences that share a tile
  int64_t group_channels = 0, tiles_per_group = 0, tiles = 0;  // channels that share one B and one C; tiles of those; of all
  int64_t segments_per_row = 1, segment_steps = 0;
  // Of this launch. A segment's number is row * segments_per_row + its number in the row.
  int64_t first_segment = 0, segments = 0, packs_per_block = 1;
};

struct ScanCall {
  SelectiveScanArgs a;
  ScanGrid g;
  bool narrow = false;               // u and its kind are of 16 bits
  bool adjoint = false;              // states only: the recurrence of the adjoint, from the last step to the first
  const float* states_after = nullptr;    // [segment][direction][channel][state]: the states after each segment
  const float* carries_before = nullptr;   // likewise: what the adjoint carries over the border before each segment
  float* ends = nullptr;             // as states_after, written
  float* rates = nullptr;            // [segment][direction][channel], sums of delta, written
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

BDGF_DEV int64_t divide(int64_t a, int64_t b) {  // of numbers that are not negative; 64-bit division costs ten times more
  return (a | b) >> 32 ? a / b : (int64_t)((uint32_t)a / (uint32_t)b);
}
BDGF_DEV int smaller(int a, int b) { return a < b ? a : b; }

// What a block works on. Kept in shared memory, like the tensors below.
struct BlockWork {
  int64_t k, slice, partial, tile, block, channel, group_b, group_c;
  int channels, states;  // that exist, of the tile and of the slice
  ScanDirection way;
};
BDGF_DEV BlockWork block_work(const ScanCall& call) {
  const ScanGrid& g = call.g;
  BlockWork b;
  int64_t i = divide(blockIdx.x, g.partials);
  b.partial = blockIdx.x - i * g.partials;
  b.block = divide(i, g.tiles);
  b.tile = i - b.block * g.tiles;
  b.k = divide(b.partial, g.slices);
  b.slice = b.partial - b.k * g.slices;
  const int64_t group = divide(b.tile, g.tiles_per_group), within = (b.tile - group * g.tiles_per_group) * kTileChannels;
  b.channel = group * g.group_channels + within;
  b.channels = (int)(g.group_channels - within < kTileChannels ? g.group_channels - within : kTileChannels);
  b.group_b = divide(b.channel * call.a.groups_b, call.a.dim);
  b.group_c = divide(b.channel * call.a.groups_c, call.a.dim);
  const int64_t width = kThreadStates * g.split, left = call.a.states - b.slice * width;
  b.states = (int)(left < width ? left : width);
  b.way = scan_direction(call.a, b.k);
  return b;
}

// The pack that a block is at: `rows` sequences of `steps` steps each, or one segment of `steps` steps, from `segment` on.
struct SequencePack {
  int64_t segment, steps;
  int rows;
};
BDGF_DEV int64_t steps_of_segment(const ScanCall& call, int64_t segment) {
  if (call.g.segments_per_row == 1) return call.a.length;
  const int64_t left = call.a.length - segment % call.g.segments_per_row * call.g.segment_steps;
  return left < call.g.segment_steps ? left : call.g.segment_steps;
}

// Pack `pack` of a block; rows <= 0 behind the last.
BDGF_DEV SequencePack pack_of(const ScanCall& call, int64_t block, int64_t pack) {
  const int64_t first = (block * call.g.packs_per_block + pack) * call.g.rows_per_pack, left = call.g.segments - first;
  SequencePack t;
  t.segment = call.g.first_segment + first;
  t.rows = pack >= call.g.packs_per_block || left <= 0 ? 0 : left < call.g.rows_per_pack ? (int)left : call.g.rows_per_pack;
  t.steps = t.rows > 0 ? steps_of_segment(call, t.segment) : 0;
  return t;
}

// Step `local` of a segment: its row, and its positions in tensors in the order of u and in that of the parameters.
struct Position {
  int64_t segment, row, local, input, parameter;
};
BDGF_DEV int64_t input_position(const SelectiveScanArgs& a, ScanDirection way, int64_t visit) {
  const int64_t i = way.reversed ? a.length - 1 - visit : visit;
  if (!way.columns) return i;
  const int64_t column = divide(i, a.height);
  return (i - column * a.height) * a.width + column;
}
BDGF_DEV Position position_of(const ScanCall& call, ScanDirection way, int64_t segment, int64_t local) {
  Position p;
  p.segment = segment;
  p.row = segment;
  p.local = local;
  int64_t visit = local;
  if (call.g.segments_per_row > 1) {
    p.row = divide(segment, call.g.segments_per_row);
    visit += (segment - p.row * call.g.segments_per_row) * call.g.segment_steps;
  }
  p.input = input_position(call.a, way, visit);
  p.parameter = call.a.visiting_order ? visit : p.input;
  return p;
}


// A tensor as a tile sees it, in bytes: kept in shared memory, because a dozen of them would fill the registers.
enum StepOrder { kByInput, kByParameter, kBySegment };
struct ByteTensor {
  int64_t base;               // address of row (or segment) 0, position 0, at the block's first channel or state
  int64_t row, step, across;  // across: from channel to channel, or state to state
  int32_t order, unused;
};
BDGF_DEV ByteTensor byte_tensor(const ScanTensor& t, int64_t index, int64_t across, StepOrder order) {
  const int64_t size = t.dtype == DType::f32 ? 4 : 2;
  return {(int64_t)(uintptr_t)t.data + index * size, t.batch * size, t.step * size, across * size, order, 0};
}
BDGF_DEV ByteTensor input_tensor(const ScanTensor& t, const BlockWork& b) {
  return byte_tensor(t, b.channel * t.channel, t.channel, kByInput);
}
BDGF_DEV ByteTensor delta_tensor(const SelectiveScanArgs& a, const BlockWork& b) {
  const ScanTensor& t = a.delta;
  return byte_tensor(t, b.k * t.direction + b.channel * t.channel, t.channel, a.shared_delta ? kByInput : kByParameter);
}
BDGF_DEV ByteTensor matrix_tensor(const ScanTensor& t, const BlockWork& b, int64_t group, int split) {
  return byte_tensor(t, b.k * t.direction + group * t.group + b.slice * kThreadStates * split * t.state, t.state, kByParameter);
}
BDGF_DEV ByteTensor target_tensor(const ScanTarget& o, const BlockWork& b, StepOrder order) {
  const int64_t partial = o.partials ? b.partial : b.k;
  const int64_t at = partial * o.t.direction + b.channel * o.t.channel - o.first * o.t.batch;
  return byte_tensor(o.t, at, o.t.channel, o.local ? kBySegment : order);
}
BDGF_DEV ByteTensor matrix_target_tensor(const ScanTarget& o, const BlockWork& b, int64_t group, int split) {
  ByteTensor s = matrix_tensor(o.t, b, o.partials ? b.tile : group, split);
  s.base -= o.first * s.row;
  if (o.local) s.order = kBySegment;
  return s;
}
// The addresses of step j of the tile in the tensors first, first + by, ...; 0 where the tile has no such step.
BDGF_DEV void fill_tables(int64_t* tables, int tile_steps, int j, const ByteTensor* tensors, int first, int by, int count,
                          bool inside, const Position& p) {
#pragma unroll 1
  for (int i = first; i < count; i += by) {
    const ByteTensor& s = tensors[i];
    const int64_t row = s.order == kBySegment ? p.segment : p.row;
    const int64_t position = s.order == kBySegment ? p.local : s.order == kByInput ? p.input : p.parameter;
    tables[i * tile_steps + j] = inside ? s.base + row * s.row + position * s.step : 0;
  }
}
// Whether threads next to each other take steps next to each other, or channels (`other`: the stride of those).
BDGF_DEV bool along_steps(const ScanTensor& t, int64_t other) {
  return (t.step < 0 ? -t.step : t.step) <= (other < 0 ? -other : other);
}

// threadIdx.x, read again: what follows from it is then not kept in registers through the loops.
BDGF_DEV int fresh_thread() {
#ifdef __CUDA_ARCH__
  int thread;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
  return thread;
#else
  return threadIdx.x;
#endif
}

// Element i of a thread is step j + i dj, channel c + i dc, of a tile whose sides and threads are powers of two; the first
// `valid` have a channel that exists (whether a step does say the tables).
struct ThreadElements {
  bool along;
  int j, c, dj, dc, valid;
};
BDGF_DEV ThreadElements thread_elements(bool along, int log_steps, int log_channels, int log_threads, int channels) {
  const int thread = fresh_thread();
  ThreadElements w;
  w.along = along;
  if (along) {
    const int log_dc = log_threads - log_steps;
    w.j = thread & ((1 << log_steps) - 1);
    w.c = thread >> log_steps;
    w.dj = 0;
    w.dc = 1 << log_dc;
    w.valid = (channels - w.c + w.dc - 1) >> log_dc;
  } else {
    w.c = thread & ((1 << log_channels) - 1);
    w.j = thread >> log_channels;
    w.dc = 0;
    w.dj = 1 << (log_threads - log_channels);
    w.valid = w.c < channels ? 1 << log_steps : 0;
  }
  return w;
}

// Storage of a kernel's big tensors: float, or 16 bits of either kind, told apart at run time: the kernels are compiled
// twice, not three times.
struct Narrow {
  uint16_t bits;
};
// A value as it lies in memory, and what it stands for: apart, so that several loads are in flight before the first is looked at.
BDGF_DEV float load_raw(const float* p) { return __ldg(p); }
BDGF_DEV uint16_t load_raw(const Narrow* p) { return __ldg(reinterpret_cast<const unsigned short*>(p)); }
BDGF_DEV float widened(float v, DType) { return v; }
BDGF_DEV float widened(uint16_t bits, DType dtype) {
  __half h;
  memcpy(&h, &bits, 2);
  return dtype == DType::bf16 ? __uint_as_float((unsigned)bits << 16) : __half2float(h);
}
template <class T>
BDGF_DEV float load_f32(const T* p, DType dtype) {
  return widened(load_raw(p), dtype);
}
template <class T>
BDGF_DEV void store_global(T* p, T v) {
#ifdef __CUDA_ARCH__
  __stcg(p, v);
#else
  *p = v;
#endif
}
BDGF_DEV void store_f32(float* p, float v, DType) { store_global(p, v); }
BDGF_DEV void store_f32(Narrow* p, float v, DType dtype) {
  const __half h = __float2half_rn(v);
  const __nv_bfloat16 b = __float2bfloat16_rn(v);
  unsigned short bits, other;
  memcpy(&bits, &h, 2);
  memcpy(&other, &b, 2);
  store_global(reinterpret_cast<unsigned short*>(p), dtype == DType::bf16 ? other : bits);
}
BDGF_DEV float load_parameter(const ScanTensor& t, int64_t index) { return __ldg((const float*)t.data + index); }

// One tensor of a tile: its address by step, and the distance from channel to channel or state to state.
struct StepAddresses {
  const int64_t* table;
  int64_t across;
};
// Four of a thread's elements, from element `i` on, as they lie in memory. Where there is none, the tile's first element is read in
// its place: four loads without a branch between them.
template <class T>
struct Raw {
  decltype(load_raw((const T*)nullptr)) v[4];
};
template <class T>
BDGF_DEV void load_four_raw(Raw<T>& r, StepAddresses l, const ThreadElements& w, int i) {
  const int64_t some = l.table[0];
  bool there[4];
  if (w.along) {
    const int64_t line = l.table[w.j], step = w.dc * l.across, first = (w.c + i * w.dc) * l.across;
    const int valid = line ? w.valid - i : 0;
    const int64_t base = line ? line : some;
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      there[q] = q < valid;
      r.v[q] = load_raw((const T*)(base + (there[q] ? first + q * step : 0)));
    }
  } else {
    const int64_t part = w.c * l.across;
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      const int64_t line = i + q < w.valid ? l.table[w.j + (i + q) * w.dj] : 0;
      there[q] = line;
      r.v[q] = load_raw((const T*)(line ? line + part : some));
    }
  }
#pragma unroll
  for (int q = 0; q < 4; ++q) {
    if (!there[q]) r.v[q] = 0;
  }
}
template <class T>
BDGF_DEV void load_four(float (&r)[4], DType dtype, StepAddresses l, const ThreadElements& w, int i) {
  Raw<T> raw;
  load_four_raw(raw, l, w, i);
#pragma unroll
  for (int q = 0; q < 4; ++q) r[q] = widened(raw.v[q], dtype);
}
template <class T>
BDGF_DEV void store_four_as(const float (&r)[4], DType dtype, StepAddresses l, const ThreadElements& w, int i) {
  if (w.along) {
    const int64_t line = l.table[w.j], step = w.dc * l.across;
    const int valid = line ? w.valid - i : 0;
    int64_t at = line + (w.c + i * w.dc) * l.across;
#pragma unroll
    for (int q = 0; q < 4; ++q, at += step) {
      if (q < valid) store_f32((T*)at, r[q], dtype);
    }
  } else {
    const int64_t part = w.c * l.across;
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      const int64_t line = i + q < w.valid ? l.table[w.j + (i + q) * w.dj] : 0;
      if (line) store_f32((T*)(line + part), r[q], dtype);
    }
  }
}
// Workspace may be f32 beside 16-bit tensors.
template <class T>
BDGF_DEV void store_four(const float (&r)[4], DType dtype, StepAddresses l, const ThreadElements& w, int i) {
  if (sizeof(T) == 4 || dtype == DType::f32) store_four_as<float>(r, dtype, l, w, i);
  else store_four_as<T>(r, dtype, l, w, i);
}

// Of a tensor that may be f32 beside 16-bit ones, and cannot be of 16 bits beside f32.
template <class T>
BDGF_DEV bool is_wide(const ScanTensor& t) {
  return sizeof(T) == 4 || t.dtype == DType::f32;
}
// pair[step][channel] = (delta, u), finished, of four elements; outside (0, 0) where kZero asks for it. `gate`: z, by whose silu u
// is multiplied; a null table: not.
template <class T, bool kZero>
BDGF_DEV void finish_four(float2* pair, const float (&rd)[4], const float (&ru)[4], const SelectiveScanArgs& a, StepAddresses delta,
                          StepAddresses gate, const float* bias, const ThreadElements& w, int i) {
  const int valid = kZero && w.along && !delta.table[w.j] ? 0 : w.valid;
  float z[4];
  if (gate.table) load_four<T>(z, a.z.dtype, gate, w, i);
#pragma unroll
  for (int q = 0; q < 4; ++q) {
    const int j = w.j + (i + q) * w.dj, c = w.c + (i + q) * w.dc;
    float d = rd[q] + bias[c];
    if (a.softplus) d = scan_softplus<ScanMath>(d);
    const float v = gate.table ? ru[q] * ScanMath::silu(z[q]) : ru[q];
    const bool inside = !kZero || (i + q < valid && (w.along || delta.table[j]));
    pair[j * kRow + c] = inside ? make_float2(d, v) : make_float2(0.0f, 0.0f);
  }
}
// The same of a thread's elements from `from` on.
template <class T, bool kZero>
BDGF_DEV void stage_pairs(float2* pair, const SelectiveScanArgs& a, StepAddresses u, StepAddresses delta, StepAddresses gate,
                          const float* bias, const ThreadElements& w, int from, int elements) {
#pragma unroll 2
  for (int i = from; i < elements; i += 4) {
    float ru[4] = {}, rd[4];
    if (is_wide<T>(a.delta)) load_four<float>(rd, a.delta.dtype, delta, w, i);
    else load_four<T>(rd, a.delta.dtype, delta, w, i);
    if (a.u.data) load_four<T>(ru, a.u.dtype, u, w, i);
    finish_four<T, kZero>(pair, rd, ru, a, delta, gate, bias, w, i);
  }
}

// delta_bias and D of the tile's channels; D is added by the first slice of states alone.
BDGF_DEV void fill_vectors(float* bias, float* skip, const SelectiveScanArgs& a, const BlockWork& b) {
  const int c = threadIdx.x;
  if (c >= kTileChannels) return;
  const int64_t channel = b.channel + c;
  const bool inside = c < b.channels;
  const auto value = [&](const ScanTensor& t) { return load_parameter(t, b.k * t.direction + channel * t.channel); };
  bias[c] = inside && a.delta_bias.data ? value(a.delta_bias) : 0.0f;
  skip[c] = inside && a.D.data && b.slice == 0 ? value(a.D) : 0.0f;
}

// v[j] of four steps -> their sums over the `split` lanes of a channel: v[i] of the lanes of state group s is step
// s * (4 / split) + i.
BDGF_DEV void fold_steps(float (&v)[kFoldSteps], int split, int lane) {
  if (split > 1) {
    const bool upper = lane & 16;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float send = upper ? v[i] : v[i + 2], keep = upper ? v[i + 2] : v[i];
      v[i] = keep + __shfl_xor_sync(0xffffffffu, send, 16);
    }
  }
  if (split > 2) {
    const bool upper = lane & 8;
    const float send = upper ? v[0] : v[1], keep = upper ? v[1] : v[0];
    v[0] = keep + __shfl_xor_sync(0xffffffffu, send, 8);
  }
}

// The state before a segment, and what the adjoint carries into it from behind; whether any of them is not 0.
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
// In call.starts, of the state before chunk 1, 2, ... of a segment.
BDGF_DEV int64_t start_index(const ScanCall& call, int64_t k, int64_t segment, int64_t chunk, int64_t channel, int64_t n) {
  const int64_t kept = (call.g.segment_steps - 1) / kChunkSteps;
  const int64_t row = ((segment - call.g.first_segment) * call.a.directions + k) * kept + chunk - 1;
  return (row * call.a.dim + channel) * call.a.states + n;
}

}  // namespace BDGF_ISA
}  // namespace bdgf
