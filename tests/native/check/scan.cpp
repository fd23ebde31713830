#include "bdgf/selective_scan.h"

#include "check.h"
#include "cpu/selective_scan_f64.h"

namespace check {
namespace {

using bdgf::ScanTensor;
using bdgf::SelectiveScanArgs;

struct Options {
  int64_t batch, dim, length, states;
  int64_t groups_b = 1, groups_c = 1;
  bool constant_b = false, constant_c = false, softplus = true, gate = true, extras = true, reverse = false;
  int64_t directions = 1, height = 0, width = 0;
  bool shared_delta = false, visiting_order = false, checkpoints = false;
};

ScanTensor scan_tensor(const Tensor& t, const char* axes) {
  ScanTensor s;
  if (!t.present()) return s;
  s.data = t.view().data, s.dtype = t.view().dtype;
  for (int i = 0; axes[i]; ++i) {
    const int64_t stride = t.view().shape[i] == 1 ? 0 : t.view().stride[i];
    (axes[i] == 'b' ? s.batch : axes[i] == 'k' ? s.direction : axes[i] == 'g' ? s.group : axes[i] == 'c' ? s.channel
     : axes[i] == 'n' ? s.state : s.step) = stride;
  }
  return s;
}

void launch(const Setting& s, Maker& make, SelectiveScanArgs a, bool forward) {
  const bool wide = s.stored == DType::f64;
  const auto kernel = forward ? (wide ? bdgf::selective_scan_fwd_f64 : s.table->selective_scan_fwd)
                              : (wide ? bdgf::selective_scan_bwd_f64 : s.table->selective_scan_bwd);
  int64_t floats = 0;
  SelectiveScanArgs query = a;
  query.workspace_floats = &floats;
  kernel(query, s.threads);
  const Tensor space = make.workspace(floats);
  a.workspace = space.as<float>();
  kernel(a, s.threads);
}

std::vector<Tensor> run(const Options& o, const Setting& s) {
  Maker make(s, 1);
  const bool image = o.width > 0;
  const int64_t k = o.directions, b = o.batch, c = o.dim, n = o.states, l = o.length;
  SelectiveScanArgs a;
  a.batch = b, a.dim = c, a.length = l, a.states = n, a.directions = k;
  a.groups_b = o.groups_b, a.groups_c = o.groups_c, a.constant_b = o.constant_b, a.constant_c = o.constant_c;
  a.softplus = o.softplus, a.reverse = o.reverse, a.height = o.height, a.width = o.width;
  a.visiting_order = o.visiting_order, a.shared_delta = o.shared_delta;

  struct Role {
    const char* axes;
    Shape shape;
    bool parameter;
  };
  const Role x{"bcl", {b, c, l}, false}, state{"bcn", {b, c, n}, true};
  const Role rate = image ? Role{"bkcl", {b, o.shared_delta ? 1 : k, c, l}, false} : x;
  const Role decay = image ? Role{"kcn", {k, c, n}, true} : Role{"cn", {c, n}, true};
  const Role channel = image ? Role{"kc", {k, c}, true} : Role{"c", {c}, true};
  const auto matrix = [&](bool constant, int64_t groups) {
    return constant ? Role{"cn", {c, n}, true} : image ? Role{"bknl", {b, k, n, l}, false} : Role{"bgnl", {b, groups, n, l}, false};
  };
  const Role kept{"blcn", {b, (l + bdgf::kCheckpointSteps - 1) / bdgf::kCheckpointSteps, c, n}, true};
  const Role in = matrix(o.constant_b, o.groups_b), read = matrix(o.constant_c, o.groups_c);
  std::vector<Tensor> inputs;  // alive while the kernels run
  const auto input = [&](const Role& r, double low = -1, double high = 1) {
    return scan_tensor(r.parameter ? inputs.emplace_back(make.parameter(r.shape, low, high)) : inputs.emplace_back(make.data(r.shape, low, high)), r.axes);
  };
  const auto output = [&](const Role& r) { return scan_tensor(r.parameter ? make.parameter_out(r.shape) : make.data_out(r.shape), r.axes); };

  a.u = input(x), a.delta = o.softplus ? input(rate, -3, 1) : input(rate, 0.01, 0.7), a.A = input(decay, -1.5, -0.1);
  a.B = input(in), a.C = input(read);
  if (o.extras) a.D = input(channel), a.delta_bias = input(channel, 0, 0.3);
  if (o.gate && !image) a.z = input(x, -3, 3);
  if (o.extras && !image) a.initial = input(state), a.last = output(state);
  if (o.checkpoints) {
    const ScanTensor states = input(kept);
    if (s.stored != DType::f64) a.checkpoints = states;
  }
  a.out = output(x);
  launch(s, make, a, true);

  a.grad_out = input(x);
  if (o.extras && !image) a.grad_last = input(state);
  a.grad_u = output(x), a.grad_delta = output(rate), a.grad_A = output(decay), a.grad_B = output(in), a.grad_C = output(read);
  if (o.extras) a.grad_D = output(channel), a.grad_delta_bias = output(channel);
  if (a.z.data) a.grad_z = output(x);
  if (a.initial.data) a.grad_initial = output(state);
  a.out = a.last = ScanTensor{};
  launch(s, make, a, false);
  return make.outputs();
}

}  // namespace

std::vector<Case> scan_cases() {
  std::vector<Options> all;
  for (int64_t length : {1, 7, 33, 121}) all.push_back({2, 19, length, 16});
  all.push_back({1, 5, 300, 3});
  Options o{2, 12, 31, 8};
  o.groups_b = 2, o.groups_c = 4, o.reverse = true;
  all.push_back(o);
  o = {3, 8, 17, 5}, o.constant_b = true, o.gate = false;
  all.push_back(o);
  o = {3, 9, 17, 64}, o.constant_c = true, o.softplus = false, o.extras = false;
  all.push_back(o);
  o = {2, 7, 35, 16}, o.directions = 4, o.height = 5, o.width = 7;
  all.push_back(o);
  o.directions = 2, o.shared_delta = true;
  all.push_back(o);
  o.directions = 4, o.visiting_order = true, o.shared_delta = false;
  all.push_back(o);
  o = {70, 33, 4, 16};
  all.push_back(o);
  o = {1, 21, 2 * bdgf::kCheckpointSteps + 19, 16}, o.checkpoints = true;
  all.push_back(o);
  std::vector<Case> cases;
  for (const Options& one : all) {
    cases.push_back({"selective_scan (" + std::to_string(one.batch) + ", " + std::to_string(one.dim) + ", " + std::to_string(one.length) +
                         ", " + std::to_string(one.states) + "), directions " + std::to_string(one.directions),
                     [one](const Setting& s) { return run(one, s); }, {}});
  }
  return cases;
}

}  // namespace check
