// Selective scan, backward. Nothing of the forward is kept. A segment is taken chunk by chunk from its end: the states
// before every eight steps of the chunk are computed again and kept in shared memory; then, tile by tile and eight steps
// by eight, decays and states are computed once more into registers and the recurrence is run backwards on them. The
// states before the chunks come from call.starts (selective_scan_fwd.cuh).
//
// dB and dC sum over channels: over the 8 to 32 channels of a warp by shuffles, over the warps of the tile through
// shared memory, over tiles by selective_scan_sum.cuh, always in the same order. Lane bits 0 and 1 permute the states
// that a thread's registers stand for (register i: state i ^ (lane & 3)), so that each of the first two exchanges keeps
// registers and sends registers that are the same for all lanes, without a select; B and C are staged in all four orders.
// What sums over rows (dA, dD, ...) is summed over the block's rows and left in call.sums.
//
// Instructions per (element, state), inner loops: at least 4 for each of the two times that the state is computed and 8 for
// the adjoint, 16; executed on sm_90 5.4, 5.9 and, with the sums over channels and states, 11.4.
#pragma once
#include "cuda/dialect.h"
#include "cuda/selective_scan_launch.h"

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
  BlockWork block;
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

// kConstant: B or C is.
template <class T, bool kConstant>
__global__ void __launch_bounds__(kMostThreads, 3) selective_scan_backward_kernel(const ScanCall call) {
  BDGF_THREADS(kMostThreads);
  BDGF_DYNAMIC_SHARED(float, shared);
  const SelectiveScanArgs& a = call.a;
  const int thread = threadIdx.x, threads = blockDim.x, lane = thread % 32, split = call.g.split, log_split = call.g.log_split;
  const int matrix_row = backward_matrix_row(split);
  BackwardShared& block = *reinterpret_cast<BackwardShared*>(shared);
  const BlockWork& b = block.block;
  const SequencePack& pack = block.pack;
  float* const tile_b = shared + sizeof(BackwardShared) / 4;
  float* const tile_c = tile_b + backward_matrix_floats(split);
  int64_t* const tables = reinterpret_cast<int64_t*>(tile_c + backward_matrix_floats(split));
  float2* const pair = reinterpret_cast<float2*>(tables + kBackwardTensors * kBackwardSteps);  // (delta, u), then (d delta, d u)
  float* const tile_g = reinterpret_cast<float*>(pair + kBackwardSteps * kRow);                // d y, then y where there is a gate
  float* const bias = tile_g + kBackwardSteps * kRow;
  float* const skip = bias + kTileChannels;
  float* const terms = skip + kTileChannels;  // [warp][step][kTermRow]
  float* const kept = terms + split * kBackwardSteps * kTermRow + thread * slots_of(kConstant);
  const auto addresses = [&](int tensor) { return StepAddresses{tables + tensor * kBackwardSteps, block.tensors[tensor].across}; };

  if (thread == 0) {
    const BlockWork mine = block_work(call);
    block.block = mine;
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
  __syncthreads();
  const int own = split == 1 ? 4 : split == 2 ? 2 : 1;  // steps of a fold that end up with this lane
  const int lanes = 8 * own, s = lane / lanes, c = thread / 32 * lanes + lane % lanes, order = lane & 3;
  // Register i stands for state s * 4 + (i ^ order) of the slice. For code that runs rarely, and therefore computed again each time.
  const auto in_slice = [&](int i) { return fresh_thread() % 32 / lanes * kThreadStates + (i ^ (fresh_thread() & 3)); };
  const auto state = [&](int i) { return b.slice * kThreadStates * split + in_slice(i); };
  const auto exists = [&](int i) { return c < b.channels && in_slice(i) < b.states; };
#pragma unroll 1
  for (int i = 0; i < kThreadStates; ++i) {
    const int64_t at = b.k * a.A.direction + (b.channel + c) * a.A.channel + state(i) * a.A.state;
    kept[kEdge + i] = exists(i) ? load_parameter(a.A, at) : 0.0f;
    if (kConstant) kept[kSumB + i] = kept[kSumC + i] = 0.0f;
  }
  float A2[kThreadStates], grad_A[kThreadStates], adjoint[kThreadStates], to_skip = 0.0f, to_bias = 0.0f;
#pragma unroll
  for (int i = 0; i < kThreadStates; ++i) {
    A2[i] = kept[kEdge + i] * kScanLog2E;
    grad_A[i] = adjoint[i] = 0.0f;
  }
  fill_vectors(bias, skip, a, b);
  if (a.constant_b) fill_constant_orders(tile_b, a.B, b, split);
  if (a.constant_c) fill_constant_orders(tile_c, a.C, b, split);
  const int constant_at = c * kConstantRow + s * kThreadStates, variable_at = (s * kOrders + order) * kThreadStates;
  const float* const b_mine = tile_b + (kConstant && a.constant_b ? constant_at : variable_at);
  const float* const c_mine = tile_c + (kConstant && a.constant_c ? constant_at : variable_at);
  const int b_pitch = kConstant && a.constant_b ? 0 : matrix_row, c_pitch = kConstant && a.constant_c ? 0 : matrix_row;
  const bool along = along_steps(a.u, a.u.channel), gated = a.z.data != nullptr;
  const int elements = kBackwardSteps >> log_split;

  // The tile from step `first` of the pack: its tables, delta and u, B, and (`adjoint_too`) what the adjoint needs.
  const auto stage = [&](int64_t first, int count, bool inputs, bool adjoint_too) __attribute__((always_inline)) {
    __syncthreads();  // the tile before is done with
    {
      const int filler = fresh_thread(), j = filler % kBackwardSteps, slot = row_slot((int)pack.steps);
      const int r = pack.rows > 1 ? j / slot : 0;
      const int64_t local = first + j - r * slot;
      const bool inside = pack.rows > 1 ? r < pack.rows && local < pack.steps : j < count;
      const Position p = position_of(call, b.way, inside ? pack.segment + r : pack.segment, inside ? local : 0);
      fill_tables(tables, kBackwardSteps, j, block.tensors, filler / kBackwardSteps, threads / kBackwardSteps,
                  adjoint_too ? kBackwardTensors : kInC, inside, p);
    }
    __syncthreads();
    const ThreadElements w = thread_elements(along, kLogBackward, kLogChannels, kLogChannels + log_split, b.channels);
    if (inputs) stage_pairs<T, true>(pair, a, addresses(kInU), addresses(kInDelta), StepAddresses{}, bias, w, elements);
    stage_orders<T>(tile_b, tile_c, a, addresses(kInB), addresses(kInC), adjoint_too, b.states, log_split);
    if (adjoint_too) {
#pragma unroll 1
      for (int i = 0; i < elements; i += 4) {
        float gy[4] = {}, z[4];
        if (a.grad_out.data) load_four<T>(gy, a.grad_out.dtype, addresses(kGradOut), w, i);
        if (gated) load_four<T>(z, a.z.dtype, addresses(kInZ), w, i);
#pragma unroll
        for (int q = 0; q < 4; ++q) {
          tile_g[(w.j + (i + q) * w.dj) * kRow + w.c + (i + q) * w.dc] = gated ? gy[q] * ScanMath::silu(z[q]) : gy[q];
        }
      }
    }
    __syncthreads();
  };

  for (int pack_index = 0;; ++pack_index) {
    __syncthreads();
    if (thread == 0) block.pack = pack_of(call, b.block, pack_index);
    __syncthreads();
    if (pack.rows <= 0) break;
    const bool packed = pack.rows > 1;
    for (int chunk = packed ? 0 : (int)((pack.steps - 1) / kChunkSteps); chunk >= 0; --chunk) {
      const int64_t begin = (int64_t)chunk * kChunkSteps;
      const int64_t rest = pack.steps - begin;
      const int steps = packed ? pack.rows * row_slot((int)pack.steps) : rest < kChunkSteps ? (int)rest : kChunkSteps;
      int staged = -1;  // the tile whose delta and u are in place
      if (!packed) {
        // Borders are rare: loops that are not unrolled, whose addresses would fill the registers.
#pragma unroll 1
        for (int i = 0; i < kThreadStates; ++i) {
          if (!exists(i)) kept[i] = 0.0f;
          else if (chunk == 0) kept[i] = state_before(call, b.k, pack.segment, b.channel + c, state(i));
          else kept[i] = __ldg(call.starts + start_index(call, b.k, pack.segment, chunk, b.channel + c, state(i)));
        }
        float x[kThreadStates];
#pragma unroll
        for (int i = 0; i < kThreadStates; ++i) x[i] = kept[i];
#pragma unroll 1
        for (int t = 0; t + kGroupSteps < steps; t += kGroupSteps) {
          if (t % kBackwardSteps == 0) {
            staged = t;
            stage(begin + t, smaller(steps - t, kBackwardSteps), true, false);
          }
#pragma unroll
          for (int j = 0; j < kGroupSteps; ++j) {
            const int at = t % kBackwardSteps + j;
            const float2 du = pair[at * kRow + c];
            const float4 b4 = *reinterpret_cast<const float4*>(b_mine + at * b_pitch);
            const float bs[kThreadStates] = {b4.x, b4.y, b4.z, b4.w};
            const float drive = du.x * du.y;
#pragma unroll
            for (int i = 0; i < kThreadStates; ++i) scan_step<ScanMath>(du.x, A2[i], drive, bs[i], x[i]);
          }
#pragma unroll
          for (int i = 0; i < kThreadStates; ++i) kept[(t / kGroupSteps + 1) * kThreadStates + i] = x[i];
        }
      }

#pragma unroll 1
      for (int tile = (steps - 1) / kBackwardSteps * kBackwardSteps; tile >= 0; tile -= kBackwardSteps) {
        const int count = smaller(steps - tile, kBackwardSteps);
        stage(begin + tile, count, staged != tile, true);
        staged = -1;

        // Groups of up to eight steps, in whole quadruples; of a pack, a group is a row.
        const int group_steps = packed ? row_slot((int)pack.steps) : kGroupSteps;
#pragma unroll 1
        for (int t = (count - 1) / group_steps * group_steps; t >= 0; t -= group_steps) {
          const int n = smaller(count - t, group_steps);
          const bool at_end = packed || begin + tile + t + n == pack.steps;
          if (at_end) {
            const int64_t segment = packed ? pack.segment + t / group_steps : pack.segment;
#pragma unroll 1
            for (int i = 0; i < kThreadStates; ++i) {
              kept[kEdge + i] = exists(i) ? adjoint_after(call, b.k, segment, b.channel + c, state(i)) : 0.0f;
              if (packed) kept[i] = exists(i) ? state_before(call, b.k, segment, b.channel + c, state(i)) : 0.0f;
            }
#pragma unroll
            for (int i = 0; i < kThreadStates; ++i) adjoint[i] = kept[kEdge + i];
          }
          const float* const before = kept + (packed ? 0 : (tile + t) / kGroupSteps) * kThreadStates;
          float decay[kGroupSteps][kThreadStates], x[kGroupSteps][kThreadStates];
          const auto record = [&](int j) __attribute__((always_inline)) {
            const float2 du = pair[(t + j) * kRow + c];
            const float4 b4 = *reinterpret_cast<const float4*>(b_mine + (t + j) * b_pitch);
            const float bs[kThreadStates] = {b4.x, b4.y, b4.z, b4.w};
            const float drive = du.x * du.y;
#pragma unroll
            for (int i = 0; i < kThreadStates; ++i) {
              x[j][i] = j ? x[j - 1][i] : before[i];
              decay[j][i] = scan_step<ScanMath>(du.x, A2[i], drive, bs[i], x[j][i]);
            }
          };
          // Four steps backwards, and what they leave.
          const auto four_back = [&](int from) __attribute__((always_inline)) {
            float sum_exponent[kFoldSteps], sum_drive[kFoldSteps], y[kFoldSteps], term[kFoldSteps];
            if (gated) {
#pragma unroll
              for (int f = 0; f < kFoldSteps; ++f) {
                const float4 c4 = *reinterpret_cast<const float4*>(c_mine + (t + from + f) * c_pitch);
                const float(&now)[kThreadStates] = x[from + f];
                y[f] = fmaf(c4.x, now[0], fmaf(c4.y, now[1], fmaf(c4.z, now[2], c4.w * now[3])));
              }
              fold_steps(y, split, lane);
            }
            constexpr unsigned whole = 0xffffffffu;
            const bool upper = lane & 4;  // after two exchanges these lanes are dC's
#pragma unroll
            for (int f = kFoldSteps - 1; f >= 0; --f) {
              const int j = from + f;
              const float2 du = pair[(t + j) * kRow + c];
              const float gy = tile_g[(t + j) * kRow + c], drive = du.x * du.y;
              const float4 b4 = *reinterpret_cast<const float4*>(b_mine + (t + j) * b_pitch);
              const float4 c4 = *reinterpret_cast<const float4*>(c_mine + (t + j) * c_pitch);
              const float bs[kThreadStates] = {b4.x, b4.y, b4.z, b4.w}, cs[kThreadStates] = {c4.x, c4.y, c4.z, c4.w};
              sum_exponent[f] = sum_drive[f] = 0.0f;
              float tb[kThreadStates], tc[kThreadStates];
#pragma unroll
              for (int i = 0; i < kThreadStates; ++i) {
                const float lambda = scan_adjoint_step<ScanMath>(decay[j][i], j ? x[j - 1][i] : before[i], du.x, gy, A2[i], bs[i], cs[i],
                                                                 adjoint[i], sum_exponent[f], sum_drive[f], grad_A[i]);
                tb[i] = lambda * drive;
                tc[i] = gy * x[j][i];
              }
              if (kConstant && a.constant_b) {
#pragma unroll
                for (int i = 0; i < kThreadStates; ++i) kept[kSumB + i] += tb[i];
              }
              if (kConstant && a.constant_c) {
#pragma unroll
                for (int i = 0; i < kThreadStates; ++i) kept[kSumC + i] += tc[i];
              }
              tb[0] += __shfl_xor_sync(whole, tb[2], 2);
              tb[1] += __shfl_xor_sync(whole, tb[3], 2);
              tc[0] += __shfl_xor_sync(whole, tc[2], 2);
              tc[1] += __shfl_xor_sync(whole, tc[3], 2);
              tb[0] += __shfl_xor_sync(whole, tb[1], 1);
              tc[0] += __shfl_xor_sync(whole, tc[1], 1);
              term[f] = (upper ? tc[0] : tb[0]) + __shfl_xor_sync(whole, upper ? tb[0] : tc[0], 4);
            }
            if (split < 4) {
#pragma unroll
              for (int f = 0; f < kFoldSteps; ++f) term[f] += __shfl_xor_sync(whole, term[f], 8);
            }
            if (split < 2) {
#pragma unroll
              for (int f = 0; f < kFoldSteps; ++f) term[f] += __shfl_xor_sync(whole, term[f], 16);
            }
            if (lane % lanes < 8) {
              float* const row = terms + (thread / 32 * kBackwardSteps + t + from) * kTermRow;
              float* const to = row + (upper ? 16 : 0) + s * kThreadStates + order;
#pragma unroll
              for (int f = 0; f < kFoldSteps; ++f) to[f * kTermRow] = term[f];
            }
            fold_steps(sum_exponent, split, lane);
            fold_steps(sum_drive, split, lane);
            __syncwarp();  // all lanes of the channel have read these pairs
#pragma unroll
            for (int i = 0; i < kFoldSteps; ++i) {
              const int at = from + s * own + i;
              if (i < own && at < n) {
                const int e = (t + at) * kRow + c;
                const float2 du = pair[e];
                const float gy = tile_g[e], D = skip[c];
                float to_delta = scan_grad_delta<ScanMath>(sum_exponent[i], sum_drive[i], du.y);
                if (a.softplus) to_delta *= scan_softplus_slope<ScanMath>(du.x);
                to_bias += to_delta;
                to_skip = fmaf(gy, du.y, to_skip);
                pair[e] = make_float2(to_delta, fmaf(du.x, sum_drive[i], gy * D));
                if (gated) tile_g[e] = fmaf(D, du.y, y[i]);
              }
            }
          };
#pragma unroll
          for (int j = 0; j < kFoldSteps; ++j) record(j);
          if (n > kFoldSteps) {
#pragma unroll
            for (int j = kFoldSteps; j < kGroupSteps; ++j) record(j);
            four_back(kFoldSteps);
          }
          four_back(0);
          if (a.grad_initial.data && (packed || chunk + tile + t == 0)) {
            const int64_t segment = packed ? pack.segment + t / group_steps : pack.segment, row = divide(segment, call.g.segments_per_row);
#pragma unroll
            for (int i = 0; i < kThreadStates; ++i) kept[kEdge + i] = adjoint[i];
#pragma unroll 1
            for (int i = 0; i < kThreadStates; ++i) {
              const ScanTensor& o = a.grad_initial;
              if (!exists(i) || segment != row * call.g.segments_per_row) continue;
              static_cast<float*>(o.data)[row * o.batch + (b.channel + c) * o.channel + state(i) * o.state] = kept[kEdge + i];
            }
          }
        }
        __syncthreads();

        const ThreadElements w = thread_elements(along, kLogBackward, kLogChannels, kLogChannels + log_split, b.channels);
        const auto leave = [&](const ScanTarget& o, int tensor, const auto& value) __attribute__((always_inline)) {
          if (!o.t.data) return;
#pragma unroll 1
          for (int i = 0; i < elements; i += 4) {
            float r[4];
#pragma unroll
            for (int q = 0; q < 4; ++q) r[q] = value((w.j + (i + q) * w.dj) * kRow + w.c + (i + q) * w.dc);
            store_four<T>(r, o.t.dtype, addresses(tensor), w, i);
          }
        };
        leave(call.grad_delta, kGradDelta, [&](int e) { return pair[e].x; });
        leave(call.grad_u, kGradU, [&](int e) { return pair[e].y; });
        if (call.grad_z.partials) {  // y itself: the gate needs the sum of the partial results
          leave(call.grad_z, kGradZ, [&](int e) { return tile_g[e]; });
        } else if (call.grad_z.t.data) {
#pragma unroll 1
          for (int i = 0; i < elements; i += 4) {
            float r[4], z[4], gy[4] = {};
            load_four<T>(z, a.z.dtype, addresses(kInZ), w, i);
            if (a.grad_out.data) load_four<T>(gy, a.grad_out.dtype, addresses(kGradOut), w, i);
#pragma unroll
            for (int q = 0; q < 4; ++q) {
              r[q] = gy[q] * tile_g[(w.j + (i + q) * w.dj) * kRow + w.c + (i + q) * w.dc] * scan_silu_slope<ScanMath>(z[q]);
            }
            store_four<T>(r, call.grad_z.t.dtype, addresses(kGradZ), w, i);
          }
        }
        const auto leave_terms = [&](const ScanTarget& o, int tensor, int part) __attribute__((always_inline)) {
          if (!o.t.data) return;
          ThreadElements v = thread_elements(along_steps(o.t, o.t.state), kLogBackward, 2 + log_split, kLogChannels + log_split, b.states);
          v.valid = smaller(v.valid, 2);  // kBackwardSteps * 4 split / (32 split) elements a thread
          float r[4] = {};
#pragma unroll
          for (int i = 0; i < 2; ++i) {
#pragma unroll 1
            for (int warp = 0; warp < split; ++warp) {
              r[i] += terms[(warp * kBackwardSteps + v.j + i * v.dj) * kTermRow + part + v.c + i * v.dc];
            }
          }
          store_four<T>(r, o.t.dtype, addresses(tensor), v, 0);
        };
        leave_terms(call.grad_B, kGradB, 0);
        leave_terms(call.grad_C, kGradC, 16);
      }
    }
  }

#pragma unroll 1
  for (int by = lanes; by < 32; by *= 2) {
    to_skip += __shfl_xor_sync(0xffffffffu, to_skip, by);
    to_bias += __shfl_xor_sync(0xffffffffu, to_bias, by);
  }
#pragma unroll
  for (int i = 0; i < kThreadStates; ++i) kept[kEdge + i] = grad_A[i];
  if (c >= b.channels) return;
  const SumLayout l = sum_layout(call);
  float* const sums = call.sums + b.block * l.all;
  const int64_t line = b.partial * a.dim + b.channel + c;
#pragma unroll 1
  for (int i = 0; i < kThreadStates; ++i) {
    const int64_t at = line * l.matrix + in_slice(i);
    sums[at] = kept[kEdge + i];
    if (kConstant && a.constant_b) sums[l.b + at] = kept[kSumB + i];
    if (kConstant && a.constant_c) sums[l.c + at] = kept[kSumC + i];
  }
  if (s == 0) {
    sums[l.skip + line] = to_skip;
    sums[l.bias + line] = to_bias;
  }
}

}  // namespace BDGF_ISA
}  // namespace bdgf
