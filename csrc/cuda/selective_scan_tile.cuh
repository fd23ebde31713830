// Selective scan on CUDA: tiles of (steps, channels) or (steps, states) between global memory, of any layout and storage
// type, and f32 shared memory; and the sums over the lanes that share a channel.
//
// The addresses of a tile's steps are computed once, by one thread each, into tables in shared memory. A thread then moves four
// elements at a time, along whichever of the two axes lies closer in memory.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "cuda/selective_scan_work.cuh"

namespace bdgf {
namespace BDGF_ISA {

// The order of a tensor's steps: that of u, that of delta, B and C (see visiting_order), or by segment, in workspace.
enum StepOrder { kByInput, kByParameter, kBySegment };
// A tensor as a tile sees it, in bytes: kept in shared memory, because a dozen of them would fill the registers.
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
  const int64_t partial = o.partial ? b.direction_slice : b.k;
  const int64_t at = partial * o.t.direction + b.channel * o.t.channel - o.first * o.t.batch;
  return byte_tensor(o.t, at, o.t.channel, o.by_segment ? kBySegment : order);
}
BDGF_DEV ByteTensor matrix_target_tensor(const ScanTarget& o, const BlockWork& b, int64_t group, int split) {
  ByteTensor s = matrix_tensor(o.t, b, o.partial ? b.tile : group, split);
  s.base -= o.first * s.row;
  if (o.by_segment) s.order = kBySegment;
  return s;
}
// The addresses of step j of the tile in the tensors first, first + by, ...; 0 where the tile has no such step.
BDGF_DEV void fill_tables(int64_t* tables, int tile_steps, int j, const ByteTensor* tensors, int first, int by, int count,
                          bool inside, const Position& p) {
#pragma unroll 1
  for (int i = first; i < count; i += by) {
    const ByteTensor& s = tensors[i];
    const int64_t row = s.order == kBySegment ? p.segment : p.row;
    const int64_t position = s.order == kBySegment ? p.step : s.order == kByInput ? p.input : p.parameter;
    tables[i * tile_steps + j] = inside ? s.base + row * s.row + position * s.step : 0;
  }
}
// Whether neighbouring threads take neighbouring steps of t; otherwise they take neighbouring channels or states, at stride
// `other`.
static __host__ __device__ __forceinline__ bool along_steps(const ScanTensor& t, int64_t other) {
  return (t.step < 0 ? -t.step : t.step) <= (other < 0 ? -other : other);
}

// threadIdx.x, read again, so that the compiler does not keep what is derived from it in registers through the loops.
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
// `valid` have a channel that exists (whether the step exists is in the tables). `along`: see along_steps.
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

// Storage of a kernel's big tensors: float, or 16 bits. float16 and bfloat16 are told apart at run time, so that the kernels
// are compiled twice, not three times.
struct Narrow {
  uint16_t bits;
};
// Loading and widening are separate, so that several loads are in flight before the first result is used.
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
    const int64_t address = l.table[w.j], step = w.dc * l.across, first = (w.c + i * w.dc) * l.across;
    const int valid = address ? w.valid - i : 0;
    const int64_t base = address ? address : some;
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      there[q] = q < valid;
      r.v[q] = load_raw((const T*)(base + (there[q] ? first + q * step : 0)));
    }
  } else {
    const int64_t part = w.c * l.across;
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      const int64_t address = i + q < w.valid ? l.table[w.j + (i + q) * w.dj] : 0;
      there[q] = address;
      r.v[q] = load_raw((const T*)(address ? address + part : some));
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
    const int64_t address = l.table[w.j], step = w.dc * l.across;
    const int valid = address ? w.valid - i : 0;
    int64_t at = address + (w.c + i * w.dc) * l.across;
#pragma unroll
    for (int q = 0; q < 4; ++q, at += step) {
      if (q < valid) store_f32((T*)at, r[q], dtype);
    }
  } else {
    const int64_t part = w.c * l.across;
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      const int64_t address = i + q < w.valid ? l.table[w.j + (i + q) * w.dj] : 0;
      if (address) store_f32((T*)(address + part), r[q], dtype);
    }
  }
}
// Workspace may be f32 beside 16-bit tensors.
template <class T>
BDGF_DEV void store_four(const float (&r)[4], DType dtype, StepAddresses l, const ThreadElements& w, int i) {
  if (sizeof(T) == 4 || dtype == DType::f32) store_four_as<float>(r, dtype, l, w, i);
  else store_four_as<T>(r, dtype, l, w, i);
}

// Whether a tensor is stored as f32: delta may be f32 beside 16-bit tensors, but not the other way round.
template <class T>
BDGF_DEV bool is_wide(const ScanTensor& t) {
  return sizeof(T) == 4 || t.dtype == DType::f32;
}
// Four elements of pair[step][channel] = (delta, u) from their raw values: delta with bias and softplus, and u times silu(z) if
// `gate`, the addresses of z, is not null. With kZero they are (0, 0) where a step or channel does not exist.
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
    pair[j * kTilePitch + c] = inside ? make_float2(d, v) : make_float2(0.0f, 0.0f);
  }
}
// Loads a thread's elements from number `from` on, and finishes them likewise.
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

// A constant B or C, [channel][state]; `permuted`: channel c has state n in place n ^ (c & 3), see selective_scan_bwd.cuh.
BDGF_DEV void fill_constant(float* to, const ScanTensor& t, const BlockWork& b, int split, bool permuted) {
  const int width = kThreadStates * split;
  for (int i = threadIdx.x; i < kTileChannels * width; i += blockDim.x) {
    const int c = i / width, place = i % width, n = permuted ? place ^ (c & 3) : place;
    const bool inside = c < b.channels && n < b.states;
    to[c * kMatrixPitch + place] = inside ? load_parameter(t, (b.channel + c) * t.channel + (b.slice * width + n) * t.state) : 0.0f;
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

// Sums over the `split` lanes of a channel. Before, v[j] is this lane's share of step j, for four steps; after, v[i] of the lane of
// state group s is the sum of step s * (4 / split) + i, for i < 4 / split.
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

}  // namespace BDGF_ISA
}  // namespace bdgf
