// Selective scan, forward: how tiles of dense tensors are loaded and stored, that is of a sequence whose steps lie next to each
// other in memory, with 9 to 16 states. Their addresses follow from a few strides, without the tables of selective_scan_tile.cuh.
// So the kernel executes 11 to 15 instructions for an exponential on sm_90 (256 to 49 steps), with tables 19 to 26.
//
// Of a tile, a thread takes one step (its lane) and every fourth channel and state, from the number of its warp on. Where such a
// step, channel or state does not exist, the last one that does is read in its place, so that no load needs a branch. B and C of a
// state that does not exist are set to 0; of a step or channel that does not exist nothing is stored.
#pragma once
#include "cuda/dialect.h"
#include "cuda/selective_scan_tile.cuh"

namespace bdgf {
namespace BDGF_ISA {

// Whether the launch of `call` may take the dense kernel.
static inline bool is_dense(const ScanCall& call) {
  const SelectiveScanArgs& a = call.a;
  const auto dense = [&](const ScanTensor& t, int64_t across) {
    return !t.data || (t.dtype == a.u.dtype && t.step == 1 && across >= 0 && across < (int64_t)1 << 29);
  };
  const bool one_row_a_tile = a.length > kForwardSteps / 2 && a.length < 1 << 30;  // and step numbers of 32 bits
  return a.width == 0 && a.directions == 1 && one_row_a_tile && call.g.split == kMostSplit && !call.out.partial && !a.constant_b &&
         !a.constant_c && dense(a.u, a.u.channel) && dense(a.delta, a.delta.channel) && dense(a.z, a.z.channel) &&
         dense(a.B, a.B.state) && dense(a.C, a.C.state) && dense(call.out.t, call.out.t.channel);
}

// What a thread reads or writes of a tensor in a tile: one step of every fourth channel or state. Addresses are in bytes, so that
// each takes a single multiplication.
template <class T>
struct DenseColumn {
  const char* step;  // the step of the first channel or state
  int stride, most;  // bytes from one channel or state to the next; the last one that exists

  BDGF_DEV_METHOD DenseColumn(const char* row, int step, int64_t stride, int many)
      : step(row + (int64_t)step * (int)sizeof(T)), stride((int)stride * (int)sizeof(T)), most(many - 1) {
#ifdef __CUDA_ARCH__
    asm("" : "+l"(this->step));  // else the compiler adds the row to every address, instead of once
#endif
  }
  BDGF_DEV_METHOD T* at(int number) const { return (T*)(step + (int64_t)smaller(number, most) * stride); }
};

template <class T>
struct DenseTiles {
  static constexpr int kElements = kTileChannels / kMostSplit;  // channels of a thread
  const char *u, *delta, *z, *B, *C, *out;  // the first step of the segment, of the tile's first channel or of the first state
  int sign;                                 // -1: from the last step to the first
  int steps;                                // of the segment
  Raw<T> raw_u[kElements / 4], raw_delta[kElements / 4], raw_b, raw_c;  // of the next tile

  // Sets the pointers to where the segment of `pack` begins.
  BDGF_DEV_METHOD void open(const ScanCall& call, const BlockWork& b, const SequencePack& pack) {
    const SelectiveScanArgs& a = call.a;
    const Position p = position_of(call, b.direction, pack.segment, 0);
    const auto at = [&](const ScanTensor& t, int64_t across) {
      return (const char*)t.data + (p.row * t.batch + across + p.input) * (int)sizeof(T);
    };
    u = at(a.u, b.channel * a.u.channel);
    delta = at(a.delta, b.channel * a.delta.channel);
    z = at(a.z, b.channel * a.z.channel);
    B = at(a.B, b.group_b * a.B.group);
    C = at(a.C, b.group_c * a.C.group);
    out = at(call.out.t, b.channel * call.out.t.channel);
    sign = b.direction.reversed ? -1 : 1;
    steps = (int)pack.steps;
  }
  // This thread's step of the tile from step `first` on.
  BDGF_DEV_METHOD int step(int first) const { return sign * smaller(first + fresh_thread() % 32, steps - 1); }
  // The number of its element i in the other axis.
  BDGF_DEV_METHOD static int number(int i) { return fresh_thread() / 32 + i * kMostSplit; }

  // Starts loading the tile at step `first`.
  BDGF_DEV_METHOD void fetch(const SelectiveScanArgs& a, const BlockWork& b, int first) {
    const int step = this->step(first);
    const DenseColumn<T> in_b(B, step, a.B.state, b.states), in_c(C, step, a.C.state, b.states);
    const DenseColumn<T> in_u(u, step, a.u.channel, b.channels), in_delta(delta, step, a.delta.channel, b.channels);
    const int number = this->number(0);
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      raw_b.v[q] = load_raw(in_b.at(number + q * kMostSplit));
      raw_c.v[q] = load_raw(in_c.at(number + q * kMostSplit));
    }
#pragma unroll
    for (int i = 0; i < kElements; ++i) {
      raw_delta[i / 4].v[i % 4] = load_raw(in_delta.at(number + i * kMostSplit));
      raw_u[i / 4].v[i % 4] = load_raw(in_u.at(number + i * kMostSplit));
    }
  }
  // Moves what fetch() loaded into shared memory.
  BDGF_DEV_METHOD void stage(const SelectiveScanArgs& a, const BlockWork& b, float2* pair, float* tile_b, float* tile_c,
                             const float* bias) const {
    const int j = fresh_thread() % 32, number = this->number(0), left = b.states - number;
    float d[kElements];
#pragma unroll
    for (int i = 0; i < kElements; ++i) d[i] = widened(raw_delta[i / 4].v[i % 4], a.u.dtype) + bias[number + i * kMostSplit];
    if (a.softplus) {
#pragma unroll
      for (int i = 0; i < kElements; ++i) d[i] = scan_softplus<ScanMath>(d[i]);
    }
    float2* const pairs = pair + j * kRow + number;
#pragma unroll
    for (int i = 0; i < kElements; ++i) pairs[i * kMostSplit] = make_float2(d[i], widened(raw_u[i / 4].v[i % 4], a.u.dtype));
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      const int at = j * kMatrixRow + number + q * kMostSplit;
      tile_b[at] = q * kMostSplit < left ? widened(raw_b.v[q], a.u.dtype) : 0.0f;
      tile_c[at] = q * kMostSplit < left ? widened(raw_c.v[q], a.u.dtype) : 0.0f;
    }
  }
  // out = (y + D u) silu(z) of a scanned tile.
  BDGF_DEV_METHOD void store(const ScanCall& call, const BlockWork& b, int first, const float2* pair, const float* tile_y,
                             const float* skip) const {
    const SelectiveScanArgs& a = call.a;
    const int j = fresh_thread() % 32, number = this->number(0), e = j * kRow + number;
    const int step = this->step(first);
    float value[kElements];
#pragma unroll
    for (int i = 0; i < kElements; ++i) {
      value[i] = fmaf(skip[number + i * kMostSplit], pair[e + i * kMostSplit].y, tile_y[e + i * kMostSplit]);
    }
    if (a.z.data) {
      const DenseColumn<T> in_z(z, step, a.z.channel, b.channels);
#pragma unroll
      for (int i = 0; i < kElements; ++i) {
        value[i] *= ScanMath::silu(widened(load_raw(in_z.at(number + i * kMostSplit)), a.u.dtype));
      }
    }
    if (first + j >= steps) return;
    const DenseColumn<T> to(out, step, call.out.t.channel, b.channels);
#pragma unroll
    for (int i = 0; i < kElements; ++i) {
      if (number + i * kMostSplit <= to.most) store_f32(to.at(number + i * kMostSplit), value[i], a.u.dtype);
    }
  }
};

}  // namespace BDGF_ISA
}  // namespace bdgf
