// The shared memory of the scan's backward kernel (selective_scan_bwd.cuh), and the staging of B and C in it.
#pragma once
#include "cuda/dialect.h"
#include "cuda/selective_scan_tile.cuh"

namespace bdgf {
namespace BDGF_ISA {

constexpr int kOrders = 4;             // of four states
constexpr int kConstantRow = 20;       // pitch of a constant matrix's channels
constexpr int kTermRow = 33;           // pitch of a step's 16 terms of dB, then of dC
constexpr int kChunkGroups = kChunkSteps / kGroupSteps;
// What a thread keeps in shared memory, [..][register]: the states before each group of steps of the chunk, one more (the
// edge: a state or carry at a segment's border), and its sums for constant B and C. The pitch is odd: no bank twice.
constexpr int kEdge = kChunkGroups * kThreadStates, kSumB = kEdge + kThreadStates, kSumC = kSumB + kThreadStates;
static __host__ __device__ constexpr int slots_of(bool constant) { return (constant ? kSumC + kThreadStates : kSumB) + 1; }
enum BackwardTensor { kInU, kInDelta, kInB, kInC, kGradOut, kInZ, kGradU, kGradDelta, kGradZ, kGradB, kGradC, kBackwardTensors };
struct alignas(16) BackwardShared {
  BlockWork work;
  SequencePack pack;
  ByteTensor tensors[kBackwardTensors];
};

static __host__ __device__ __forceinline__ int backward_matrix_row(int split) { return kOrders * kThreadStates * split + 4; }
static __host__ __device__ __forceinline__ int backward_matrix_floats(int split) {
  const int variable = kBackwardSteps * backward_matrix_row(split), constant = kTileChannels * kConstantRow;
  return variable > constant ? variable : constant;
}
// Floats of dynamic shared memory.
static inline size_t backward_shared_floats(int split, bool constant) {
  const int threads = kTileChannels * split;
  return sizeof(BackwardShared) / 4 + 2 * backward_matrix_floats(split) + 2 * kBackwardTensors * kBackwardSteps +
         3 * kBackwardSteps * kRow + 2 * kTileChannels + split * kBackwardSteps * kTermRow + slots_of(constant) * threads;
}

// Constant: [channel][state group][register]. Variable: [step][state group][order][register].
BDGF_DEV void fill_constant_orders(float* to, const ScanTensor& t, const BlockWork& b, int split) {
  const int width = kThreadStates * split;
  for (int i = threadIdx.x; i < kTileChannels * width; i += blockDim.x) {
    const int c = i / width, e = i % width, n = e ^ (c & 3);
    const bool inside = c < b.channels && n < b.states;
    to[c * kConstantRow + e] = inside ? load_parameter(t, (b.channel + c) * t.channel + (b.slice * width + n) * t.state) : 0.0f;
  }
}
// B and C in one go: kBackwardSteps * split quadruples each, one of the two for each half of the threads.
template <class T>
BDGF_DEV void stage_orders(float* tile_b, float* tile_c, const SelectiveScanArgs& a, StepAddresses lines_b, StepAddresses lines_c,
                           bool with_c, int states, int log_split) {
  const int half = kBackwardSteps << log_split, split = 1 << log_split, thread = fresh_thread(), item = thread & (half - 1);
  const bool second = thread >= half;
  if (second ? a.constant_c || !with_c : a.constant_b) return;
  const ScanTensor& t = second ? a.C : a.B;
  const bool along = along_steps(t, t.state);
  const int j = along ? item % kBackwardSteps : item >> log_split, group = along ? item / kBackwardSteps : item & (split - 1);
  const int left = states - group * kThreadStates;
  const ThreadElements w{true, j, group * kThreadStates, 0, 1, left};
  float r[4];
  load_four<T>(r, a.u.dtype, second ? lines_c : lines_b, w, 0);
  float* const step = (second ? tile_c : tile_b) + j * backward_matrix_row(split);
  float4* to = reinterpret_cast<float4*>(step + group * kOrders * kThreadStates);
  to[0] = make_float4(r[0], r[1], r[2], r[3]);
  to[1] = make_float4(r[1], r[0], r[3], r[2]);
  to[2] = make_float4(r[2], r[3], r[0], r[1]);
  to[3] = make_float4(r[3], r[2], r[1], r[0]);
}

// The steps of a tile that a sequence of a pack takes: whole quadruples, whose steps behind the end are empty (delta, u and dy 0).
static __host__ __device__ __forceinline__ int row_slot(int steps) { return (steps + kFoldSteps - 1) / kFoldSteps * kFoldSteps; }

}  // namespace BDGF_ISA
}  // namespace bdgf
