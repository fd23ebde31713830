// What the cases of the native check share: tensors with guarded ends, the same random numbers in any dtype, closeness.
#pragma once
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "bdgf/tensor_view.h"
#include "bdgf/types.h"
#include "cpu/kernel_table.h"

namespace check {

using bdgf::DType;
using bdgf::KernelTable;
using bdgf::TensorView;
using Shape = std::vector<int64_t>;

inline int64_t item_size(DType t) {
  return t == DType::f64 || t == DType::i64 ? 8 : t == DType::f32 ? 4 : t == DType::boolean ? 1 : 2;
}
inline double read(const char* at, DType dtype) {
  double d;
  float f;
  uint16_t h;
  switch (dtype) {
    case DType::f64: return std::memcpy(&d, at, 8), d;
    case DType::f32: return std::memcpy(&f, at, 4), f;
    case DType::f16: return std::memcpy(&h, at, 2), bdgf::f16_to_float(h);
    default: return std::memcpy(&h, at, 2), bdgf::bits_to_float(static_cast<uint32_t>(h) << 16);
  }
}
inline void write(char* at, DType dtype, double value) {
  const float f = static_cast<float>(value);
  const uint16_t h = dtype == DType::f16 ? bdgf::float_to_f16(f) : bdgf::float_to_bf16(f);
  if (dtype == DType::f64) std::memcpy(at, &value, 8);
  else if (dtype == DType::f32) std::memcpy(at, &f, 4);
  else std::memcpy(at, &h, 2);
}

// Strides of a tensor: its dimensions in memory order, or the second moved to the end (channels last), or rows with a gap.
enum class Layout { dense, channels_last, gapped };

// Storage filled with 0xff, NaN in every format, which goes on beyond both ends and in the gaps.
class Tensor {
 public:
  Tensor() = default;
  Tensor(Shape shape, DType dtype, Layout layout = Layout::dense) {
    view_.present = true, view_.dtype = dtype, view_.ndim = static_cast<int32_t>(shape.size()), view_.numel = 1;
    std::vector<int> order;  // from the innermost
    for (int i = view_.ndim - 1; i >= 0; --i) order.push_back(i);
    if (layout == Layout::channels_last && view_.ndim > 2) {
      order.pop_back(), order.pop_back();
      order.insert(order.begin(), 1), order.push_back(0);
    }
    int64_t span = 1;
    for (size_t k = 0; k < order.size(); ++k) {
      view_.stride[order[k]] = span;
      span *= shape[order[k]];
      if (k == 0 && layout == Layout::gapped) span += 3;
    }
    for (int i = 0; i < view_.ndim; ++i) view_.shape[i] = shape[i], view_.numel *= shape[i];
    bytes_ = std::make_shared<std::vector<char>>(span * item_size(dtype) + 2 * kGuard + 64, static_cast<char>(0xff));
    char* first = bytes_->data() + kGuard;
    view_.data = first + (64 - reinterpret_cast<uintptr_t>(first) % 64) % 64;
  }
  const TensorView& view() const { return view_; }
  bool present() const { return view_.present; }
  Shape shape() const { return Shape(view_.shape, view_.shape + view_.ndim); }
  char* at(int64_t index) const {  // of the index-th element in row-major order
    int64_t offset = 0;
    for (int i = view_.ndim - 1; i >= 0; --i) offset += index % view_.shape[i] * view_.stride[i], index /= view_.shape[i];
    return static_cast<char*>(view_.data) + offset * item_size(view_.dtype);
  }
  double get(int64_t index) const { return read(at(index), view_.dtype); }
  void set(int64_t index, double value) const { write(at(index), view_.dtype, value); }
  template <class T>
  T* as() const { return static_cast<T*>(view_.data); }

  // Every byte that is no element's is as it was.
  bool guarded() const {
    std::vector<char> copy = *bytes_;
    for (int64_t i = 0; i < view_.numel; ++i) {
      std::memset(copy.data() + (at(i) - bytes_->data()), 0xff, static_cast<size_t>(item_size(view_.dtype)));
    }
    for (char c : copy)
      if (c != static_cast<char>(0xff)) return false;
    return true;
  }

 private:
  static constexpr int64_t kGuard = 128;
  std::shared_ptr<std::vector<char>> bytes_;
  TensorView view_;
};

// One way to run a case: inputs are rounded to `rounded` and stored as `stored` (f64: the exact answer to the same numbers).
struct Setting {
  DType rounded, stored;
  const KernelTable* table;
  int threads;
  Layout layout;
};

// The tensors of a run: the same numbers for the same sequence of calls.
class Maker {
 public:
  explicit Maker(const Setting& setting, uint64_t seed) : s_(setting), state_(seed) {}
  Tensor data(Shape shape, double low = -1, double high = 1) { return filled(shape, s_.stored, s_.rounded, s_.layout, low, high); }
  Tensor parameter(Shape shape, double low = -1, double high = 1) {
    return filled(shape, arithmetic(), DType::f32, Layout::dense, low, high);
  }
  Tensor data_out(Shape shape) { return kept(Tensor(shape, s_.stored, s_.layout)); }
  Tensor parameter_out(Shape shape) { return kept(Tensor(shape, arithmetic())); }
  Tensor workspace(int64_t elements) { return Tensor({elements < 1 ? 1 : elements}, arithmetic()); }
  Tensor mask(Shape shape) {
    Tensor t(shape, DType::boolean);
    for (int64_t i = 0; i < t.view().numel; ++i) *t.at(i) = next() < 0.7;
    return t;
  }
  DType arithmetic() const { return s_.stored == DType::f64 ? DType::f64 : DType::f32; }
  double next() {  // in [0, 1): splitmix64
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
  }
  std::vector<Tensor> outputs() const { return outputs_; }

 private:
  Tensor filled(const Shape& shape, DType stored, DType rounded, Layout layout, double low, double high) {
    Tensor t(shape, stored, layout);
    char buffer[8];
    for (int64_t i = 0; i < t.view().numel; ++i) {
      write(buffer, rounded, low + (high - low) * next());
      t.set(i, read(buffer, rounded));
    }
    return t;
  }
  Tensor kept(Tensor t) {
    outputs_.push_back(t);
    return t;
  }
  Setting s_;
  uint64_t state_;
  std::vector<Tensor> outputs_;
};

inline std::string sizes(const Shape& shape) {
  std::string text;
  for (int64_t n : shape) text += (text.empty() ? "(" : ", ") + std::to_string(n);
  return text + ")";
}

using Run = std::function<std::vector<Tensor>(const Setting&)>;
struct Case {
  std::string name;
  Run run;
  Run exact;  // empty: run itself, in float64 at the scalar level
};
std::vector<Case> scan_cases();
std::vector<Case> layer_cases();
std::vector<Case> map_cases();
std::vector<Case> noise_cases();

// Functions over arrays, 16-bit formats, known answers of the generator; each problem found is a sentence.
void check_functions(const KernelTable& table, std::vector<std::string>& problems);
// What run_tasks promises.
void check_threads(std::vector<std::string>& problems);
// "name hash" of outputs whose bits are a contract on every level and machine.
std::vector<std::string> noise_bits(const KernelTable& table);

}  // namespace check
