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
#include "cuda/selective_scan_bwd_stage.cuh"
#include "cuda/selective_scan_launch.h"

namespace bdgf {
namespace BDGF_ISA {

// What a thread of the kernel works with, and the phases of its work. All threads of a block call the same phases.
// kConstant: B or C is constant.
template <class T, bool kConstant>
struct BackwardScan {
  const ScanCall& call;
  const SelectiveScanArgs& a;
  BackwardShared& block;
  const BlockWork& b;
  const SequencePack& pack;
  const int thread, threads, lane, split, log_split, matrix_row;
  float* const tile_b;    // see fill_constant_orders
  float* const tile_c;
  int64_t* const tables;  // [tensor][step]: addresses
  float2* const pair;     // [step][kRow]: (delta, u), then (ddelta, du)
  float* const tile_g;    // [step][kRow]: dy, then y where there is a gate
  float* const bias;      // [channel]
  float* const skip;      // [channel]: D
  float* const terms;     // [warp][step][kTermRow]: of dB, then of dC
  float* const kept;      // this thread's, see slots_of
  const int own;          // steps of a fold that end up with this lane
  const int lanes;        // of a warp, that hold one group of four states
  const int s, c, order;  // the group of states and the channel of this thread, and which permutation its registers have
  const float *const b_mine, *const c_mine;  // this thread's states of B and C, at `pitch` floats a step
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
        split(given.g.split),
        log_split(given.g.log_split),
        matrix_row(backward_matrix_row(split)),
        tile_b(shared + sizeof(BackwardShared) / 4),
        tile_c(tile_b + backward_matrix_floats(split)),
        tables(reinterpret_cast<int64_t*>(tile_c + backward_matrix_floats(split))),
        pair(reinterpret_cast<float2*>(tables + kBackwardTensors * kBackwardSteps)),
        tile_g(reinterpret_cast<float*>(pair + kBackwardSteps * kRow)),
        bias(tile_g + kBackwardSteps * kRow),
        skip(bias + kTileChannels),
        terms(skip + kTileChannels),
        kept(terms + split * kBackwardSteps * kTermRow + thread * slots_of(kConstant)),
        own(split == 1 ? 4 : split == 2 ? 2 : 1),
        lanes(8 * own),
        s(lane / lanes),
        c(thread / 32 * lanes + lane % lanes),
        order(lane & 3),
        b_mine(tile_b + first_of(given.a.constant_b)),
        c_mine(tile_c + first_of(given.a.constant_c)),
        b_pitch(kConstant && given.a.constant_b ? 0 : matrix_row),
        c_pitch(kConstant && given.a.constant_c ? 0 : matrix_row),
        gated(given.a.z.data != nullptr),
        elements(kBackwardSteps >> log_split) {}

  BDGF_DEV_METHOD int first_of(bool constant) const {
    return kConstant && constant ? c * kConstantRow + s * kThreadStates : (s * kOrders + order) * kThreadStates;
  }
  BDGF_DEV_METHOD StepAddresses addresses(int tensor) const {
    return {tables + tensor * kBackwardSteps, block.tensors[tensor].across};
  }
  // Register i stands for state s * 4 + (i ^ order) of the slice. For code that runs rarely, and therefore computed again each
  // time: that state's number in the slice and in all, and whether it exists.
  BDGF_DEV_METHOD int in_slice(int i) const { return fresh_thread() % 32 / lanes * kThreadStates + (i ^ (fresh_thread() & 3)); }
  BDGF_DEV_METHOD int64_t state(int i) const { return b.slice * kThreadStates * split + in_slice(i); }
  BDGF_DEV_METHOD bool exists(int i) const { return c < b.channels && in_slice(i) < b.states; }

  // What the block works on, A and what else does not depend on the step.
  BDGF_DEV_METHOD void start() {
    if (thread == 0) list_tensors();
    __syncthreads();
#pragma unroll 1
    for (int i = 0; i < kThreadStates; ++i) {
      const int64_t at = b.k * a.A.direction + (b.channel + c) * a.A.channel + state(i) * a.A.state;
      kept[kEdge + i] = exists(i) ? load_parameter(a.A, at) : 0.0f;
      if (kConstant) kept[kSumB + i] = kept[kSumC + i] = 0.0f;
    }
#pragma unroll
    for (int i = 0; i < kThreadStates; ++i) {
      A2[i] = kept[kEdge + i] * kScanLog2E;
      grad_A[i] = carry[i] = 0.0f;
    }
    fill_vectors(bias, skip, a, b);
    if (a.constant_b) fill_constant_orders(tile_b, a.B, b, split);
    if (a.constant_c) fill_constant_orders(tile_c, a.C, b, split);
  }
  BDGF_DEV_METHOD void list_tensors() {
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

  // False behind the last pack.
  BDGF_DEV_METHOD bool next_pack(int index) {
    __syncthreads();
    if (thread == 0) block.pack = pack_of(call, b.block, index);
    __syncthreads();
    return pack.rows > 0;
  }
  BDGF_DEV_METHOD bool packed() const { return pack.rows > 1; }
  // Chunks of the pack, and steps of one of them; of a pack of sequences, the steps that they take in the tile.
  BDGF_DEV_METHOD int last_chunk() const { return packed() ? 0 : (int)((pack.steps - 1) / kChunkSteps); }
  BDGF_DEV_METHOD int steps_of_chunk(int chunk) const {
    const int64_t rest = pack.steps - (int64_t)chunk * kChunkSteps;
    return packed() ? pack.rows * row_slot((int)pack.steps) : rest < kChunkSteps ? (int)rest : kChunkSteps;
  }

  // -------------------------------------------------------------------------------------------- staging
  // The tile from step `first` of the pack on: its addresses, delta and u (`inputs`), B, and what the adjoint needs
  // (`adjoint_too`).
  BDGF_DEV_METHOD void stage(int64_t first, int count, bool inputs, bool adjoint_too) {
    __syncthreads();  // the tile before is done with
    {
      const int filler = fresh_thread(), j = filler % kBackwardSteps, slot = row_slot((int)pack.steps);
      const int r = packed() ? j / slot : 0;
      const int64_t local = first + j - r * slot;
      const bool inside = packed() ? r < pack.rows && local < pack.steps : j < count;
      const Position p = position_of(call, b.way, inside ? pack.segment + r : pack.segment, inside ? local : 0);
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
  BDGF_DEV_METHOD ThreadElements elements_of_tile() const {
    const bool along = along_steps(a.u, a.u.channel);
    return thread_elements(along, kLogBackward, kLogChannels, kLogChannels + log_split, b.channels);
  }
  BDGF_DEV_METHOD static int element(const ThreadElements& w, int i) { return (w.j + i * w.dj) * kRow + w.c + i * w.dc; }
  // dy = dout silu(z).
  BDGF_DEV_METHOD void stage_grad_y(const ThreadElements& w) {
#pragma unroll 1
    for (int i = 0; i < elements; i += 4) {
      float gy[4] = {}, z[4];
      if (a.grad_out.data) load_four<T>(gy, a.grad_out.dtype, addresses(kGradOut), w, i);
      if (gated) load_four<T>(z, a.z.dtype, addresses(kInZ), w, i);
#pragma unroll
      for (int q = 0; q < 4; ++q) tile_g[element(w, i + q)] = gated ? gy[q] * ScanMath::silu(z[q]) : gy[q];
    }
  }

  // -------------------------------------------------------------------------------------------- the recurrence, again
  // B or C of this thread's states at a step of the tile.
  struct Four {
    float v[kThreadStates];
  };
  BDGF_DEV_METHOD static Four four(const float* p) {
    const float4 f = *reinterpret_cast<const float4*>(p);
    return {{f.x, f.y, f.z, f.w}};
  }
  // The states before each group of steps of a chunk, to `kept`. Returns the tile whose delta and u are staged, or -1.
  BDGF_DEV_METHOD int keep_states(int chunk, int steps) {
    const bool from_zero = chunk == 0 && !has_states_before(call);
    if (from_zero) {
#pragma unroll
      for (int i = 0; i < kThreadStates; ++i) kept[i] = 0.0f;
    }
    // Borders are rare: loops that are not unrolled, whose addresses would fill the registers.
#pragma unroll 1
    for (int i = 0; i < kThreadStates && !from_zero; ++i) {
      if (!exists(i)) kept[i] = 0.0f;
      else if (chunk == 0) kept[i] = state_before(call, b.k, pack.segment, b.channel + c, state(i));
      else kept[i] = __ldg(call.starts + start_index(call, b.k, pack.segment, chunk, b.channel + c, state(i)));
    }
    int staged = -1;
    float now[kThreadStates];
#pragma unroll
    for (int i = 0; i < kThreadStates; ++i) now[i] = kept[i];
#pragma unroll 1
    for (int t = 0; t + kGroupSteps < steps; t += kGroupSteps) {
      if (t % kBackwardSteps == 0) {
        staged = t;
        stage((int64_t)chunk * kChunkSteps + t, smaller(steps - t, kBackwardSteps), true, false);
      }
#pragma unroll
      for (int j = 0; j < kGroupSteps; ++j) {
        const int at = t % kBackwardSteps + j;
        const float2 du = pair[at * kRow + c];
        const Four bs = four(b_mine + at * b_pitch);
        const float drive = du.x * du.y;
#pragma unroll
        for (int i = 0; i < kThreadStates; ++i) scan_step<ScanMath>(du.x, A2[i], drive, bs.v[i], now[i]);
      }
#pragma unroll
      for (int i = 0; i < kThreadStates; ++i) kept[(t / kGroupSteps + 1) * kThreadStates + i] = now[i];
    }
    return staged;
  }
  // Step j of the group at step t of the tile, from the state `before` the group.
  BDGF_DEV_METHOD void record(int t, int j, const float* before) {
    const float2 du = pair[(t + j) * kRow + c];
    const Four bs = four(b_mine + (t + j) * b_pitch);
    const float drive = du.x * du.y;
#pragma unroll
    for (int i = 0; i < kThreadStates; ++i) {
      x[j][i] = j ? x[j - 1][i] : before[i];
      decay[j][i] = scan_step<ScanMath>(du.x, A2[i], drive, bs.v[i], x[j][i]);
    }
  }

  // -------------------------------------------------------------------------------------------- the adjoint
  // What four steps of the adjoint leave in a thread, before it is summed over lanes.
  struct FourSteps {
    float sum_exponent[kFoldSteps], sum_drive[kFoldSteps], y[kFoldSteps], term[kFoldSteps];
  };

  // Groups of up to eight steps, in whole quadruples; of a pack, a group is a row. `tile` is the first step of the tile in its
  // chunk, `count` the steps that are staged.
  BDGF_DEV_METHOD void tile_back(int chunk, int tile, int count) {
    const int group_steps = packed() ? row_slot((int)pack.steps) : kGroupSteps;
#pragma unroll 1
    for (int t = (count - 1) / group_steps * group_steps; t >= 0; t -= group_steps) {
      const int n = smaller(count - t, group_steps);
      const int64_t segment = packed() ? pack.segment + t / group_steps : pack.segment;
      if (packed() || (int64_t)chunk * kChunkSteps + tile + t + n == pack.steps) load_borders(segment);
      const float* const before = kept + (packed() ? 0 : (tile + t) / kGroupSteps) * kThreadStates;
#pragma unroll
      for (int j = 0; j < kFoldSteps; ++j) record(t, j, before);
      if (n > kFoldSteps) {
#pragma unroll
        for (int j = kFoldSteps; j < kGroupSteps; ++j) record(t, j, before);
        four_back(t, kFoldSteps, n, before);
      }
      four_back(t, 0, n, before);
      if (a.grad_initial.data && (packed() || chunk * kChunkSteps + tile + t == 0)) store_grad_initial(segment);
    }
    __syncthreads();
  }
  // What is carried into a segment from behind; of a pack, the state before it as well.
  BDGF_DEV_METHOD void load_borders(int64_t segment) {
    const bool zero = !has_adjoint_after(call) && !(packed() && has_states_before(call));
    if (zero) {
#pragma unroll
      for (int i = 0; i < kThreadStates; ++i) carry[i] = 0.0f;
      if (packed()) {
#pragma unroll
        for (int i = 0; i < kThreadStates; ++i) kept[i] = 0.0f;
      }
      return;
    }
#pragma unroll 1
    for (int i = 0; i < kThreadStates; ++i) {
      kept[kEdge + i] = exists(i) ? adjoint_after(call, b.k, segment, b.channel + c, state(i)) : 0.0f;
      if (packed()) kept[i] = exists(i) ? state_before(call, b.k, segment, b.channel + c, state(i)) : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < kThreadStates; ++i) carry[i] = kept[kEdge + i];
  }
  BDGF_DEV_METHOD void store_grad_initial(int64_t segment) {
    const int64_t row = divide(segment, call.g.segments_per_row);
#pragma unroll
    for (int i = 0; i < kThreadStates; ++i) kept[kEdge + i] = carry[i];
#pragma unroll 1
    for (int i = 0; i < kThreadStates; ++i) {
      const ScanTensor& o = a.grad_initial;
      if (!exists(i) || segment != row * call.g.segments_per_row) continue;
      static_cast<float*>(o.data)[row * o.batch + (b.channel + c) * o.channel + state(i) * o.state] = kept[kEdge + i];
    }
  }

  // Four recorded steps, `from` ... `from` + 3 of the group at step t of the tile, backwards; `n` steps of the group exist.
  BDGF_DEV_METHOD void four_back(int t, int from, int n, const float* before) {
    FourSteps f;
    if (gated) recompute_y(f, t + from, from);
#pragma unroll
    for (int i = kFoldSteps - 1; i >= 0; --i) step_back(f, i, t, from + i, before);
    fold_terms(f, t + from);
    finish_four(f, t, from, n);
  }
  BDGF_DEV_METHOD void recompute_y(FourSteps& f, int at, int from) {
#pragma unroll
    for (int i = 0; i < kFoldSteps; ++i) {
      const Four cs = four(c_mine + (at + i) * c_pitch);
      const float(&now)[kThreadStates] = x[from + i];
      f.y[i] = fmaf(cs.v[0], now[0], fmaf(cs.v[1], now[1], fmaf(cs.v[2], now[2], cs.v[3] * now[3])));
    }
    fold_steps(f.y, split, lane);
  }
  // Step j of the group at step t; number i of its quadruple.
  BDGF_DEV_METHOD void step_back(FourSteps& f, int i, int t, int j, const float* before) {
    constexpr unsigned whole = 0xffffffffu;
    const float2 du = pair[(t + j) * kRow + c];
    const float gy = tile_g[(t + j) * kRow + c], drive = du.x * du.y;
    const Four bs = four(b_mine + (t + j) * b_pitch), cs = four(c_mine + (t + j) * c_pitch);
    f.sum_exponent[i] = f.sum_drive[i] = 0.0f;
    float term_b[kThreadStates], term_c[kThreadStates];
#pragma unroll
    for (int n = 0; n < kThreadStates; ++n) {
      const float lambda = scan_adjoint_step<ScanMath>(decay[j][n], j ? x[j - 1][n] : before[n], du.x, gy, A2[n], bs.v[n], cs.v[n],
                                                       carry[n], f.sum_exponent[i], f.sum_drive[i], grad_A[n]);
      term_b[n] = lambda * drive;
      term_c[n] = gy * x[j][n];
    }
    if (kConstant && a.constant_b) {
#pragma unroll
      for (int n = 0; n < kThreadStates; ++n) kept[kSumB + n] += term_b[n];
    }
    if (kConstant && a.constant_c) {
#pragma unroll
      for (int n = 0; n < kThreadStates; ++n) kept[kSumC + n] += term_c[n];
    }
    term_b[0] += __shfl_xor_sync(whole, term_b[2], 2);
    term_b[1] += __shfl_xor_sync(whole, term_b[3], 2);
    term_c[0] += __shfl_xor_sync(whole, term_c[2], 2);
    term_c[1] += __shfl_xor_sync(whole, term_c[3], 2);
    term_b[0] += __shfl_xor_sync(whole, term_b[1], 1);
    term_c[0] += __shfl_xor_sync(whole, term_c[1], 1);
    const bool upper = lane & 4;  // from here on these lanes are dC's
    f.term[i] = (upper ? term_c[0] : term_b[0]) + __shfl_xor_sync(whole, upper ? term_b[0] : term_c[0], 4);
  }
  // The rest of the sums of dB and dC over a warp's channels.
  BDGF_DEV_METHOD void fold_terms(FourSteps& f, int at) {
    constexpr unsigned whole = 0xffffffffu;
    if (split < 4) {
#pragma unroll
      for (int i = 0; i < kFoldSteps; ++i) f.term[i] += __shfl_xor_sync(whole, f.term[i], 8);
    }
    if (split < 2) {
#pragma unroll
      for (int i = 0; i < kFoldSteps; ++i) f.term[i] += __shfl_xor_sync(whole, f.term[i], 16);
    }
    if (lane % lanes < 8) {
      float* const row = terms + (thread / 32 * kBackwardSteps + at) * kTermRow;
      float* const to = row + (lane & 4 ? 16 : 0) + s * kThreadStates + order;
#pragma unroll
      for (int i = 0; i < kFoldSteps; ++i) to[i * kTermRow] = f.term[i];
    }
  }
  // The sums over the states, and with them ddelta, du and what sums over rows.
  BDGF_DEV_METHOD void finish_four(FourSteps& f, int t, int from, int n) {
    fold_steps(f.sum_exponent, split, lane);
    fold_steps(f.sum_drive, split, lane);
    __syncwarp();  // all lanes of the channel have read these pairs
#pragma unroll
    for (int i = 0; i < kFoldSteps; ++i) {
      const int at = from + s * own + i;
      if (i < own && at < n) {
        const int e = (t + at) * kRow + c;
        const float2 du = pair[e];
        const float gy = tile_g[e], D = skip[c];
        float grad_delta = scan_grad_delta<ScanMath>(f.sum_exponent[i], f.sum_drive[i], du.y);
        if (a.softplus) grad_delta *= scan_softplus_slope<ScanMath>(du.x);
        sum_bias += grad_delta;
        sum_D = fmaf(gy, du.y, sum_D);
        pair[e] = make_float2(grad_delta, fmaf(du.x, f.sum_drive[i], gy * D));
        if (gated) tile_g[e] = fmaf(D, du.y, f.y[i]);
      }
    }
  }

  // -------------------------------------------------------------------------------------------- storing
  BDGF_DEV_METHOD void store_tile() {
    const ThreadElements w = elements_of_tile();
    store_elements(call.grad_delta, kGradDelta, w, [&](int e) { return pair[e].x; });
    store_elements(call.grad_u, kGradU, w, [&](int e) { return pair[e].y; });
    if (call.grad_z.partials) {  // y itself: the gate needs the sum of the partial results
      store_elements(call.grad_z, kGradZ, w, [&](int e) { return tile_g[e]; });
    } else if (call.grad_z.t.data) {
      store_grad_z(w);
    }
    store_terms(call.grad_B, kGradB, 0);
    store_terms(call.grad_C, kGradC, 16);
  }
  template <class Value>
  BDGF_DEV_METHOD void store_elements(const ScanTarget& o, int tensor, const ThreadElements& w, const Value& value) {
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
  BDGF_DEV_METHOD void store_grad_z(const ThreadElements& w) {
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
  BDGF_DEV_METHOD void store_terms(const ScanTarget& o, int tensor, int part) {
    if (!o.t.data) return;
    const bool along = along_steps(o.t, o.t.state);
    ThreadElements v = thread_elements(along, kLogBackward, 2 + log_split, kLogChannels + log_split, b.states);
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
  }
  // What sums over rows, of all rows of the block, to its part of call.sums.
  BDGF_DEV_METHOD void store_sums() {
#pragma unroll 1
    for (int by = lanes; by < 32; by *= 2) {
      sum_D += __shfl_xor_sync(0xffffffffu, sum_D, by);
      sum_bias += __shfl_xor_sync(0xffffffffu, sum_bias, by);
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
      sums[l.skip + line] = sum_D;
      sums[l.bias + line] = sum_bias;
    }
  }
};

template <class T, bool kConstant>
__global__ void __launch_bounds__(kMostThreads, 3) selective_scan_backward_kernel(const ScanCall call) {
  BDGF_THREADS(kMostThreads);
  BDGF_DYNAMIC_SHARED(float, shared);
  BackwardScan<T, kConstant> scan(call, shared);
  scan.start();
  for (int index = 0; scan.next_pack(index); ++index) {
    for (int chunk = scan.last_chunk(); chunk >= 0; --chunk) {
      const int steps = scan.steps_of_chunk(chunk);
      int staged = scan.packed() ? -1 : scan.keep_states(chunk, steps);
#pragma unroll 1
      for (int tile = (steps - 1) / kBackwardSteps * kBackwardSteps; tile >= 0; tile -= kBackwardSteps) {
        const int count = smaller(steps - tile, kBackwardSteps);
        scan.stage((int64_t)chunk * kChunkSteps + tile, count, staged != tile, true);
        staged = -1;
        scan.tile_back(chunk, tile, count);
        scan.store_tile();
      }
    }
  }
  scan.store_sums();
}

}  // namespace BDGF_ISA
}  // namespace bdgf
