// Selective scan, backward: the shared memory and the registers of a block, and the phases that stage a tile of inputs and store a
// tile of gradients. The algorithm is in selective_scan_bwd.cuh.
#pragma once
#include "cuda/dialect.h"
#include "cuda/selective_scan_dense.cuh"
#include "cuda/selective_scan_launch.h"
#include "cuda/selective_scan_tile.cuh"

namespace bdgf {
namespace BDGF_ISA {

constexpr int kOrders = 4;             // in which B and C of four states are staged: i ^ 0 ... i ^ 3
constexpr int kTermPitch = 33;           // pitch of a step's 16 terms of dB, then of dC
constexpr int kChunkGroups = kChunkSteps / kGroupSteps;
// What a thread keeps in shared memory, [..][register]: the states before each group of steps of the chunk, four floats of scratch
// (the edge: through it loops that are not unrolled read and write A, dA and the states at a segment's border, because registers
// cannot be indexed at run time), and its sums for constant B and C. The pitch is odd, so that the threads of a warp use different
// banks.
constexpr int kScratch = kChunkGroups * kThreadStates, kSumB = kScratch + kThreadStates, kSumC = kSumB + kThreadStates;
static __host__ __device__ constexpr int slots_of(bool constant) { return (constant ? kSumC + kThreadStates : kSumB) + 1; }
enum BackwardTensor { kInU, kInDelta, kInB, kInC, kGradOut, kInZ, kGradU, kGradDelta, kGradZ, kGradB, kGradC, kBackwardTensors };
struct alignas(16) BackwardShared {
  BlockWork work;
  SequencePack pack;
  ByteTensor tensors[kBackwardTensors];
  DenseTensor dense[kBackwardTensors];
};

static __host__ __device__ __forceinline__ int backward_matrix_pitch(int split) { return kOrders * kThreadStates * split + 4; }
static __host__ __device__ __forceinline__ int backward_matrix_floats(int split) {
  const int variable = kBackwardSteps * backward_matrix_pitch(split), constant = kTileChannels * kMatrixPitch;
  return variable > constant ? variable : constant;
}
// Floats of dynamic shared memory.
static inline size_t backward_shared_floats(int split, bool constant) {
  const int threads = kTileChannels * split;
  return sizeof(BackwardShared) / 4 + 2 * backward_matrix_floats(split) + 2 * kBackwardTensors * kBackwardSteps +
         3 * kBackwardSteps * kTilePitch + 2 * kTileChannels + split * kBackwardSteps * kTermPitch + slots_of(constant) * threads;
}

// The steps of a tile that a sequence of a pack takes: a multiple of four; steps after its end are empty (delta, u and dy are 0).
static __host__ __device__ __forceinline__ int row_slot(int steps) { return (steps + kFoldSteps - 1) / kFoldSteps * kFoldSteps; }

// B or C of four states at a step.
struct StateQuad {
  float v[kThreadStates];
};
BDGF_DEV StateQuad load_quad(const float* p) {
  const float4 f = *reinterpret_cast<const float4*>(p);
  return {{f.x, f.y, f.z, f.w}};
}
// What four steps of the adjoint leave in a thread, before it is summed over lanes. `term` belongs to the dB or dC of one state
// (see step_back).
struct FourSteps {
  float grad_delta_decay[kFoldSteps], grad_drive[kFoldSteps], y[kFoldSteps], term[kFoldSteps];
};

// What a thread of the kernel works with, and the phases of its work. All threads of a block call the same phases.
// kConstant: B or C is constant. kLayout: see selective_scan_dense.cuh.
template <class T, bool kConstant, ScanLayout kLayout>
struct BackwardScan {
  const ScanCall& call;
  const SelectiveScanArgs& a;
  BackwardShared& block;
  const BlockWork& b;
  const SequencePack& pack;
  const int thread, threads, lane, split, log_split, matrix_pitch;
  float* const tile_b;    // variable [step][state group][order][register], or constant
  float* const tile_c;
  int64_t* const tables;  // [tensor][step]: addresses
  float2* const pair;     // [step][kTilePitch]: (delta, u), then (ddelta, du)
  float* const tile_g;    // [step][kTilePitch]: dy, then y where there is a gate
  float* const bias;      // [channel]
  float* const skip;      // [channel]: D
  float* const terms;     // [warp][step][kTermPitch]: of dB, then of dC
  float* const kept;      // this thread's, see slots_of
  const int own;          // 4 / split: after fold_steps this lane holds the sums of that many of four steps
  const int lanes;        // of a warp, that hold one group of four states
  const int s, c, permutation;  // the group of states and the channel of this thread, and which permutation its registers have
  const float *const b_mine, *const c_mine;  // this thread's states of B and C, at b_pitch and c_pitch floats a step
  const int b_pitch, c_pitch;
  const bool gated;
  const int elements;     // of a tile, that this thread stages
  float A2[kThreadStates], grad_A[kThreadStates], carry[kThreadStates];
  float sum_D = 0.0f, sum_bias = 0.0f;
  // A group of steps, recorded: the decays, and the states after each step.
  float decay[kGroupSteps][kThreadStates], x[kGroupSteps][kThreadStates];

  BDGF_DEV_METHOD BackwardScan(const ScanCall& given, float* shared)
      : call(given),
        a(given.a),
        block(*reinterpret_cast<BackwardShared*>(shared)),
        b(block.work),
        pack(block.pack),
        thread(threadIdx.x),
        threads(blockDim.x),
        lane(thread % 32),
        split(kLayout != kTables ? kMostSplit : given.g.split),
        log_split(kLayout != kTables ? kMostLogSplit : given.g.log_split),
        matrix_pitch(backward_matrix_pitch(split)),
        tile_b(shared + sizeof(BackwardShared) / 4),
        tile_c(tile_b + backward_matrix_floats(split)),
        tables(reinterpret_cast<int64_t*>(tile_c + backward_matrix_floats(split))),
        pair(reinterpret_cast<float2*>(tables + kBackwardTensors * kBackwardSteps)),
        tile_g(reinterpret_cast<float*>(pair + kBackwardSteps * kTilePitch)),
        bias(tile_g + kBackwardSteps * kTilePitch),
        skip(bias + kTileChannels),
        terms(skip + kTileChannels),
        kept(terms + split * kBackwardSteps * kTermPitch + thread * slots_of(kConstant)),
        own(split == 1 ? 4 : split == 2 ? 2 : 1),
        lanes(8 * own),
        s(lane / lanes),
        c(thread / 32 * lanes + lane % lanes),
        permutation(lane & 3),
        b_mine(tile_b + first_of(given.a.constant_b)),
        c_mine(tile_c + first_of(given.a.constant_c)),
        b_pitch(kConstant && given.a.constant_b ? 0 : matrix_pitch),
        c_pitch(kConstant && given.a.constant_c ? 0 : matrix_pitch),
        gated(given.a.z.data != nullptr),
        elements(kBackwardSteps >> log_split) {}

  BDGF_DEV_METHOD int first_of(bool constant) const {
    return kConstant && constant ? c * kMatrixPitch + s * kThreadStates : (s * kOrders + permutation) * kThreadStates;
  }
  BDGF_DEV_METHOD StepAddresses addresses(int tensor) const {
    return {tables + tensor * kBackwardSteps, block.tensors[tensor].across};
  }
  // Register i stands for state s * 4 + (i ^ permutation) of the slice: the number of that state in the slice and among all, and
  // whether it exists. Only code that runs rarely asks, so these are computed again each time.
  BDGF_DEV_METHOD int in_slice(int i) const { return fresh_thread() % 32 / lanes * kThreadStates + (i ^ (fresh_thread() & 3)); }
  BDGF_DEV_METHOD int64_t state(int i) const { return b.slice * kThreadStates * split + in_slice(i); }
  BDGF_DEV_METHOD bool exists(int i) const { return c < b.channels && in_slice(i) < b.states; }

  // Goes to pack `index` of the block; false after the last one.
  BDGF_DEV_METHOD bool next_pack(int index) {
    __syncthreads();
    if (thread == 0) block.pack = pack_of(call, b.block, index);
    __syncthreads();
    if constexpr (kLayout != kTables) fill_dense(block.dense, block.tensors, kBackwardTensors, call, b, pack);
    return pack.rows > 0;
  }
  BDGF_DEV_METHOD bool packed() const { return kLayout != kDenseRow && pack.rows > 1; }
  // The last chunk of the pack, and the steps of a chunk; for a pack of sequences, the steps that they take in the tile.
  BDGF_DEV_METHOD int last_chunk() const { return packed() ? 0 : (int)((pack.steps - 1) / kChunkSteps); }
  BDGF_DEV_METHOD int steps_of_chunk(int chunk) const {
    const int64_t rest = pack.steps - (int64_t)chunk * kChunkSteps;
    return packed() ? pack.rows * row_slot((int)pack.steps) : rest < kChunkSteps ? (int)rest : kChunkSteps;
  }

  BDGF_DEV_METHOD ThreadElements elements_of_tile() const {
    const bool along = along_steps(a.u, a.u.channel);
    return thread_elements(along, kLogBackward, kLogChannels, kLogChannels + log_split, b.channels);
  }
  BDGF_DEV_METHOD static int element(const ThreadElements& w, int i) { return (w.j + i * w.dj) * kTilePitch + w.c + i * w.dc; }

  // The phases. Of a block and a tile, in this file:
  BDGF_DEV_METHOD void start();
  BDGF_DEV_METHOD void list_tensors();
  BDGF_DEV_METHOD void stage(int64_t first, int count, bool inputs, bool adjoint_too);
  BDGF_DEV_METHOD void stage_grad_y(const ThreadElements& w);
  BDGF_DEV_METHOD void store_tile(int64_t first, int count);
  template <class Value>
  BDGF_DEV_METHOD void store_elements(const ScanTarget& o, int tensor, const ThreadElements& w, const Value& value);
  BDGF_DEV_METHOD void store_grad_z(const ThreadElements& w);
  BDGF_DEV_METHOD void store_terms(const ScanTarget& o, int tensor, int first);
  BDGF_DEV_METHOD void store_sums();

  // Of a tile of dense tensors, in selective_scan_bwd_dense.cuh:
  BDGF_DEV_METHOD void stage_dense(int first, int count, bool inputs, bool adjoint_too);
  BDGF_DEV_METHOD void store_dense(int first, int count);
  BDGF_DEV_METHOD DensePlace dense_place(int j, int first, int count) const;
  BDGF_DEV_METHOD void store_dense_terms(const ScanTarget& o, const DenseTensor& to, const DensePlace& at, const float* mine);

  // Of the recurrence and its adjoint, in selective_scan_bwd.cuh:
  BDGF_DEV_METHOD int keep_states(int chunk, int steps);
  BDGF_DEV_METHOD void record(int t, int j, const float* before);
  BDGF_DEV_METHOD void tile_back(int chunk, int tile, int count);
  BDGF_DEV_METHOD void load_borders(int64_t segment);
  BDGF_DEV_METHOD void store_grad_initial(int64_t segment);
  BDGF_DEV_METHOD void four_back(int t, int from, int n, const float* before);
  BDGF_DEV_METHOD void recompute_y(FourSteps& f, int at, int from);
  BDGF_DEV_METHOD void step_back(FourSteps& f, int i, int t, int j, const float* before);
  BDGF_DEV_METHOD void fold_terms(FourSteps& f, int at);
  BDGF_DEV_METHOD void finish_gradients(FourSteps& f, int t, int from, int n);
};

// -------------------------------------------------------------------------------------------- staging
// B or C of four states at a step, in all orders: [state group][order][register].
BDGF_DEV void store_orders(float* to, const float (&r)[kThreadStates]) {
  float4* const orders = reinterpret_cast<float4*>(to);
  orders[0] = make_float4(r[0], r[1], r[2], r[3]);
  orders[1] = make_float4(r[1], r[0], r[3], r[2]);
  orders[2] = make_float4(r[2], r[3], r[0], r[1]);
  orders[3] = make_float4(r[3], r[2], r[1], r[0]);
}
// Stages B and C at once: half of the threads take B, half take C, each the four states of one (step, state group).
template <class T>
BDGF_DEV void stage_orders(float* tile_b, float* tile_c, const SelectiveScanArgs& a, StepAddresses in_b, StepAddresses in_c,
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
  load_four<T>(r, a.u.dtype, second ? in_c : in_b, w, 0);
  float* const step = (second ? tile_c : tile_b) + j * backward_matrix_pitch(split);
  store_orders(step + group * kOrders * kThreadStates, r);
}

// Sets up the block's work, and loads A and whatever else does not depend on the step.
template <class T, bool kConstant, ScanLayout kLayout>
BDGF_DEV_METHOD void BackwardScan<T, kConstant, kLayout>::start() {
  if (thread == 0) list_tensors();
  __syncthreads();
#pragma unroll 1
  for (int i = 0; i < kThreadStates; ++i) {
    const int64_t at = b.k * a.A.direction + (b.channel + c) * a.A.channel + state(i) * a.A.state;
    kept[kScratch + i] = exists(i) ? load_parameter(a.A, at) : 0.0f;
    if (kConstant) kept[kSumB + i] = kept[kSumC + i] = 0.0f;
  }
#pragma unroll
  for (int i = 0; i < kThreadStates; ++i) {
    A2[i] = kept[kScratch + i] * kScanLog2E;
    grad_A[i] = carry[i] = 0.0f;
  }
  fill_vectors(bias, skip, a, b);
  if (a.constant_b) fill_constant(tile_b, a.B, b, split, true);
  if (a.constant_c) fill_constant(tile_c, a.C, b, split, true);
}
template <class T, bool kConstant, ScanLayout kLayout>
BDGF_DEV_METHOD void BackwardScan<T, kConstant, kLayout>::list_tensors() {
  const BlockWork mine = block_work(call);
  block.work = mine;
  block.tensors[kInU] = input_tensor(a.u, mine);
  block.tensors[kInDelta] = delta_tensor(a, mine);
  block.tensors[kInB] = matrix_tensor(a.B, mine, mine.group_b, split);
  block.tensors[kInC] = matrix_tensor(a.C, mine, mine.group_c, split);
  block.tensors[kGradOut] = input_tensor(a.grad_out, mine);
  block.tensors[kInZ] = input_tensor(a.z, mine);
  block.tensors[kGradU] = target_tensor(call.grad_u, mine, kByInput);
  block.tensors[kGradDelta] = target_tensor(call.grad_delta, mine, a.shared_delta ? kByInput : kByParameter);
  block.tensors[kGradZ] = target_tensor(call.grad_z, mine, kByInput);
  block.tensors[kGradB] = matrix_target_tensor(call.grad_B, mine, mine.group_b, split);
  block.tensors[kGradC] = matrix_target_tensor(call.grad_C, mine, mine.group_c, split);
}

// Stages the tile from step `first` of the pack on: its addresses, delta and u (if `inputs`), B, and C and dy for the adjoint (if
// `adjoint_too`).
template <class T, bool kConstant, ScanLayout kLayout>
BDGF_DEV_METHOD void BackwardScan<T, kConstant, kLayout>::stage(int64_t first, int count, bool inputs, bool adjoint_too) {
  if constexpr (kLayout != kTables) return stage_dense((int)first, count, inputs, adjoint_too);
  __syncthreads();  // the tile before is done with
  {
    const int filler = fresh_thread(), j = filler % kBackwardSteps, slot = row_slot((int)pack.steps);
    const int r = packed() ? j / slot : 0;
    const int64_t step = first + j - r * slot;
    const bool inside = packed() ? r < pack.rows && step < pack.steps : j < count;
    const Position p = position_of(call, b.direction, inside ? pack.segment + r : pack.segment, inside ? step : 0);
    fill_tables(tables, kBackwardSteps, j, block.tensors, filler / kBackwardSteps, threads / kBackwardSteps,
                adjoint_too ? kBackwardTensors : kInC, inside, p);
  }
  __syncthreads();
  const ThreadElements w = elements_of_tile();
  if (inputs) stage_pairs<T, true>(pair, a, addresses(kInU), addresses(kInDelta), StepAddresses{}, bias, w, 0, elements);
  stage_orders<T>(tile_b, tile_c, a, addresses(kInB), addresses(kInC), adjoint_too, b.states, log_split);
  if (adjoint_too) stage_grad_y(w);
  __syncthreads();
}
// dy = dout silu(z).
template <class T, bool kConstant, ScanLayout kLayout>
BDGF_DEV_METHOD void BackwardScan<T, kConstant, kLayout>::stage_grad_y(const ThreadElements& w) {
#pragma unroll 1
  for (int i = 0; i < elements; i += 4) {
    float gy[4] = {}, z[4];
    if (a.grad_out.data) load_four<T>(gy, a.grad_out.dtype, addresses(kGradOut), w, i);
    if (gated) load_four<T>(z, a.z.dtype, addresses(kInZ), w, i);
#pragma unroll
    for (int q = 0; q < 4; ++q) tile_g[element(w, i + q)] = gated ? gy[q] * ScanMath::silu(z[q]) : gy[q];
  }
}

// -------------------------------------------------------------------------------------------- storing
template <class T, bool kConstant, ScanLayout kLayout>
BDGF_DEV_METHOD void BackwardScan<T, kConstant, kLayout>::store_tile(int64_t first, int count) {
  if constexpr (kLayout != kTables) return store_dense((int)first, count);
  const ThreadElements w = elements_of_tile();
  store_elements(call.grad_delta, kGradDelta, w, [&](int e) { return pair[e].x; });
  store_elements(call.grad_u, kGradU, w, [&](int e) { return pair[e].y; });
  if (call.grad_z.partial) {  // y itself: the gate needs the sum of the partial results
    store_elements(call.grad_z, kGradZ, w, [&](int e) { return tile_g[e]; });
  } else if (call.grad_z.t.data) {
    store_grad_z(w);
  }
  store_terms(call.grad_B, kGradB, 0);
  store_terms(call.grad_C, kGradC, 16);
}
template <class T, bool kConstant, ScanLayout kLayout>
template <class Value>
BDGF_DEV_METHOD void BackwardScan<T, kConstant, kLayout>::store_elements(const ScanTarget& o, int tensor, const ThreadElements& w,
                                                                  const Value& value) {
  if (!o.t.data) return;
#pragma unroll 1
  for (int i = 0; i < elements; i += 4) {
    float r[4];
#pragma unroll
    for (int q = 0; q < 4; ++q) r[q] = value(element(w, i + q));
    store_four<T>(r, o.t.dtype, addresses(tensor), w, i);
  }
}
// dz = dout y silu'(z).
template <class T, bool kConstant, ScanLayout kLayout>
BDGF_DEV_METHOD void BackwardScan<T, kConstant, kLayout>::store_grad_z(const ThreadElements& w) {
#pragma unroll 1
  for (int i = 0; i < elements; i += 4) {
    float r[4], z[4], gy[4] = {};
    load_four<T>(z, a.z.dtype, addresses(kInZ), w, i);
    if (a.grad_out.data) load_four<T>(gy, a.grad_out.dtype, addresses(kGradOut), w, i);
#pragma unroll
    for (int q = 0; q < 4; ++q) r[q] = gy[q] * tile_g[element(w, i + q)] * scan_silu_slope<ScanMath>(z[q]);
    store_four<T>(r, call.grad_z.t.dtype, addresses(kGradZ), w, i);
  }
}
// dB or dC of the tile: the sums over the warps.
template <class T, bool kConstant, ScanLayout kLayout>
BDGF_DEV_METHOD void BackwardScan<T, kConstant, kLayout>::store_terms(const ScanTarget& o, int tensor, int first) {
  if (!o.t.data) return;
  const bool along = along_steps(o.t, o.t.state);
  ThreadElements v = thread_elements(along, kLogBackward, 2 + log_split, kLogChannels + log_split, b.states);
  v.valid = smaller(v.valid, 2);  // kBackwardSteps * 4 split / (32 split) elements a thread
  float r[4] = {};
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll 1
    for (int warp = 0; warp < split; ++warp) {
      r[i] += terms[(warp * kBackwardSteps + v.j + i * v.dj) * kTermPitch + first + v.c + i * v.dc];
    }
  }
  store_four<T>(r, o.t.dtype, addresses(tensor), v, 0);
}
// Stores dA, dB and dC where constant, dD and d(delta_bias), summed over the block's rows, in the block's part of call.sums.
template <class T, bool kConstant, ScanLayout kLayout>
BDGF_DEV_METHOD void BackwardScan<T, kConstant, kLayout>::store_sums() {
#pragma unroll 1
  for (int by = lanes; by < 32; by *= 2) {
    sum_D += __shfl_xor_sync(0xffffffffu, sum_D, by);
    sum_bias += __shfl_xor_sync(0xffffffffu, sum_bias, by);
  }
#pragma unroll
  for (int i = 0; i < kThreadStates; ++i) kept[kScratch + i] = grad_A[i];
  if (c >= b.channels) return;
  const SumLayout l = sum_layout(call);
  float* const sums = call.sums + b.block * l.all;
  const int64_t row = b.direction_slice * a.dim + b.channel + c;
#pragma unroll 1
  for (int i = 0; i < kThreadStates; ++i) {
    const int64_t at = row * l.matrix + in_slice(i);
    sums[at] = kept[kScratch + i];
    if (kConstant && a.constant_b) sums[l.b + at] = kept[kSumB + i];
    if (kConstant && a.constant_c) sums[l.c + at] = kept[kSumC + i];
  }
  if (s == 0) {
    sums[l.skip + row] = sum_D;
    sums[l.bias + row] = sum_bias;
  }
}

}  // namespace BDGF_ISA
}  // namespace bdgf
