// Selective scan in float64, for gradchecks: each thread takes whole channels, one after the other, with the recurrence and
// its adjoint as scan_step.h writes them, in plain loops. Sums over the batch are formed in at most eight shares of its rows, which
// are then added in order, so that the results do not depend on the number of threads.
#include "cpu/selective_scan_f64.h"

#include <algorithm>
#include <cmath>
#define BDGF_ISA base
#include "cpu/parallel.h"

namespace bdgf {
namespace {

double& at(const ScanTensor& t, int64_t offset) { return static_cast<double*>(t.data)[offset]; }
double parameter(const ScanTensor& t, int64_t k, int64_t c) {
  return t.data ? at(t, k * t.direction + c * t.channel) : 0.0;
}
double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

// One channel of one direction in the order of its steps, in a slot of the workspace.
struct Sequence {
  const SelectiveScanArgs& a;
  int64_t b, k, c;
  double *delta, *slope, *x, *y, *grad_y, *grad_u, *grad_delta;  // [length]; x [1 + length], x[0] the state before
  static int64_t doubles(const SelectiveScanArgs& a) { return 7 * a.length + 8; }

  Sequence(const SelectiveScanArgs& args, double* p) : a(args), b(0), k(0), c(0) {
    for (double** field : {&delta, &slope, &y, &grad_y, &grad_u, &grad_delta, &x}) {
      *field = p;
      p += a.length;
    }
  }
  // Where step l of the scan stands in u.
  int64_t pixel(int64_t l) const {
    const ScanDirection d = scan_direction(a, k);
    const int64_t position = d.reversed ? a.length - 1 - l : l;
    return d.columns ? position % a.height * a.width + position / a.height : position;
  }
  int64_t step_of(int64_t l) const { return a.visiting_order ? l : pixel(l); }  // of B, C and a delta of each direction
  int64_t input(const ScanTensor& t, int64_t l) const { return b * t.batch + c * t.channel + pixel(l) * t.step; }
  // The offset in delta or its gradient.
  int64_t delta_index(const ScanTensor& t, int64_t l) const {
    return b * t.batch + k * t.direction + c * t.channel + (a.shared_delta ? pixel(l) : step_of(l)) * t.step;
  }
  // Of B or C, or of their gradients; a constant matrix has no batch, direction, group and step.
  int64_t matrix(const ScanTensor& t, int64_t groups, int64_t n, int64_t l) const {
    return b * t.batch + k * t.direction + c * groups / a.dim * t.group + c * t.channel + n * t.state + step_of(l) * t.step;
  }
  int64_t state(const ScanTensor& t, int64_t n) const { return b * t.batch + c * t.channel + n * t.state; }

  void open(int64_t batch, int64_t direction, int64_t channel) {
    b = batch;
    k = direction;
    c = channel;
    const double bias = parameter(a.delta_bias, k, c);
    for (int64_t l = 0; l < a.length; ++l) {
      const double raw = at(a.delta, delta_index(a.delta, l)) + bias;
      const bool curved = a.softplus && !(raw > 20.0);
      delta[l] = curved ? std::log1p(std::exp(raw)) : raw;
      slope[l] = curved ? sigmoid(raw) : 1.0;
    }
  }
  // Runs the recurrence of state n over all steps: the states go to x, and C x is added to y.
  void run(int64_t n) {
    const double A = at(a.A, k * a.A.direction + c * a.A.channel + n * a.A.state);
    x[0] = a.initial.data ? at(a.initial, state(a.initial, n)) : 0.0;
    for (int64_t l = 0; l < a.length; ++l) {
      const double drive = delta[l] * at(a.u, input(a.u, l));
      x[l + 1] = std::exp(delta[l] * A) * x[l] + drive * at(a.B, matrix(a.B, a.groups_b, n, l));
      y[l] += at(a.C, matrix(a.C, a.groups_c, n, l)) * x[l + 1];
    }
  }
};

void forward_channel(Sequence& s, const SelectiveScanArgs& a, int64_t b, int64_t c) {
  for (int64_t k = 0; k < a.directions; ++k) {
    s.open(b, k, c);
    std::fill_n(s.y, a.length, 0.0);
    for (int64_t n = 0; n < a.states; ++n) {
      s.run(n);
      if (a.last.data) at(a.last, s.state(a.last, n)) = s.x[a.length];
    }
    const double D = parameter(a.D, k, c);
    for (int64_t l = 0; l < a.length; ++l) {
      double y = s.y[l];
      if (a.D.data) y += D * at(a.u, s.input(a.u, l));
      if (a.z.data) {
        const double z = at(a.z, s.input(a.z, l));
        y *= z * sigmoid(z);
      }
      double& out = at(a.out, s.input(a.out, l));
      out = k ? out + y : y;
    }
  }
}

// Gradients that sum over steps and batch, [direction][channel][3 states + 2]: of A, constant B, constant C, D and delta_bias.
int64_t sums_of_channel(const SelectiveScanArgs& a) { return 3 * a.states + 2; }

void backward_channel(Sequence& s, const SelectiveScanArgs& a, int64_t b, int64_t k, int64_t c, double* sums) {
  s.open(b, k, c);
  const double D = parameter(a.D, k, c);
  std::fill_n(s.y, a.length, 0.0);
  if (a.grad_z.data)
    for (int64_t n = 0; n < a.states; ++n) s.run(n);
  for (int64_t l = 0; l < a.length; ++l) {
    const double u = at(a.u, s.input(a.u, l));
    double g = a.grad_out.data ? at(a.grad_out, s.input(a.grad_out, l)) : 0.0;
    if (a.z.data) {
      const double z = at(a.z, s.input(a.z, l)), gate = sigmoid(z);
      if (a.grad_z.data) at(a.grad_z, s.input(a.grad_z, l)) = g * (s.y[l] + D * u) * gate * (1.0 + z * (1.0 - gate));
      g *= z * gate;
    }
    s.grad_y[l] = g;
    s.grad_u[l] = D * g;
    s.grad_delta[l] = 0.0;
    sums[3 * a.states] += g * u;
  }
  for (int64_t n = 0; n < a.states; ++n) {
    s.run(n);
    const double A = at(a.A, k * a.A.direction + c * a.A.channel + n * a.A.state);
    double adjoint = a.grad_last.data ? at(a.grad_last, s.state(a.grad_last, n)) : 0.0;
    for (int64_t l = a.length - 1; l >= 0; --l) {
      const double u = at(a.u, s.input(a.u, l)), delta = s.delta[l], g = s.grad_y[l];
      const double decay = std::exp(delta * A), B = at(a.B, s.matrix(a.B, a.groups_b, n, l));
      adjoint += at(a.C, s.matrix(a.C, a.groups_c, n, l)) * g;
      const double through = adjoint * decay * s.x[l];
      s.grad_u[l] += adjoint * B * delta;
      s.grad_delta[l] += adjoint * B * u + through * A;
      sums[n] += through * delta;
      if (a.constant_b) sums[a.states + n] += adjoint * delta * u;
      else if (a.grad_B.data) at(a.grad_B, s.matrix(a.grad_B, a.groups_b, n, l)) += adjoint * delta * u;
      if (a.constant_c) sums[2 * a.states + n] += g * s.x[l + 1];
      else if (a.grad_C.data) at(a.grad_C, s.matrix(a.grad_C, a.groups_c, n, l)) += g * s.x[l + 1];
      adjoint *= decay;
    }
    if (a.grad_initial.data) at(a.grad_initial, s.state(a.grad_initial, n)) = adjoint;
  }
  for (int64_t l = 0; l < a.length; ++l) {
    const double through = s.grad_delta[l] * s.slope[l];
    sums[3 * a.states + 1] += through;
    if (a.grad_u.data) {
      double& g = at(a.grad_u, s.input(a.grad_u, l));
      g = k ? g + s.grad_u[l] : s.grad_u[l];
    }
    if (a.grad_delta.data) {
      double& g = at(a.grad_delta, s.delta_index(a.grad_delta, l));
      g = k && a.shared_delta ? g + through : through;
    }
  }
}

void clear_matrix(const SelectiveScanArgs& a, const ScanTensor& t, bool constant, int64_t groups, int64_t b) {
  if (!t.data || constant) return;
  for (int64_t k = 0; k < a.directions; ++k)
    for (int64_t g = 0; g < groups; ++g)
      for (int64_t n = 0; n < a.states; ++n)
        for (int64_t l = 0; l < a.length; ++l)
          at(t, b * t.batch + k * t.direction + g * t.group + n * t.state + l * t.step) = 0.0;
}

}  // namespace

void selective_scan_fwd_f64(const SelectiveScanArgs& a, int num_threads) {
  const int64_t rows = a.batch * a.dim, slots = std::max<int64_t>(1, std::min<int64_t>(num_threads, rows));
  if (a.workspace_floats) {
    *a.workspace_floats = 2 * slots * Sequence::doubles(a);
    return;
  }
  double* workspace = reinterpret_cast<double*>(a.workspace);
  base::parallel_for(slots, num_threads, [&](int64_t slot) {
    Sequence s(a, workspace + slot * Sequence::doubles(a));
    for (int64_t row = slot * rows / slots; row < (slot + 1) * rows / slots; ++row) {
      forward_channel(s, a, row / a.dim, row % a.dim);
    }
  });
}

void selective_scan_bwd_f64(const SelectiveScanArgs& a, int num_threads) {
  // Rows of the batch in up to 8 shares, each with sums of its own: the same for any number of threads.
  const int64_t shares = std::max<int64_t>(1, std::min<int64_t>(8, a.batch));
  const int64_t channels = a.directions * a.dim, width = sums_of_channel(a), sums = channels * width;
  const int64_t share_doubles = sums + Sequence::doubles(a);
  if (a.workspace_floats) {
    *a.workspace_floats = 2 * shares * share_doubles;
    return;
  }
  double* workspace = reinterpret_cast<double*>(a.workspace);
  base::parallel_for(shares, num_threads, [&](int64_t share) {
    double* mine = workspace + share * share_doubles;
    std::fill_n(mine, sums, 0.0);
    Sequence s(a, mine + sums);
    for (int64_t b = share * a.batch / shares; b < (share + 1) * a.batch / shares; ++b) {
      clear_matrix(a, a.grad_B, a.constant_b, a.groups_b, b);
      clear_matrix(a, a.grad_C, a.constant_c, a.groups_c, b);
      for (int64_t i = 0; i < channels; ++i) backward_channel(s, a, b, i / a.dim, i % a.dim, mine + i * width);
    }
  });
  for (int64_t i = 0; i < channels; ++i) {
    const int64_t k = i / a.dim, c = i % a.dim, states = a.states;
    for (int64_t j = 0; j < width; ++j) {
      double total = 0.0;
      for (int64_t share = 0; share < shares; ++share) total += workspace[share * share_doubles + i * width + j];
      const ScanTensor& t = j < states ? a.grad_A : j < 2 * states ? a.grad_B : j < 3 * states ? a.grad_C
                            : j == 3 * states ? a.grad_D : a.grad_delta_bias;
      if (!t.data || (j >= states && j < 2 * states && !a.constant_b) || (j >= 2 * states && j < 3 * states && !a.constant_c)) {
        continue;
      }
      const int64_t n = j < 3 * states ? j % states : 0;
      at(t, k * t.direction + c * t.channel + n * t.state) = total;
    }
  }
}

}  // namespace bdgf
