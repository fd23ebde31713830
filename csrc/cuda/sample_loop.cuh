// How the elementwise kernels go through a batch of samples: in items of 4 K neighbouring elements that share K Philox blocks, so
// that a thread draws no normal it does not use and moves 16 bytes at once where the layout allows it. for_each_item is the loop
// of all of them. Where the tensors are dense and large, a thread takes several items of a sample, which share what it computes
// once: the key, the bounds, the addresses, the sample's coefficients.
//
// The axes of a sample are those that all tensors have in common (dense tensors: a single one). The innermost is a row; an
// element's offset in a tensor, and its number in the noise's count, are both sums of coordinate times stride.
#pragma once
#include "cuda/storage.cuh"  // before the shared headers: it says what is compiled for

#include "bdgf/noise.h"
#include "bdgf/sample_view.h"

namespace bdgf {
namespace BDGF_ISA {

// Division by a number that is known beforehand: a multiplication and a shift for dividends below 2^31 (Granlund and
// Montgomery, PLDI 1994, figure 4.1), the machine's 64-bit division beyond or where multiplier is 0.
struct Divider {
  int64_t divisor;
  uint32_t multiplier;
  int32_t shift;
};
static inline Divider divider(int64_t d) {
  if (d < 1 || d > 0x7fffffff) return {d, 0, 0};
  int shift = 0;
  while ((int64_t{1} << shift) < d) ++shift;
  return {d, (uint32_t)(((uint64_t)((int64_t{1} << shift) - d) << 32) / (uint64_t)d + 1), shift};
}
static __device__ __forceinline__ int64_t divide(int64_t n, const Divider& d) {
  if (d.multiplier && n < 0x80000000) return (__umulhi((uint32_t)n, d.multiplier) + (uint32_t)n) >> d.shift;
  return n / d.divisor;
}

struct Strided {
  void* data;
  int64_t batch, column, stride[kMaxDims];  // of a sample, of an element of a row, of the outer axes from the outermost in
};

struct SampleLoop {
  int64_t batch, row_length;
  int64_t inner_rows;      // of one coordinate of the outermost axis
  Divider per_sample;      // threads
  Divider per_row;         // items
  Divider rows;            // of a sample
  Divider extent[kMaxDims];
  int32_t axes;            // outside the row
  // Samples are single rows of a multiple of 16 elements, which are counted from 0 and begin at multiples of 16 bytes in all
  // tensors; and they are so many and so long that a thread takes kItemsPerThread items at a time.
  bool dense;
  bool row_fastest;        // neighbouring threads take neighbouring rows: the layout is channels-last
  Strided count;           // the noise's element numbers
  const int64_t* origin;   // of a sample in its scene: adds origin . (count_row, 1)
  int64_t count_row;
};

// A part of a sample: coordinates first ... first + outer - 1 of the outermost axis; of a sample that is one row, elements.
struct Part {
  int64_t first, outer, length;
  Divider rows;  // all of the part, for row_fastest
};

template <int K, int N>
struct Item {
  int64_t element;    // of the first normal, in the noise's count
  int64_t column;     // of that element in its row; below 0 where the row begins inside the item
  int begin, end;     // elements of the item that belong to the row: none where begin >= end
  bool packed;        // all of them do, and in every tensor they lie side by side, from a multiple of 16 bytes on
  int64_t offset[N];  // of column 0, in each tensor
};

static __host__ __device__ __forceinline__ Part whole(const SampleLoop& w) {
  return {0, w.axes ? w.extent[0].divisor : 1, w.row_length, w.rows};
}
template <int K>
static __host__ __device__ __forceinline__ int64_t items_of(const SampleLoop& w, const Part& p) {
  return w.axes ? p.outer * w.inner_rows * w.per_row.divisor : (p.length + 8 * K - 2) / (4 * K);
}

// Item i of a part of sample b.
template <int K, int N>
static __device__ __forceinline__ Item<K, N> locate(const SampleLoop& w, const Strided (&t)[N], int64_t b, const Part& p,
                                                    int64_t i) {
  Item<K, N> item;
  const int64_t outermost = w.axes ? w.count.stride[0] : 1;
  int64_t k = i, row = 0, start = p.first * outermost;
  if (w.origin) start += w.origin[2 * b] * w.count_row + w.origin[2 * b + 1];
  for (int n = 0; n < N; ++n) item.offset[n] = b * t[n].batch + p.first * (w.axes ? t[n].stride[0] : t[n].column);
  if (w.axes) {
    if (w.row_fastest) {
      k = divide(i, p.rows);
      row = i - k * p.rows.divisor;
    } else {
      row = divide(i, w.per_row);
      k = i - row * w.per_row.divisor;
    }
    for (int s = 0; s < w.axes; ++s) {
      const int d = w.row_fastest ? s : w.axes - 1 - s;
      int64_t at = row;
      if (s < w.axes - 1) {
        if (d == 0) {  // a part's own size
          row = row / p.outer;
          at -= row * p.outer;
        } else {
          row = divide(row, w.extent[d]);
          at -= row * w.extent[d].divisor;
        }
      }
      start += at * w.count.stride[d];
      for (int n = 0; n < N; ++n) item.offset[n] += at * t[n].stride[d];
    }
  }
  item.element = 4 * K * ((start >> (K == 1 ? 2 : 3)) + k);
  item.column = item.element - start;
  item.begin = item.column < 0 ? (int)-item.column : 0;
  item.end = p.length - item.column < 4 * K ? (int)(p.length - item.column) : 4 * K;
  item.packed = false;
  return item;
}

// The same in a dense loop, for a part that starts with a whole item, and for an item that is whole. What is known of such items
// when this is compiled leaves little to compute.
template <int K, int N>
static __device__ __forceinline__ Item<K, N> locate_packed(const Strided (&t)[N], int64_t b, int64_t first, int64_t i) {
  Item<K, N> item;
#pragma unroll
  for (int n = 0; n < N; ++n) item.offset[n] = b * t[n].batch + first;
  item.column = 4 * K * i;
  item.element = first + item.column;
  item.begin = 0;
  item.end = 4 * K;
  item.packed = true;
  return item;
}

// 16 bytes of a storage type are four or eight elements.
template <class T>
constexpr int kBlocksPerItem = sizeof(T) == 4 ? 1 : 2;
// 16 elements: what a thread does once costs about as much as four elements.
template <class T>
constexpr int kItemsPerThread = 4 / kBlocksPerItem<T>;

// body(of_sample(b), b, item) for all items of this thread, b being an item's sample: the loop of every elementwise kernel. The
// items of a thread lie far apart, so that neighbouring threads move neighbouring memory. kPacked false: no loop is dense, which
// takes fewer registers.
template <class T, bool kPacked, int N, class OfSample, class Body>
static __device__ __forceinline__ void for_each_item(const SampleLoop& w, const Strided (&t)[N], const OfSample& of_sample,
                                                     const Body& body) {
  constexpr int K = kBlocksPerItem<T>, M = kItemsPerThread<T>;
  const int64_t each = w.per_sample.divisor, threads = w.batch * each, step = (int64_t)gridDim.x * blockDim.x;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < threads; i += step) {
    const int64_t b = divide(i, w.per_sample), k = i - b * each;
    if (kPacked && w.dense) {
      const auto shared = of_sample(b);
#pragma unroll 1
      for (int m = 0; m < M; ++m) body(shared, b, locate_packed<K>(t, b, 0, k + m * each));
    } else {
      const Item<K, N> item = locate<K>(w, t, b, whole(w), k);
      if (item.begin < item.end) body(of_sample(b), b, item);
    }
  }
}
// body(item) for the items first ... last - 1 of a part of sample b that fall to this thread of a block.
template <class T, int N, class Body>
static __device__ __forceinline__ void for_each_item_of_part(const SampleLoop& w, const Strided (&t)[N], int64_t b,
                                                             const Part& part, int64_t first, int64_t last, const Body& body) {
  constexpr int K = kBlocksPerItem<T>, M = kItemsPerThread<T>;
  constexpr int kUnrolled = sizeof(T) == 4 ? M : 1;  // as the registers allow
  const int step = blockDim.x;
  const int64_t packed = w.dense && part.first % (4 * K) == 0 ? part.length / (4 * K) : 0;  // items that can be
  int64_t i = first + threadIdx.x;
  for (; i + (M - 1) * step < (last < packed ? last : packed); i += M * step) {
#pragma unroll kUnrolled
    for (int m = 0; m < M; ++m) body(locate_packed<K>(t, b, part.first, i + m * step));
  }
#pragma unroll 1
  for (; i < last; i += step) {
    const Item<K, N> item = locate<K>(w, t, b, part, i);
    if (item.begin < item.end) body(item);
  }
}

template <class T, int W, int M>
static __device__ __forceinline__ void load_packs(const T* p, float (&v)[M]) {
#pragma unroll
  for (int i = 0; i < M; i += W) {
    const Pack<T, W> pack = *(const Pack<T, W>*)(p + i);
#pragma unroll
    for (int j = 0; j < W; ++j) v[i + j] = widen(pack.value[j]);
  }
}
template <class T, int W, int M>
static __device__ __forceinline__ void store_packs(T* p, const float (&v)[M]) {
#pragma unroll
  for (int i = 0; i < M; i += W) {
    Pack<T, W> pack;
#pragma unroll
    for (int j = 0; j < W; ++j) store_rounded(&pack.value[j], v[i + j]);
    if (sizeof(pack) == 16) {
      uint4 bits;  // of a struct of its own the compiler may make four stores
      memcpy(&bits, &pack, sizeof(bits));
      *(uint4*)(p + i) = bits;
    } else {
      *(Pack<T, W>*)(p + i) = pack;
    }
  }
}

// v = the item's elements of tensor n; 0 where they are not of the row.
template <class T, int K, int N>
static __device__ __forceinline__ void load(const Strided& t, const Item<K, N>& item, int n, float (&v)[4 * K]) {
  constexpr int kFull = 16 / sizeof(T) < 4 * K ? 16 / sizeof(T) : 4 * K, kHalf = kFull / 2;
  if (item.packed) return load_packs<T, kFull>((const T*)t.data + item.offset[n] + item.column, v);
  const T* p = (const T*)t.data + item.offset[n] + item.column * t.column;
  if (t.column == 1 && item.begin == 0 && item.end == 4 * K) {
    if (pack_aligned<T, kFull>(p)) return load_packs<T, kFull>(p, v);
    if (pack_aligned<T, kHalf>(p)) return load_packs<T, kHalf>(p, v);
    if (pack_aligned<T, 4 / sizeof(T)>(p)) return load_packs<T, 4 / sizeof(T)>(p, v);
  }
#pragma unroll
  for (int j = 0; j < 4 * K; ++j) v[j] = j >= item.begin && j < item.end ? widen(p[j * t.column]) : 0.0f;
}
template <class T, int K, int N>
static __device__ __forceinline__ void store(const Strided& t, const Item<K, N>& item, int n, const float (&v)[4 * K]) {
  constexpr int kFull = 16 / sizeof(T) < 4 * K ? 16 / sizeof(T) : 4 * K, kHalf = kFull / 2;
  if (item.packed) return store_packs<T, kFull>((T*)t.data + item.offset[n] + item.column, v);
  T* p = (T*)t.data + item.offset[n] + item.column * t.column;
  if (t.column == 1 && item.begin == 0 && item.end == 4 * K) {
    if (pack_aligned<T, kFull>(p)) return store_packs<T, kFull>(p, v);
    if (pack_aligned<T, kHalf>(p)) return store_packs<T, kHalf>(p, v);
    if (pack_aligned<T, 4 / sizeof(T)>(p)) return store_packs<T, 4 / sizeof(T)>(p, v);
  }
#pragma unroll
  for (int j = 0; j < 4 * K; ++j)
    if (j >= item.begin && j < item.end) store_rounded(p + j * t.column, v[j]);
}

template <int K, int N>
static __device__ __forceinline__ void draw(const Item<K, N>& item, uint32_t sample, uint32_t stream, uint64_t key,
                                            float (&normal)[4 * K]) {
#pragma unroll
  for (int j = 0; j < K; ++j) {
    const int64_t block = (item.element >> 2) + j;
    normal4<DeviceMath>((uint32_t)block, (uint32_t)((uint64_t)block >> 32), sample, stream, key, normal + 4 * j);
  }
}

}  // namespace BDGF_ISA
}  // namespace bdgf
