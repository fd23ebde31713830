// Selective scan, forward: sequential over the steps, a channel's states in registers (selective_scan_tile.cuh). A tile
// of 32 steps and 32 channels is staged, scanned, and its outputs leave through shared memory as they came.
//
// kOutputs false: only states, for the passes that cut a long sequence in pieces. Each segment's last state (and the sum of
// its delta) goes to call.ends, the states before its chunks to call.starts; call.adjoint runs the recurrence of the
// adjoint instead, lambda <- a (lambda + grad_y c): grad_y stands in for u, and C for B.
//
// Instructions per (element, state), inner loop: at least 5 (multiply, exp2, multiply, two fused multiply-adds); executed on
// sm_90 6.4.
#pragma once
#include "cuda/dialect.h"
#include "cuda/selective_scan_tile.cuh"

namespace bdgf {
namespace BDGF_ISA {

constexpr int kMatrixRow = 20;  // pitch of the 16 states of a step (variable B, C) or a channel (constant)
enum ForwardTensor { kU, kDelta, kB, kZ, kC, kOut, kForwardTensors };
struct alignas(16) ForwardShared {
  BlockWork block;
  SequencePack pack;
  ByteTensor tensors[kForwardTensors];
};

// Floats of dynamic shared memory.
static inline size_t forward_shared_floats(int split) {
  return sizeof(ForwardShared) / 4 + 2 * kForwardTensors * kForwardSteps + 3 * kForwardSteps * kRow +
         2 * kTileChannels * kMatrixRow + 2 * kTileChannels + kThreadStates * kTileChannels * split;
}

// A constant matrix, [channel][state].
BDGF_DEV void fill_constant(float* to, const ScanTensor& t, const BlockWork& b, int split) {
  const int width = kThreadStates * split;
  for (int i = threadIdx.x; i < kTileChannels * width; i += blockDim.x) {
    const int c = i / width, n = i % width;
    const bool inside = c < b.channels && n < b.states;
    to[c * kMatrixRow + n] = inside ? load_parameter(t, (b.channel + c) * t.channel + (b.slice * width + n) * t.state) : 0.0f;
  }
}
// A variable one, [step][state].
template <class T>
BDGF_DEV void stage_states(float* to, const ScanTensor& t, StepAddresses addresses, int states, int log_split) {
  const ThreadElements w = thread_elements(along_steps(t, t.state), kLogForward, 2 + log_split, kLogChannels + log_split, states);
  float r[4];  // kForwardSteps * 4 split / (32 split) elements a thread
  load_four<T>(r, t.dtype, addresses, w, 0);
#pragma unroll
  for (int q = 0; q < 4; ++q) to[(w.j + q * w.dj) * kMatrixRow + w.c + q * w.dc] = r[q];
}

template <class T, bool kOutputs>
__global__ void __launch_bounds__(kMostThreads, 5) selective_scan_kernel(const ScanCall call) {
  BDGF_THREADS(kMostThreads);
  BDGF_DYNAMIC_SHARED(float, shared);
  const SelectiveScanArgs& a = call.a;
  const int thread = threadIdx.x, threads = blockDim.x, lane = thread % 32, split = call.g.split, log_split = call.g.log_split;
  ForwardShared& block = *reinterpret_cast<ForwardShared*>(shared);
  const BlockWork& b = block.block;
  const SequencePack& pack = block.pack;
  float* const tile_b = shared + sizeof(ForwardShared) / 4;
  float* const tile_c = tile_b + kTileChannels * kMatrixRow;
  int64_t* const tables = reinterpret_cast<int64_t*>(tile_c + kTileChannels * kMatrixRow);
  float2* const pair = reinterpret_cast<float2*>(tables + kForwardTensors * kForwardSteps);
  float* const tile_y = reinterpret_cast<float*>(pair + kForwardSteps * kRow);
  float* const bias = tile_y + kForwardSteps * kRow;
  float* const skip = bias + kTileChannels;
  float* const kept = skip + kTileChannels + thread;  // this thread's states between tiles, every `threads` floats
  const auto addresses = [&](int tensor) { return StepAddresses{tables + tensor * kForwardSteps, block.tensors[tensor].across}; };

  if (thread == 0) {
    const BlockWork mine = block_work(call);
    block.block = mine;
    block.tensors[kU] = input_tensor(a.u, mine);
    block.tensors[kDelta] = delta_tensor(a, mine);
    block.tensors[kB] = matrix_tensor(a.B, mine, mine.group_b, split);
    block.tensors[kZ] = input_tensor(a.z, mine);
    block.tensors[kC] = matrix_tensor(a.C, mine, mine.group_c, split);
    block.tensors[kOut] = target_tensor(call.out, mine, kByInput);
  }
  __syncthreads();
  const int own = split == 1 ? 4 : split == 2 ? 2 : 1;  // steps of a fold that end up with this lane
  const int lanes = 8 * own, s = lane / lanes, c = thread / 32 * lanes + lane % lanes;
  // For code that runs rarely, and therefore computed again each time: this thread's first state in the slice, and how many of its states exist.
  const auto in_slice = [&] { return fresh_thread() % 32 / lanes * kThreadStates; };
  const auto state = [&](int i) { return b.slice * kThreadStates * split + in_slice() + i; };
  const auto states = [&] { return c < b.channels ? b.states - in_slice() : 0; };
#pragma unroll 1
  for (int i = 0; i < kThreadStates; ++i) {
    const int64_t at = b.k * a.A.direction + (b.channel + c) * a.A.channel + state(i) * a.A.state;
    kept[i * threads] = i < states() ? load_parameter(a.A, at) : 0.0f;
  }
  float A2[kThreadStates];
#pragma unroll
  for (int i = 0; i < kThreadStates; ++i) A2[i] = kept[i * threads] * kScanLog2E;
  fill_vectors(bias, skip, a, b);
  if (a.constant_b) fill_constant(tile_b, a.B, b, split);
  if (kOutputs && a.constant_c) fill_constant(tile_c, a.C, b, split);
  const float* const b_mine = tile_b + s * kThreadStates + (a.constant_b ? c * kMatrixRow : 0);
  const float* const c_mine = tile_c + s * kThreadStates + (a.constant_c ? c * kMatrixRow : 0);
  const int b_pitch = a.constant_b ? 0 : kMatrixRow, c_pitch = a.constant_c ? 0 : kMatrixRow;
  const bool along = along_steps(a.u, a.u.channel), gated = a.z.data && (kOutputs || call.adjoint);
  const int elements = kForwardSteps >> log_split;

  for (int pack_index = 0;; ++pack_index) {
    __syncthreads();
    if (thread == 0) block.pack = pack_of(call, b.block, pack_index);
    __syncthreads();
    if (pack.rows <= 0) return;
    float rate = 0.0f;
    // Where only the states before chunks are asked for, the last chunk can be left out.
    for (int64_t first = 0; first < (kOutputs || call.ends ? pack.rows * pack.steps : (pack.steps - 1) / kChunkSteps * kChunkSteps);
         first += kForwardSteps) {
      const int64_t rest = pack.rows * pack.steps - first;
      const int count = rest < kForwardSteps ? (int)rest : kForwardSteps;
      if (first > 0) __syncthreads();  // the tile before is done with
      {
        const int filler = fresh_thread(), j = filler % kForwardSteps, r = pack.rows > 1 ? j / (int)pack.steps : 0;
        const bool inside = j < count;
        const int64_t local = inside ? first + j - r * pack.steps : 0;
        const Position p = position_of(call, b.way, inside ? pack.segment + r : pack.segment, call.adjoint ? pack.steps - 1 - local : local);
        const int tensors = kOutputs ? kForwardTensors : kC;
        fill_tables(tables, kForwardSteps, j, block.tensors, filler / kForwardSteps, split, tensors, inside, p);
      }
      __syncthreads();
      const ThreadElements w = thread_elements(along, kLogForward, kLogChannels, kLogChannels + log_split, b.channels);
      stage_pairs<T, false>(pair, a, addresses(kU), addresses(kDelta), !kOutputs && gated ? addresses(kZ) : StepAddresses{}, bias, w, elements);
      if (!a.constant_b) stage_states<T>(tile_b, a.B, addresses(kB), b.states, log_split);
      if (kOutputs && !a.constant_c) stage_states<T>(tile_c, a.C, addresses(kC), b.states, log_split);
      __syncthreads();

      for (int t = 0; t < count;) {  // parts of the tile that belong to one segment
        const int r = pack.rows > 1 ? t / (int)pack.steps : 0;
        const int end = pack.rows > 1 ? t + (int)pack.steps : count;
        // Borders are rare: loops that are not unrolled, whose addresses would fill the registers.
        if (pack.rows > 1 || first == 0) {
#pragma unroll 1
          for (int i = 0; i < kThreadStates; ++i) {
            if (i >= states()) kept[i * threads] = 0.0f;
            else if (call.adjoint) kept[i * threads] = adjoint_after(call, b.k, pack.segment + r, b.channel + c, state(i));
            else kept[i * threads] = state_before(call, b.k, pack.segment + r, b.channel + c, state(i));
          }
        }
        float x[kThreadStates];
#pragma unroll
        for (int i = 0; i < kThreadStates; ++i) x[i] = kept[i * threads];
        const auto step = [&](int at) __attribute__((always_inline)) {
          const float2 du = pair[at * kRow + c];
          const float4 b4 = *reinterpret_cast<const float4*>(b_mine + at * b_pitch);
          const float bs[kThreadStates] = {b4.x, b4.y, b4.z, b4.w};
          if (kOutputs) {
            const float4 c4 = *reinterpret_cast<const float4*>(c_mine + at * c_pitch);
            const float cs[kThreadStates] = {c4.x, c4.y, c4.z, c4.w};
            const float drive = du.x * du.y;
            float y = 0.0f;
#pragma unroll
            for (int i = 0; i < kThreadStates; ++i) {
              scan_step<ScanMath>(du.x, A2[i], drive, bs[i], x[i]);
              y = fmaf(cs[i], x[i], y);
            }
            return y;
          }
          if (call.adjoint) {
#pragma unroll
            for (int i = 0; i < kThreadStates; ++i) x[i] = ScanMath::exp2(du.x * A2[i]) * fmaf(du.y, bs[i], x[i]);
          } else {
            const float drive = du.x * du.y;
            rate += du.x;
#pragma unroll
            for (int i = 0; i < kThreadStates; ++i) scan_step<ScanMath>(du.x, A2[i], drive, bs[i], x[i]);
          }
          return 0.0f;
        };
        if (kOutputs) {
#pragma unroll 1
          for (; t < end; t += kGroupSteps) {
            float y[kGroupSteps / kFoldSteps][kFoldSteps];
            const int left = end - t;
            if (left >= kGroupSteps) {
#pragma unroll
              for (int j = 0; j < kGroupSteps; ++j) y[j / kFoldSteps][j % kFoldSteps] = step(t + j);
            } else {
#pragma unroll
              for (int j = 0; j < kGroupSteps; ++j) y[j / kFoldSteps][j % kFoldSteps] = j < left ? step(t + j) : 0.0f;
            }
#pragma unroll
            for (int part = 0; part < kGroupSteps / kFoldSteps; ++part) {
              fold_steps(y[part], split, lane);
#pragma unroll
              for (int i = 0; i < kFoldSteps; ++i) {
                const int at = part * kFoldSteps + s * own + i;
                if (i < own && at < left) tile_y[(t + at) * kRow + c] = y[part][i];
              }
            }
          }
        } else {
#pragma unroll 4
          for (; t < end; ++t) step(t);
        }
        t = end;
#pragma unroll
        for (int i = 0; i < kThreadStates; ++i) kept[i * threads] = x[i];
        const int64_t done = pack.rows > 1 ? pack.steps : first + end;
        const bool chunk_ends = !kOutputs && call.starts && done < pack.steps && done % kChunkSteps == 0;
        if (chunk_ends || (done == pack.steps && (kOutputs ? a.last.data != nullptr : call.ends != nullptr))) {
#pragma unroll 1
          for (int i = 0; i < kThreadStates && i < states(); ++i) {
            const int64_t to = b.channel + c, segment = pack.segment + r;
            if (kOutputs) {
              const int64_t at = segment * a.last.batch + to * a.last.channel + state(i) * a.last.state;
              static_cast<float*>(a.last.data)[at] = kept[i * threads];
            } else if (chunk_ends) {
              call.starts[start_index(call, b.k, segment, done / kChunkSteps, to, state(i))] = kept[i * threads];
            } else {
              call.ends[((segment * a.directions + b.k) * a.dim + to) * a.states + state(i)] = kept[i * threads];
            }
          }
          if (!kOutputs && !chunk_ends && call.rates && states() > 0 && s == 0 && b.slice == 0) {
            call.rates[((pack.segment + r) * a.directions + b.k) * a.dim + b.channel + c] = rate;
          }
        }
      }
      if (!kOutputs) continue;

      __syncthreads();
#pragma unroll 1
      for (int i = 0; i < elements; i += 4) {
        float out[4], z[4];
        if (gated) load_four<T>(z, a.z.dtype, addresses(kZ), w, i);
#pragma unroll
        for (int q = 0; q < 4; ++q) {
          const int e = (w.j + (i + q) * w.dj) * kRow + w.c + (i + q) * w.dc;
          out[q] = fmaf(skip[w.c + (i + q) * w.dc], pair[e].y, tile_y[e]);
          if (gated) out[q] *= ScanMath::silu(z[q]);
        }
        store_four<T>(out, call.out.t.dtype, addresses(kOut), w, i);
      }
    }
  }
}

}  // namespace BDGF_ISA
}  // namespace bdgf
