// Statistics of boxes and decision forests, each beside the definition in float64.
#include <cmath>

#include "check.h"

namespace check {
namespace {

// What the definition says of the window around output (row, column) of a plane of x.
struct Window {
  double mean, deviation;
  bool varies;
};
Window window(const Tensor& x, int64_t plane, int64_t row, int64_t column, int64_t reach, int64_t radius) {
  const Shape shape = x.shape();
  const int64_t side = 2 * radius + 1, margin = reach - radius;
  double sum = 0, squares = 0;
  for (int64_t i = 0; i < side; ++i)
    for (int64_t j = 0; j < side; ++j) {
      const double value = x.get((plane * shape[2] + row + margin + i) * shape[3] + column + margin + j);
      sum += value, squares += value * value;
    }
  const double mean = sum / static_cast<double>(side * side), variance = squares / static_cast<double>(side * side) - mean * mean;
  return {mean, std::sqrt(std::fmax(variance, 0) + static_cast<double>(bdgf::kBoxEpsilon)), variance > 0};
}

// Fills out and the gradient of x.
void exact_boxes(const Tensor& x, const std::vector<int64_t>& radii, int64_t reach, const Tensor& grad, const Tensor& out, const Tensor& grad_x) {
  const Shape inner = out.shape(), outer = x.shape();
  const int64_t channels = outer[1], height = inner[2], width = inner[3];
  for (int64_t i = 0; i < x.view().numel; ++i) grad_x.set(i, 0);
  for (int64_t i = 0; i < inner[0] * channels * height * width; ++i) {
    const int64_t column = i % width, row = i / width % height, plane = i / width / height, b = plane / channels, c = plane % channels;
    const auto at = [&](int64_t kind) { return ((b * inner[1] + kind * channels + c) * height + row) * width + column; };
    const auto pixel = [&](int64_t y, int64_t z) { return (plane * outer[2] + row + y) * outer[3] + column + z; };
    out.set(at(0), x.get(pixel(reach, reach)));
    grad_x.set(pixel(reach, reach), grad_x.get(pixel(reach, reach)) + grad.get(at(0)));
    for (size_t r = 0; r < radii.size(); ++r) {
      const int64_t first = 1 + 2 * static_cast<int64_t>(r), side = 2 * radii[r] + 1, margin = reach - radii[r];
      const Window w = window(x, plane, row, column, reach, radii[r]);
      out.set(at(first), w.mean), out.set(at(first + 1), w.deviation);
      const double share = 1.0 / static_cast<double>(side * side), slope = w.varies ? grad.get(at(first + 1)) * share / w.deviation : 0;
      for (int64_t k = 0; k < side * side; ++k) {
        const int64_t j = pixel(margin + k / side, margin + k % side);
        grad_x.set(j, grad_x.get(j) + grad.get(at(first)) * share + slope * (x.get(j) - w.mean));
      }
    }
  }
}

std::vector<Tensor> boxes(const Shape& inner, const std::vector<int64_t>& radii, const Setting& s) {
  Maker make(s, 10);
  int64_t reach = 0;
  for (int64_t radius : radii) reach = radius > reach ? radius : reach;
  const Shape outer{inner[0], inner[1], inner[2] + 2 * reach, inner[3] + 2 * reach};
  const Shape result{inner[0], inner[1] * (1 + 2 * static_cast<int64_t>(radii.size())), inner[2], inner[3]};
  const Tensor x = make.data(outer), grad = make.data(result), out = make.data_out(result), grad_x = make.data_out(outer);
  if (s.stored == DType::f64) return exact_boxes(x, radii, reach, grad, out, grad_x), make.outputs();
  const int64_t step = bdgf::box_step(s.layout == Layout::channels_last, inner[1]);
  const Tensor space = make.workspace(s.threads * (bdgf::box_scratch(step, reach) + bdgf::box_maps(step, reach, outer[2], outer[3])));
  bdgf::BoxStatisticsArgs a{};
  a.x = x.view(), a.out = out.view(), a.workspace = space.view();
  a.radii = radii.data(), a.count = static_cast<int64_t>(radii.size()), a.reach = reach;
  s.table->box_statistics_fwd(a, s.threads);
  a.out = grad.view(), a.grad_x = grad_x.view();
  s.table->box_statistics_bwd(a, s.threads);
  return make.outputs();
}

// Trees whose nodes stand one after another; a node's children come after it.
struct Forest {
  std::vector<int32_t> feature, child, root;
  std::vector<float> threshold;
  Forest(int64_t trees, int64_t features, int depth, Maker& make) {
    for (int64_t t = 0; t < trees; ++t) {
      root.push_back(static_cast<int32_t>(feature.size()));
      grow(depth, features, make);
    }
  }

 private:
  int32_t grow(int depth, int64_t features, Maker& make) {
    const auto node = static_cast<int32_t>(feature.size());
    feature.push_back(static_cast<int32_t>(make.next() * static_cast<double>(features)));
    threshold.push_back(static_cast<float>(make.next() - 0.5));
    child.push_back(node), child.push_back(node);
    if (depth == 0 || make.next() < 0.1) return node;
    for (int side : {0, 1}) {
      const int32_t grown = grow(depth - 1, features, make);
      child[static_cast<size_t>(2 * node + side)] = grown;
    }
    return node;
  }
};

std::vector<Tensor> forest(int64_t rows, int64_t features, int64_t classes, int64_t trees, Setting s) {
  s.rounded = DType::f32;  // the only storage the kernel takes
  if (s.stored != DType::f64) s.stored = DType::f32;
  Maker make(s, 11);
  const Forest f(trees, features, 7, make);
  const auto nodes = static_cast<int64_t>(f.feature.size());
  const Tensor x = make.data({rows, features}), share = make.parameter({nodes, classes}, 0, 1), out = make.parameter_out({rows, classes});
  x.set(rows / 2 * features, std::nan(""));  // NaN goes left
  if (s.stored != DType::f64) {
    bdgf::DecisionForestArgs a{};
    a.x = x.view(), a.feature = f.feature.data(), a.threshold = f.threshold.data(), a.child = f.child.data();
    a.share = share.as<float>(), a.root = f.root.data(), a.out = out.as<float>(), a.classes = classes, a.trees = trees;
    s.table->decision_forest(a, s.threads);
    return make.outputs();
  }
  for (int64_t i = 0; i < rows * classes; ++i) {
    double sum = 0;
    for (int32_t node : f.root) {
      for (int32_t before = -1; node != before;) {
        before = node;
        const auto at = static_cast<size_t>(node);
        node = f.child[2 * at + (x.get(i / classes * features + f.feature[at]) > static_cast<double>(f.threshold[at]))];
      }
      sum += share.get(node * classes + i % classes);
    }
    out.set(i, sum / static_cast<double>(trees));
  }
  return make.outputs();
}

}  // namespace

std::vector<Case> map_cases() {
  std::vector<Case> cases;
  struct Boxes {
    Shape inner;
    std::vector<int64_t> radii;
  };
  for (const Boxes& o : {Boxes{{1, 1, 1, 1}, {2}}, Boxes{{2, 3, 9, 21}, {1, 3}}, Boxes{{1, 19, 5, 34}, {0, 2, 5}}, Boxes{{1, 2, 35, 260}, {1}},
                         Boxes{{1, 5, 3, 7}, {10}}}) {
    cases.push_back({"box_statistics " + sizes(o.inner) + ", radii " + sizes(o.radii), [o](const Setting& s) { return boxes(o.inner, o.radii, s); }, {}});
  }
  for (const Shape& o : {Shape{1, 1, 1, 1}, Shape{13, 7, 5, 3}, Shape{250, 40, 17, 11}})
    cases.push_back({"decision_forest " + sizes(o), [o](const Setting& s) { return forest(o[0], o[1], o[2], o[3], s); }, {}});
  return cases;
}

}  // namespace check
