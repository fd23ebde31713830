// Selective scan: tiles of dense tensors, that is of a sequence whose steps are evenly spaced in memory and closer to each other
// than channels and states are, with 9 to 16 states. Their addresses follow from one address for each tensor and segment, where the
// tables of selective_scan_tile.cuh hold one for each step. Without tables the kernels execute 11 to 15 instructions for an
// exponential (forward, 256 to 49 steps, sm_90) in place of 19 to 26, and 40 to 47 (backward) in place of 59 to 71.
//
// Of a tile, a thread takes one step and some channels and states (selective_scan_fwd_dense.cuh, selective_scan_bwd_dense.cuh).
// Where such a step, channel or state does not exist, the last one that does is read in its place, so that no load needs a branch.
#pragma once
#include "cuda/selective_scan_tile.cuh"

namespace bdgf {
namespace BDGF_ISA {

// How a kernel finds its tensors: by tables of addresses, or as dense ones, of packs with one row or with several.
enum ScanLayout { kTables, kDenseRow, kDensePack };

// A tensor of a pack: the address of its first step at the tile's first channel or state, and bytes from one row, from one step,
// and from one channel or state to the next. Kept in shared memory.
struct alignas(16) DenseTensor {
  int64_t first;
  int32_t step, across;
  int64_t row;
};
BDGF_DEV DenseTensor dense_tensor(const ByteTensor& t, const Position& start, bool reversed) {
  const bool by_segment = t.order == kBySegment;
  const int64_t first = by_segment ? start.segment * t.row : start.row * t.row + start.input * t.step;
  return {t.base + first, (int32_t)(reversed && !by_segment ? -t.step : t.step), (int32_t)t.across, t.row};
}
// The tensors of `pack`, one by each of the first threads.
BDGF_DEV void fill_dense(DenseTensor* dense, const ByteTensor* tensors, int count, const ScanCall& call, const BlockWork& b,
                         const SequencePack& pack) {
  const int i = threadIdx.x;
  if (i >= count) return;
  const Position start = position_of(call, b.direction, pack.segment, 0);
  dense[i] = dense_tensor(tensors[i], start, b.direction.reversed);
}

// Where a thread reads and writes: a step of a row of the pack; whether they exist, or stand for others.
struct DensePlace {
  int row, step;
  bool exists;
};
// What a thread reads or writes of a tensor in a tile: one step of several channels or states. An address takes one multiplication.
template <class T>
struct DenseColumn {
  const char* column;
  int across, most;  // bytes; the last channel or state that exists

  // `many` channels or states exist.
  BDGF_DEV_METHOD DenseColumn(const DenseTensor& t, const DensePlace& at, int many)
      : column((const char*)t.first + (int64_t)at.step * t.step), across(t.across), most(many - 1) {
    if (at.row > 0) column += at.row * t.row;
#ifdef __CUDA_ARCH__
    asm("" : "+l"(this->column));  // else the compiler adds the first address to every other one, instead of once
#endif
  }
  BDGF_DEV_METHOD T* at(int number) const { return (T*)(column + (int64_t)smaller(number, most) * across); }
};

// Whether a tensor is dense, or absent; `across`: its stride of channels or states.
static inline bool lies_dense(const ScanTensor& t, int64_t across) {
  const auto size = [](int64_t v) { return v < 0 ? -v : v; };
  return !t.data || (size(t.step) <= size(across) && size(across) < 1 << 29);  // so that both fit in 32 bits, in bytes
}
// Whether a call is one scan of sequences with 9 to 16 states, variable B and C, and dense inputs of one type. The launchers
// ask about its outputs.
static inline bool inputs_dense(const ScanCall& call) {
  const SelectiveScanArgs& a = call.a;
  if (a.width || a.length >= 1 << 30 || call.g.split != kMostSplit || call.g.direction_slices > 1 || a.constant_b || a.constant_c) {
    return false;
  }
  for (const ScanTensor* t : {&a.delta, &a.z, &a.B, &a.C, &a.grad_out}) {
    if (t->data && t->dtype != a.u.dtype) return false;
  }
  return lies_dense(a.u, a.u.channel) && lies_dense(a.delta, a.delta.channel) && lies_dense(a.z, a.z.channel) &&
         lies_dense(a.B, a.B.state) && lies_dense(a.C, a.C.state) && lies_dense(a.grad_out, a.grad_out.channel);
}

}  // namespace BDGF_ISA
}  // namespace bdgf
