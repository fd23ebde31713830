#include <cmath>

#include "check.h"

namespace check {
namespace {

namespace base = bdgf::base;
using bdgf::NoiseAddress;

struct Words {  // Philox on plain integers
  typedef uint32_t U;
  typedef uint32_t W;
  static W to_word(U a) { return a; }
  static U from_word(W a) { return a; }
  static void multiply_wide(W a, uint32_t m, W& high, W& low) {
    const uint64_t product = static_cast<uint64_t>(a) * m;
    high = static_cast<uint32_t>(product >> 32), low = static_cast<uint32_t>(product);
  }
  static W xor3(W a, W b, uint32_t key) { return a ^ b ^ key; }
};

// The normal at an element by the formula in float64.
double exact_normal(const NoiseAddress& a, int64_t sample, uint64_t element) {
  const uint64_t block = element / 4;
  uint32_t w[4];
  base::words4<Words>(static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), base::noise_sample(a, sample),
                      base::noise_stream(a), base::noise_key(a), w);
  const uint32_t* pair = w + (element % 4) / 2 * 2;
  const double radius = std::sqrt(-2 * std::log((pair[0] >> 1) * 0x1p-31 + 0x1p-32));
  const double angle = static_cast<int32_t>(pair[1]) * (3.14159265358979323846 / 4294967296.0);
  return element % 2 ? radius * std::sin(angle) : radius * std::cos(angle) * (pair[0] & 1 ? -1 : 1);
}

NoiseAddress address(const Shape& shape, const int64_t* origin, int purpose) {
  NoiseAddress a{};
  a.seed = 0x123456789abcdefu, a.purpose = base::purpose_constant(purpose), a.stream = 77;
  a.batch = shape[0], a.rows = 1, a.row_length = 1;
  for (size_t i = 1; i < shape.size(); ++i) a.row_length *= shape[i];
  if (origin) {
    a.origin = origin, a.extent_h = 101, a.extent_w = 87;
    a.rows = shape[1] * shape[2], a.row_length = shape[3], a.height = shape[2];
  }
  return a;
}

double exact_noise(const NoiseAddress& a, int64_t index) {  // of the index-th element of the tensor
  const int64_t each = a.rows * a.row_length, sample = index / each, rest = index % each;
  return exact_normal(a, sample, static_cast<uint64_t>(base::noise_row_start(a, sample, rest / a.row_length) + rest % a.row_length));
}

std::vector<int64_t> corners(int64_t batch) {
  std::vector<int64_t> origin;
  for (int64_t b = 0; b < batch; ++b) origin.push_back(3 * b + 1), origin.push_back(5 * b);
  return origin;
}

std::vector<Tensor> normals(const Shape& shape, bool scene, const Setting& s) {
  Setting dense = s;
  dense.layout = Layout::dense;
  Maker make(dense, 6);
  const auto origin = corners(shape[0]);
  const NoiseAddress where = address(shape, scene ? origin.data() : nullptr, base::kTargetNoise);
  const Tensor out = make.data_out(shape);
  if (s.stored == DType::f64) {
    for (int64_t i = 0; i < out.view().numel; ++i) out.set(i, exact_noise(where, i));
  } else {
    s.table->philox_normal({out.view(), where}, s.threads);
  }
  return make.outputs();
}

struct Steps {  // a schedule of 10 steps, and the step of each sample
  std::vector<float> sqrt_abar, sqrt_rest;
  std::vector<int64_t> t;
  explicit Steps(int64_t batch) {
    for (int i = 0; i < 10; ++i) {
      const double abar = 0.97 - 0.09 * i;
      sqrt_abar.push_back(static_cast<float>(std::sqrt(abar))), sqrt_rest.push_back(static_cast<float>(std::sqrt(1 - abar)));
    }
    for (int64_t b = 0; b < batch; ++b) t.push_back(b * 7 % 10);
  }
  bdgf::ScheduleView view() const { return {t.data(), 1, sqrt_abar.data(), sqrt_rest.data(), 10}; }
};

// x_t of shape (B, C, H, W); `mode` 0: every channel shown, 1: hidden ones 0, 2: hidden ones noise.
std::vector<Tensor> noised(const Shape& shape, bool scene, int mode, const Setting& s) {
  Maker make(s, 7);
  const Steps steps(shape[0]);
  const auto origin = corners(shape[0]);
  const Tensor x0 = make.data(shape), mask = make.mask({shape[0], shape[1]}), out = make.data_out(shape);
  bdgf::QSampleArgs a{};
  a.x0 = bdgf::sample_view(x0.view()), a.out = bdgf::sample_view(out.view()), a.schedule = steps.view();
  if (mode) a.channel_mask = mask.as<uint8_t>(), a.mask_batch_stride = shape[1], a.mask_channel_stride = 1;
  a.batch = shape[0], a.channels = shape[1], a.pixels = shape[2] * shape[3];
  a.draw = true, a.fill_with_noise = mode == 2;
  a.noise = address(shape, scene ? origin.data() : nullptr, base::kTargetNoise);
  a.fill = address(shape, scene ? origin.data() : nullptr, base::kMaskFill);
  if (s.stored != DType::f64) return s.table->q_sample(a, s.threads), make.outputs();
  for (int64_t i = 0; i < out.view().numel; ++i) {
    const int64_t channel = i / a.pixels, step = steps.t[channel / a.channels];
    const bool hidden = mode && a.channel_mask[channel];
    out.set(i, hidden ? (mode == 2 ? exact_noise(a.fill, i) : 0)
                      : steps.sqrt_abar[step] * x0.get(i) + steps.sqrt_rest[step] * exact_noise(a.noise, i));
  }
  return make.outputs();
}

std::vector<Tensor> loss(const Shape& shape, int prediction, bool with_hidden, const Setting& s) {
  Maker make(s, 8);
  const Steps steps(shape[0]);
  const int64_t batch = shape[0], pixels = shape[2] * shape[3], groups = 2, split = (shape[1] + 1) / 2;
  const Tensor pred = make.data(shape), x0 = make.data(shape), hidden = make.mask({batch, groups});
  const Tensor slope = make.parameter({batch, groups}), out = make.parameter_out({batch, groups});
  const Tensor grad_pred = make.data_out(shape), grad_x0 = make.data_out(shape);
  const std::vector<int64_t> begin{0, split * pixels, shape[1] * pixels};
  std::vector<int64_t> segments{0};
  for (int m = 0; m < 2; ++m) {
    segments.push_back(segments.back() + (begin[m + 1] - 1) / bdgf::kLossSegment - begin[m] / bdgf::kLossSegment + 1);
  }
  std::vector<double> partial(batch * segments.back());
  bdgf::DenoisingLossArgs a{};
  a.pred = bdgf::sample_view(pred.view()), a.x0 = bdgf::sample_view(x0.view()), a.schedule = steps.view();
  if (with_hidden) a.hidden = hidden.as<uint8_t>(), a.hidden_batch_stride = groups, a.hidden_group_stride = 1;
  a.group_begin = begin.data(), a.segment_begin = segments.data(), a.partial = partial.data();
  a.channels = shape[1], a.pixels = pixels, a.batch = batch, a.groups = groups, a.prediction = prediction;
  a.noise = address(shape, nullptr, base::kTargetNoise);
  if (s.stored != DType::f64) {
    a.loss = out.as<float>();
    s.table->denoising_loss(a, s.threads);
    a.loss = nullptr, a.grad_loss = slope.as<float>(), a.grad_batch_stride = groups, a.grad_group_stride = 1;
    a.grad_pred = bdgf::sample_view(grad_pred.view()), a.grad_x0 = bdgf::sample_view(grad_x0.view());
    s.table->denoising_loss_backward(a, s.threads);
    return make.outputs();
  }
  for (int64_t cell = 0; cell < batch * groups; ++cell) {
    const int64_t b = cell / groups, m = cell % groups, step = steps.t[b], each = shape[1] * pixels;
    const double abar = steps.sqrt_abar[step], rest = steps.sqrt_rest[step], count = static_cast<double>(begin[m + 1] - begin[m]);
    const int kind = with_hidden && a.hidden[cell] ? bdgf::kSample : prediction;
    double sum = 0;
    for (int64_t i = b * each + begin[m]; i < b * each + begin[m + 1]; ++i) {
      const double eps = exact_noise(a.noise, i), x = x0.get(i);
      const double target = kind == bdgf::kEpsilon ? eps : kind == bdgf::kSample ? x : abar * eps - rest * x;
      const double residual = pred.get(i) - target, pull = 2 * slope.get(cell) * residual / count;
      sum += residual * residual;
      grad_pred.set(i, pull), grad_x0.set(i, kind == bdgf::kEpsilon ? 0 : kind == bdgf::kSample ? -pull : pull * rest);
    }
    out.set(cell, sum / count);
  }
  return make.outputs();
}

// `source` of the noise: 0 none, 1 given, 2 drawn.
std::vector<Tensor> step(const Shape& shape, int source, bool clip, const Setting& s) {
  Maker make(s, 9);
  const Tensor pred = make.data(shape), sample = make.data(shape), given = make.data(shape), grad = make.data(shape);
  std::vector<float> c;
  for (int64_t i = 0; i < 6 * shape[0]; ++i) c.push_back(static_cast<float>(make.next() + 0.3));
  const Tensor out = make.data_out(shape), grad_pred = make.data_out(shape), grad_sample = make.data_out(shape);
  bdgf::DiffusionStepArgs a{};
  a.pred = bdgf::sample_view(pred.view()), a.sample = bdgf::sample_view(sample.view()), a.coefficients = c.data();
  if (source == 1) a.noise = bdgf::sample_view(given.view());
  a.clip = clip, a.draw = source == 2, a.address = address(shape, nullptr, base::kSampler);
  a.batch = shape[0], a.elements = a.address.row_length;
  if (s.stored != DType::f64) {
    a.out = bdgf::sample_view(out.view());
    s.table->diffusion_step(a, s.threads);
    a.out = {}, a.grad_out = bdgf::sample_view(grad.view());
    a.grad_pred = bdgf::sample_view(grad_pred.view()), a.grad_sample = bdgf::sample_view(grad_sample.view());
    s.table->diffusion_step_backward(a, s.threads);
    return make.outputs();
  }
  for (int64_t i = 0; i < out.view().numel; ++i) {
    const float* k = c.data() + 6 * (i / a.elements);
    const double raw = k[0] * sample.get(i) + k[1] * pred.get(i), x0 = clip ? std::fmin(1, std::fmax(-1, raw)) : raw;
    const double noise = source == 0 ? 0 : source == 1 ? given.get(i) : exact_noise(a.address, i);
    out.set(i, k[4] * x0 + k[2] * sample.get(i) + k[3] * pred.get(i) + k[5] * noise);
    const double inner = clip && std::fabs(raw) > 1 ? 0 : k[4] * grad.get(i);
    grad_pred.set(i, inner * k[1] + grad.get(i) * k[3]), grad_sample.set(i, inner * k[0] + grad.get(i) * k[2]);
  }
  return make.outputs();
}

uint64_t hash(const Tensor& t) {  // FNV-1a of the elements
  uint64_t h = 14695981039346656037u;
  for (int64_t i = 0; i < t.view().numel; ++i)
    for (int64_t k = 0; k < item_size(t.view().dtype); ++k) h = (h ^ static_cast<unsigned char>(t.at(i)[k])) * 1099511628211u;
  return h;
}

const Shape kShapes[] = {{1, 1, 1, 1}, {3, 2, 5, 7}, {2, 3, 13, 33}, {5, 1, 1, 67}};

}  // namespace

std::vector<Case> noise_cases() {
  std::vector<Case> cases;
  const auto add = [&](const std::string& name, Run run) { cases.push_back({name, run, {}}); };
  for (const Shape& shape : kShapes) {
    const std::string size = " of " + std::to_string(shape[1] * shape[2] * shape[3]);
    for (bool scene : {false, true}) {
      add("philox_normal" + size, [=](const Setting& s) { return normals(shape, scene, s); });
      for (int mode : {0, 1, 2}) add("q_sample" + size, [=](const Setting& s) { return noised(shape, scene, mode, s); });
    }
    for (int source : {0, 1, 2}) add("diffusion_step" + size, [=](const Setting& s) { return step(shape, source, source != 1, s); });
    for (int prediction : {0, 1, 2}) {
      if (shape[1] > 1) add("denoising_loss" + size, [=](const Setting& s) { return loss(shape, prediction, prediction == 2, s); });
    }
  }
  add("philox_normal of 10,007", [](const Setting& s) { return normals({2, 1, 1, 10007}, false, s); });
  return cases;
}

std::vector<std::string> noise_bits(const KernelTable& table) {
  std::vector<std::string> lines;
  char text[80];
  int number = 0;
  for (const Shape& shape : kShapes) {
    for (bool scene : {false, true}) {
      for (DType dtype : {DType::f32, DType::f16, DType::bf16}) {
        const Setting s{dtype, dtype, &table, 1, Layout::dense};
        const uint64_t drawn = hash(normals(shape, scene, s)[0]), mixed = hash(noised(shape, scene, 2, s)[0]);
        std::snprintf(text, sizeof text, "%02d %016llx %016llx", number++, static_cast<unsigned long long>(drawn), static_cast<unsigned long long>(mixed));
        lines.push_back(text);
      }
    }
  }
  return lines;
}

double silu_slope(double x) {
  const double gate = 1 / (1 + std::exp(-x));
  return gate * (1 + x * (1 - gate));
}

void check_functions(const KernelTable& table, std::vector<std::string>& problems) {
  const auto wrong = [&](const std::string& what) { problems.push_back(std::string(table.isa) + ": " + what); };
  const uint32_t known[3][10] = {  // Random123: counter, key, words
      {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
      {~0u, ~0u, ~0u, ~0u, ~0u, ~0u, 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
      {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}};
  for (const auto& k : known) {
    uint32_t w[4];
    base::words4<Words>(k[0], k[1], k[2], k[3], k[4] | static_cast<uint64_t>(k[5]) << 32, w);
    if (std::memcmp(w, k + 6, sizeof w) != 0) wrong("Philox4x32-10 misses a known answer");
  }

  struct Named {
    const char* name;
    double (*exact)(double);
    float low, high;
    double relative = 6e-7, absolute = 1e-38;
  };
  const Named functions[] = {{"exp", [](double x) { return std::exp(x); }, -87, 88}, {"exp2", [](double x) { return std::exp2(x); }, -126, 127},
                             {"exp2_bounded", [](double x) { return std::exp2(x); }, -120, 120}, {"log", [](double x) { return std::log(x); }, 1e-30f, 50},
                             {"softplus", [](double x) { return x > 20 ? x : std::log1p(std::exp(x)); }, -30, 30, 3e-6},
                             {"sigmoid", [](double x) { return 1 / (1 + std::exp(-x)); }, -30, 30}, {"silu", [](double x) { return x / (1 + std::exp(-x)); }, -30, 30},
                             {"softplus_slope", [](double x) { return -std::expm1(-x); }, 0, 30, 1e-6}, {"silu_slope", silu_slope, -30, 30, 0, 1.2e-6}};
  std::vector<float> in(1003), out(1003);
  for (const Named& f : functions) {
    for (size_t i = 0; i < in.size(); ++i) in[i] = f.low + (f.high - f.low) * static_cast<float>(i) / static_cast<float>(in.size());
    table.elementwise(f.name, in.data(), out.data(), static_cast<int64_t>(in.size()), 1);
    for (size_t i = 0; i < in.size(); ++i) {
      const double want = f.exact(in[i]);
      if (!(std::fabs(out[i] - want) <= f.relative * std::fabs(want) + f.absolute)) {
        wrong(std::string(f.name) + "(" + std::to_string(in[i]) + ") is " + std::to_string(out[i]) + " instead of " + std::to_string(want));
        break;
      }
    }
  }

  for (bool bfloat : {false, true}) {  // every 16-bit number, and what lies between and beside them
    std::vector<float> x;
    for (uint32_t h = 0; h < 65536; ++h) {
      const float exact = bfloat ? bdgf::bits_to_float(h << 16) : bdgf::f16_to_float(static_cast<uint16_t>(h));
      for (uint32_t off : {0u, 1u, bfloat ? 0x8000u : 0x1000u, bfloat ? 0x8001u : 0x1001u}) x.push_back(bdgf::bits_to_float(bdgf::float_to_bits(exact) + off));
    }
    std::vector<uint16_t> bits(x.size());
    std::vector<float> back(x.size());
    table.round_trip(bfloat, x.data(), bits.data(), back.data(), static_cast<int64_t>(x.size()));
    for (size_t i = 0; i < x.size(); ++i) {
      const uint16_t want = bfloat ? bdgf::float_to_bf16(x[i]) : bdgf::float_to_f16(x[i]);
      const float widened = bfloat ? bdgf::bits_to_float(static_cast<uint32_t>(want) << 16) : bdgf::f16_to_float(want);
      const bool same = x[i] != x[i] ? back[i] != back[i] : bits[i] == want && bdgf::float_to_bits(back[i]) == bdgf::float_to_bits(widened);
      if (!same) {
        wrong(std::string(bfloat ? "bfloat16" : "float16") + " of bits " + std::to_string(bdgf::float_to_bits(x[i])) + " is " + std::to_string(bits[i]));
        break;
      }
    }
  }
}

}  // namespace check
