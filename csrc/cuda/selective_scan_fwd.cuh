// Selective scan, forward: sequential over the steps, a channel's states in registers (selective_scan_work.cuh). A tile of 32 steps
// and 32 channels is staged in shared memory and scanned, and its outputs leave through shared memory too. While a tile is
// scanned, the next one is on its way from memory into registers.
//
// With kOutputs false the kernel computes only states, in the passes that precede the outputs or the gradients of long sequences.
// Each segment's last state goes to call.ends, the sum of its delta to call.delta_sums, and the states before its chunks to
// call.starts. With call.adjoint, the recurrence of the adjoint runs instead, carry <- a (carry + grad_y C) in the names of
// scan_step.h: grad_y takes the place of u, and C that of B.
//
// Instructions per (step, channel, state) in the inner loop: at least 5 (multiply, exp2, multiply, two fused multiply-adds). On
// sm_90 6.4 are executed.
#pragma once
#include "cuda/dialect.h"
#include "cuda/selective_scan_fwd_dense.cuh"
#include "cuda/selective_scan_fwd_tile.cuh"

namespace bdgf {
namespace BDGF_ISA {

// What a thread of the kernel works with, and the phases of its work. All threads of a block call the same phases.
// kLayout: see selective_scan_dense.cuh.
template <class T, bool kOutputs, ScanLayout kLayout>
struct ForwardScan {
  const ScanCall& call;
  const SelectiveScanArgs& a;
  ForwardShared& block;
  const BlockWork& b;
  const SequencePack& pack;
  const int thread, threads, lane, split, log_split;
  float* const tile_b;   // [step or channel][kMatrixPitch]
  float* const tile_c;
  int64_t* const tables;  // [tile is odd][tensor][step]: addresses
  float2* const pair;    // [step][kTilePitch]: (delta, u)
  float* const tile_y;   // [step][kTilePitch]
  float* const bias;     // [channel]
  float* const skip;     // [channel]: D
  float* const kept;     // this thread's states between tiles, every `threads` floats
  const int own;         // 4 / split: after fold_steps this lane holds the sums of that many of four steps
  const int lanes;       // of a warp, that hold one group of four states
  const int s, c;        // the group of states and the channel of this thread, in the slice and in the tile
  const float *const b_mine, *const c_mine;  // this thread's states of B and C, at b_pitch and c_pitch floats a step
  const int b_pitch, c_pitch;
  const bool gated;
  const int elements;    // of a tile, that this thread stages
  float A2[kThreadStates], x[kThreadStates], delta_sum;
  RawPairs<T> raw_pairs;  // of the next tile, like the two below
  Raw<T> raw_b, raw_c;
  DenseTiles<T, kOutputs, kLayout> dense;

  BDGF_DEV_METHOD ForwardScan(const ScanCall& given, float* shared)
      : call(given),
        a(given.a),
        block(*reinterpret_cast<ForwardShared*>(shared)),
        b(block.work),
        pack(block.pack),
        thread(threadIdx.x),
        threads(blockDim.x),
        lane(thread % 32),
        split(kLayout != kTables ? kMostSplit : given.g.split),
        log_split(kLayout != kTables ? kMostLogSplit : given.g.log_split),
        tile_b(shared + sizeof(ForwardShared) / 4),
        tile_c(tile_b + kTileChannels * kMatrixPitch),
        tables(reinterpret_cast<int64_t*>(tile_c + kTileChannels * kMatrixPitch)),
        pair(reinterpret_cast<float2*>(tables + 2 * kForwardTensors * kForwardSteps)),
        tile_y(reinterpret_cast<float*>(pair + kForwardSteps * kTilePitch)),
        bias(tile_y + kForwardSteps * kTilePitch),
        skip(bias + kTileChannels),
        kept(skip + kTileChannels + thread),
        own(split == 1 ? 4 : split == 2 ? 2 : 1),
        lanes(8 * own),
        s(lane / lanes),
        c(thread / 32 * lanes + lane % lanes),
        b_mine(tile_b + s * kThreadStates + (kLayout == kTables && given.a.constant_b ? c * kMatrixPitch : 0)),
        c_mine(tile_c + s * kThreadStates + (kLayout == kTables && given.a.constant_c ? c * kMatrixPitch : 0)),
        b_pitch(kLayout == kTables && given.a.constant_b ? 0 : kMatrixPitch),
        c_pitch(kLayout == kTables && given.a.constant_c ? 0 : kMatrixPitch),
        gated(given.a.z.data && (kOutputs || given.adjoint)),
        elements(kForwardSteps >> log_split) {}

  // The tables of the tile that starts with step `first`: tiles take the two sets in turn.
  BDGF_DEV_METHOD int64_t* tables_of(int64_t first) const {
    return tables + first / kForwardSteps % 2 * kForwardTensors * kForwardSteps;
  }
  BDGF_DEV_METHOD StepAddresses addresses(int64_t first, int tensor) const {
    return {tables_of(first) + tensor * kForwardSteps, block.tensors[tensor].across};
  }
  BDGF_DEV_METHOD ThreadElements elements_of_pairs() const {
    return thread_elements(along_steps(a.u, a.u.channel), kLogForward, kLogChannels, kLogChannels + log_split, b.channels);
  }
  BDGF_DEV_METHOD bool with_b() const { return !a.constant_b; }
  BDGF_DEV_METHOD bool with_c() const { return kOutputs && !a.constant_c; }
  // This thread's first state in the slice, the number of a state among all, and how many states of the slice exist from that first
  // one on (four of them at most are this thread's). Only code that runs rarely asks, so these are computed again each time.
  BDGF_DEV_METHOD int in_slice() const { return fresh_thread() % 32 / lanes * kThreadStates; }
  BDGF_DEV_METHOD int64_t state(int i) const { return b.slice * kThreadStates * split + in_slice() + i; }
  BDGF_DEV_METHOD int states() const { return c < b.channels ? b.states - in_slice() : 0; }

  // Sets up the block's work, and loads A and whatever else does not depend on the step.
  BDGF_DEV_METHOD void start() {
    if (thread == 0) {
      const BlockWork mine = block_work(call);
      block.work = mine;
      block.tensors[kU] = input_tensor(a.u, mine);
      block.tensors[kDelta] = delta_tensor(a, mine);
      block.tensors[kB] = matrix_tensor(a.B, mine, mine.group_b, split);
      block.tensors[kZ] = input_tensor(a.z, mine);
      block.tensors[kC] = matrix_tensor(a.C, mine, mine.group_c, split);
      block.tensors[kOut] = target_tensor(call.out, mine, kByInput);
    }
    __syncthreads();
#pragma unroll 1
    for (int i = 0; i < kThreadStates; ++i) {
      const int64_t at = b.k * a.A.direction + (b.channel + c) * a.A.channel + state(i) * a.A.state;
      kept[i * threads] = i < states() ? load_parameter(a.A, at) : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < kThreadStates; ++i) A2[i] = kept[i * threads] * kScanLog2E;
    fill_vectors(bias, skip, a, b);
    if (a.constant_b) fill_constant(tile_b, a.B, b, split, false);
    if (kOutputs && a.constant_c) fill_constant(tile_c, a.C, b, split, false);
  }

  // Goes to pack `index` of the block; false after the last one. (One function for forward and backward would cost 2 % here.)
  BDGF_DEV_METHOD bool next_pack(int index) {
    __syncthreads();
    if (thread == 0) block.pack = pack_of(call, b.block, index);
    __syncthreads();
    delta_sum = 0.0f;
    if constexpr (kLayout != kTables) {
      fill_dense(block.dense, block.tensors, kForwardTensors, call, b, pack);
      dense.tensors = block.dense;
      dense.rows = pack.rows;
      dense.steps = (int)pack.steps;
      __syncthreads();
    }
    return pack.rows > 0;
  }
  // Where only the states before chunks are asked for, the last chunk can be left out.
  BDGF_DEV_METHOD int64_t steps_to_scan() const {
    return kOutputs || call.ends ? pack.rows * pack.steps : (pack.steps - 1) / kChunkSteps * kChunkSteps;
  }

  BDGF_DEV_METHOD int steps_of_tile(int64_t first) const {
    if constexpr (kLayout != kTables) return smaller(dense.size() - (int)first, kForwardSteps);
    const int64_t rest = pack.rows * pack.steps - first;
    return rest < kForwardSteps ? (int)rest : kForwardSteps;
  }
  // Fills in the addresses of steps first ... first + count - 1 of the pack.
  BDGF_DEV_METHOD void address(int64_t first, int count) {
    if constexpr (kLayout != kTables) return;
    const int filler = fresh_thread(), j = filler % kForwardSteps, r = pack.rows > 1 ? j / (int)pack.steps : 0;
    const bool inside = j < count;
    const int64_t visited = inside ? first + j - r * pack.steps : 0;
    const int64_t step = call.adjoint ? pack.steps - 1 - visited : visited;
    const Position p = position_of(call, b.direction, inside ? pack.segment + r : pack.segment, step);
    const int tensors = kOutputs ? kForwardTensors : kC;
    fill_tables(tables_of(first), kForwardSteps, j, block.tensors, filler / kForwardSteps, split, tensors, inside, p);
  }
  // Starts loading the tile at step `first`, whose addresses are ready: B, C, and as much of delta and u as the registers hold.
  BDGF_DEV_METHOD void fetch(int64_t first) {
    if constexpr (kLayout != kTables) return dense.fetch(b, (int)first);
    if (with_b()) load_four_raw(raw_b, addresses(first, kB), state_elements(a.B, b.states, log_split), 0);
    if (with_c()) load_four_raw(raw_c, addresses(first, kC), state_elements(a.C, b.states, log_split), 0);
    fetch_pairs(raw_pairs, a, addresses(first, kU), addresses(first, kDelta), elements_of_pairs());
  }
  // Moves the tile that fetch() loaded into shared memory: delta, u (the part beyond the registers is loaded here), B and C.
  BDGF_DEV_METHOD void stage(int64_t first) {
    if constexpr (kLayout != kTables) return dense.stage(a, b, pair, tile_b, tile_c, bias);
    const StepAddresses u = addresses(first, kU), delta = addresses(first, kDelta);
    const StepAddresses gate = !kOutputs && gated ? addresses(first, kZ) : StepAddresses{};
    const ThreadElements w = elements_of_pairs();
    finish_pairs(pair, raw_pairs, a, delta, gate, bias, w);
    stage_pairs<T, false>(pair, a, u, delta, gate, bias, w, kFetched, elements);
    if (with_b()) store_states(tile_b, raw_b, a.B.dtype, state_elements(a.B, b.states, log_split));
    if (with_c()) store_states(tile_c, raw_c, a.C.dtype, state_elements(a.C, b.states, log_split));
  }

  // Borders of segments are rare: loops that are not unrolled, whose addresses would fill the registers.
  BDGF_DEV_METHOD void load_first_state(int64_t segment) {
    if (!(call.adjoint ? has_carry_after(call) : has_states_before(call))) {
#pragma unroll
      for (int i = 0; i < kThreadStates; ++i) kept[i * threads] = 0.0f;
      return;
    }
#pragma unroll 1
    for (int i = 0; i < kThreadStates; ++i) {
      if (i >= states()) kept[i * threads] = 0.0f;
      else if (call.adjoint) kept[i * threads] = carry_after(call, b.k, segment, b.channel + c, state(i));
      else kept[i * threads] = state_before(call, b.k, segment, b.channel + c, state(i));
    }
  }
  // Stores the states after `done` steps of a segment where they are wanted: at the end, or before a chunk.
  BDGF_DEV_METHOD void store_last_state(int64_t segment, int64_t done) {
    const bool chunk_ends = !kOutputs && call.starts && done < pack.steps && done % kChunkSteps == 0;
    if (!chunk_ends && (done != pack.steps || !(kOutputs ? a.last.data != nullptr : call.ends != nullptr))) return;
#pragma unroll 1
    for (int i = 0; i < kThreadStates && i < states(); ++i) {
      const int64_t channel = b.channel + c;
      if (kOutputs) {
        const int64_t at = segment * a.last.batch + channel * a.last.channel + state(i) * a.last.state;
        static_cast<float*>(a.last.data)[at] = kept[i * threads];
      } else if (chunk_ends) {
        call.starts[start_index(call, b.k, segment, done / kChunkSteps, channel, state(i))] = kept[i * threads];
      } else {
        call.ends[((segment * a.directions + b.k) * a.dim + channel) * a.states + state(i)] = kept[i * threads];
      }
    }
    if (!kOutputs && !chunk_ends && call.delta_sums && states() > 0 && s == 0 && b.slice == 0) {
      call.delta_sums[(segment * a.directions + b.k) * a.dim + b.channel + c] = delta_sum;
    }
  }

  // One step of the recurrence; returns this thread's share of y.
  BDGF_DEV_METHOD float step(int at) {
    const float2 delta_u = pair[at * kTilePitch + c];
    const float4 b4 = *reinterpret_cast<const float4*>(b_mine + at * b_pitch);
    const float bs[kThreadStates] = {b4.x, b4.y, b4.z, b4.w};
    float y = 0.0f;
    if (!kOutputs && call.adjoint) {
#pragma unroll
      for (int i = 0; i < kThreadStates; ++i) scan_carry_step<ScanMath>(ScanMath::exp2(delta_u.x * A2[i]), delta_u.y, bs[i], x[i]);
      return y;
    }
    const float drive = delta_u.x * delta_u.y;
    if (!kOutputs) delta_sum += delta_u.x;
#pragma unroll
    for (int i = 0; i < kThreadStates; ++i) scan_step<ScanMath>(delta_u.x, A2[i], drive, bs[i], x[i]);
    if (kOutputs) {
      const float4 c4 = *reinterpret_cast<const float4*>(c_mine + at * c_pitch);
      const float cs[kThreadStates] = {c4.x, c4.y, c4.z, c4.w};
#pragma unroll
      for (int i = 0; i < kThreadStates; ++i) y = fmaf(cs[i], x[i], y);
    }
    return y;
  }
  // Steps begin ... end - 1 of the tile; their y goes to tile_y. The last group may have fewer than kGroupSteps steps.
  BDGF_DEV_METHOD void scan_with_outputs(int begin, int end) {
#pragma unroll 1
    for (int t = begin; t < end; t += kGroupSteps) {
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
          if (i < own && at < left) tile_y[(t + at) * kTilePitch + c] = y[part][i];
        }
      }
    }
  }
  BDGF_DEV_METHOD void scan_states(int begin, int end) {
#pragma unroll 4
    for (int t = begin; t < end; ++t) step(t);
  }

  // The `count` staged steps, from step `first` of the pack on: one segment's, or those of whole sequences one after the other.
  BDGF_DEV_METHOD void scan_tile(int64_t first, int count) {
    const bool packed = kLayout != kDenseRow && pack.rows > 1;
    for (int t = 0; t < count;) {
      const int r = packed ? t / (int)pack.steps : 0, end = packed ? t + (int)pack.steps : count;
      if (packed || first == 0) load_first_state(pack.segment + r);
#pragma unroll
      for (int i = 0; i < kThreadStates; ++i) x[i] = kept[i * threads];
      if (kOutputs) scan_with_outputs(t, end);
      else scan_states(t, end);
      t = end;
#pragma unroll
      for (int i = 0; i < kThreadStates; ++i) kept[i * threads] = x[i];
      store_last_state(pack.segment + r, packed ? pack.steps : first + end);
    }
  }

  // out = (y + D u) silu(z) of the staged steps.
  BDGF_DEV_METHOD void store_outputs(int64_t first) const {
    __syncthreads();
    if constexpr (kLayout != kTables) return dense.store(a, b, (int)first, pair, tile_y, skip);
    const ThreadElements w = elements_of_pairs();
#pragma unroll 1
    for (int i = 0; i < elements; i += 4) {
      float out[4], z[4];
      if (gated) load_four<T>(z, a.z.dtype, addresses(first, kZ), w, i);
#pragma unroll
      for (int q = 0; q < 4; ++q) {
        const int e = (w.j + (i + q) * w.dj) * kTilePitch + w.c + (i + q) * w.dc;
        out[q] = fmaf(skip[w.c + (i + q) * w.dc], pair[e].y, tile_y[e]);
        if (gated) out[q] *= ScanMath::silu(z[q]);
      }
      store_four<T>(out, call.out.t.dtype, addresses(first, kOut), w, i);
    }
  }
};

template <class T, bool kOutputs, ScanLayout kLayout>
__global__ void __launch_bounds__(kMostThreads, kLayout == kTables ? 4 : 5) selective_scan_fwd_kernel(const ScanCall call) {
  BDGF_THREADS(kMostThreads);
  BDGF_DYNAMIC_SHARED(float, shared);
  ForwardScan<T, kOutputs, kLayout> scan(call, shared);
  scan.start();
  for (int index = 0; scan.next_pack(index); ++index) {
    const int64_t steps = scan.steps_to_scan();
    if (steps == 0) continue;
    scan.address(0, scan.steps_of_tile(0));
    __syncthreads();
    scan.fetch(0);
    for (int64_t first = 0; first < steps; first += kForwardSteps) {
      const int64_t next = first + kForwardSteps;
      if (first > 0) __syncthreads();  // the tile before is done with
      scan.stage(first);
      if (next < steps) scan.address(next, scan.steps_of_tile(next));
      __syncthreads();
      if (next < steps) scan.fetch(next);
      scan.scan_tile(first, scan.steps_of_tile(first));
      if (kOutputs) scan.store_outputs(first);
    }
  }
}

}  // namespace BDGF_ISA
}  // namespace bdgf
