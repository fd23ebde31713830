// Selective scan, forward: the shared memory of a block, and how tiles of tensors of any layout are staged (those of dense tensors:
// selective_scan_fwd_dense.cuh). The algorithm is in selective_scan_fwd.cuh.
#pragma once
#include "cuda/selective_scan_dense.cuh"

namespace bdgf {
namespace BDGF_ISA {

constexpr int kFetched = 8;  // elements of delta and of u that a thread holds of the next tile: all of its own where split is 4
enum ForwardTensor { kU, kDelta, kB, kZ, kC, kOut, kForwardTensors };
struct alignas(16) ForwardShared {
  BlockWork work;
  SequencePack pack;
  ByteTensor tensors[kForwardTensors];
  DenseTensor dense[kForwardTensors];
};

// Floats of dynamic shared memory.
static inline size_t forward_shared_floats(int split) {
  return sizeof(ForwardShared) / 4 + 2 * 2 * kForwardTensors * kForwardSteps + 3 * kForwardSteps * kTilePitch +
         2 * kTileChannels * kMatrixPitch + 2 * kTileChannels + kThreadStates * kTileChannels * split;
}

// A variable B or C, [step][state]: kForwardSteps * 4 split / (32 split) elements a thread.
BDGF_DEV ThreadElements state_elements(const ScanTensor& t, int states, int log_split) {
  return thread_elements(along_steps(t, t.state), kLogForward, 2 + log_split, kLogChannels + log_split, states);
}
template <class T>
BDGF_DEV void store_states(float* to, const Raw<T>& raw, DType dtype, const ThreadElements& w) {
#pragma unroll
  for (int q = 0; q < 4; ++q) to[(w.j + q * w.dj) * kMatrixPitch + w.c + q * w.dc] = widened(raw.v[q], dtype);
}

// The first kFetched elements of delta and of u of a thread, as they lie in memory.
template <class T>
struct RawPairs {
  Raw<T> u[kFetched / 4];
  uint32_t delta[kFetched];
};
template <class T>
BDGF_DEV void fetch_pairs(RawPairs<T>& r, const SelectiveScanArgs& a, StepAddresses u, StepAddresses delta,
                          const ThreadElements& w) {
#pragma unroll
  for (int i = 0; i < kFetched; i += 4) {
    if (is_wide<T>(a.delta)) {
      Raw<float> wide;
      load_four_raw(wide, delta, w, i);
#pragma unroll
      for (int q = 0; q < 4; ++q) r.delta[i + q] = __float_as_uint(wide.v[q]);
    } else {
      Raw<Narrow> narrow;
      load_four_raw(narrow, delta, w, i);
#pragma unroll
      for (int q = 0; q < 4; ++q) r.delta[i + q] = narrow.v[q];
    }
    if (a.u.data) load_four_raw(r.u[i / 4], u, w, i);
  }
}
template <class T>
BDGF_DEV void finish_pairs(float2* pair, const RawPairs<T>& r, const SelectiveScanArgs& a, StepAddresses delta, StepAddresses gate,
                           const float* bias, const ThreadElements& w) {
#pragma unroll
  for (int i = 0; i < kFetched; i += 4) {
    float rd[4], ru[4];
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      const uint32_t bits = r.delta[i + q];
      rd[q] = is_wide<T>(a.delta) ? __uint_as_float(bits) : widened((uint16_t)bits, a.delta.dtype);
      ru[q] = a.u.data ? widened(r.u[i / 4].v[q], a.u.dtype) : 0.0f;
    }
    finish_four<T, false>(pair, rd, ru, a, delta, gate, bias, w, i);
  }
}

}  // namespace BDGF_ISA
}  // namespace bdgf
