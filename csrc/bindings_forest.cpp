// Decision forests.
#include "bdgf/decision_forest.h"

#include "cpu/kernel_table.h"
#include "tensor_arg.h"

namespace bdgf {
namespace {

TensorView table_arg(const char* op, const char* name, py::handle value, DType dtype, std::initializer_list<int64_t> shape) {
  const TensorView t = tensor_arg(op, name, value);
  check_dtype(op, name, t, {dtype});
  check_shape(op, name, t, shape);
  check_contiguous(op, name, t);
  if (t.device != Device::cpu) bad_value(op, name, "is not on the CPU");
  return t;
}

bool fits(const DecisionForestArgs& a, int64_t nodes, int64_t i) {
  const int64_t feature = a.feature[i], left = a.child[2 * i], right = a.child[2 * i + 1];
  const bool leaf = (left == i) & (right == i), inner = (left > i) & (right > i) & (left < nodes) & (right < nodes);
  return (feature >= 0) & (feature < a.x.shape[1]) & (leaf | inner);
}

// Checks the numbers that the kernel reads by: one out of range would leave a table, and with a child before its node the search
// could go on for ever.
void check_tables(const char* op, const DecisionForestArgs& a, int64_t nodes) {
  bool fine = true;
  for (int64_t i = 0; i < nodes; ++i) fine &= fits(a, nodes, i);
  for (int64_t i = 0; i < nodes && !fine; ++i) {
    if (fits(a, nodes, i)) continue;
    if (a.feature[i] < 0 || a.feature[i] >= a.x.shape[1]) {
      bad_value(op, "feature", "has " + std::to_string(a.feature[i]) + "; it takes 0 to " + std::to_string(a.x.shape[1] - 1));
    }
    bad_value(op, "child", "of node " + std::to_string(i) + " is (" + std::to_string(a.child[2 * i]) + ", " +
                               std::to_string(a.child[2 * i + 1]) + "); it takes the node itself twice (a leaf), or two nodes " +
                               "after it, up to " + std::to_string(nodes - 1));
  }
  for (int64_t t = 0; t < a.trees; ++t) {
    if (a.root[t] < 0 || a.root[t] >= nodes) {
      bad_value(op, "root", "has " + std::to_string(a.root[t]) + "; it takes 0 to " + std::to_string(nodes - 1));
    }
  }
}

void decision_forest(py::handle out, py::handle x, py::handle feature, py::handle threshold, py::handle child,
                     py::handle share, py::handle root, int num_threads) {
  const char* op = "decision_forest";
  DecisionForestArgs args{};
  args.x = tensor_arg(op, "x", x);
  check_dtype(op, "x", args.x, {DType::f32});
  check_ndim(op, "x", args.x, 2, 2);
  if (args.x.device != Device::cpu) bad_value(op, "x", "is not on the CPU");
  const TensorView features = table_arg(op, "feature", feature, DType::i32, {-1});
  const int64_t nodes = features.numel;
  const TensorView shares = table_arg(op, "share", share, DType::f32, {nodes, -1});
  const TensorView roots = table_arg(op, "root", root, DType::i32, {-1});
  args.classes = shares.shape[1];
  args.trees = roots.numel;
  if (args.trees < 1) bad_value(op, "root", "has no tree; it takes at least one");
  args.feature = static_cast<const int32_t*>(features.data);
  args.threshold = static_cast<const float*>(table_arg(op, "threshold", threshold, DType::f32, {nodes}).data);
  args.child = static_cast<const int32_t*>(table_arg(op, "child", child, DType::i32, {nodes, 2}).data);
  args.share = static_cast<const float*>(shares.data);
  args.root = static_cast<const int32_t*>(roots.data);
  args.out = static_cast<float*>(table_arg(op, "out", out, DType::f32, {args.x.shape[0], args.classes}).data);
  py::gil_scoped_release release;
  check_tables(op, args, nodes);
  if (args.x.shape[0] && args.classes) kernels().decision_forest(args, num_threads);
}

}  // namespace

void bind_forest(py::module_& m) {
  m.def("decision_forest", &decision_forest, py::arg("out"), py::arg("x"), py::arg("feature"), py::arg("threshold"),
        py::arg("child"), py::arg("share"), py::arg("root"), py::arg("num_threads"),
        "Fill out (n, K) with the mean over the trees of the leaves' shares: bdgf_fast.ops.decision_forest.");
}

}  // namespace bdgf
