#include "check.h"

namespace check {
namespace {

std::vector<Tensor> conv(const Shape& x_shape, int64_t width, bool silu, bool bias, const Setting& s) {
  Maker make(s, 2);
  const int64_t dim = x_shape[1];
  const Tensor x = make.data(x_shape), weight = make.parameter({dim, width}), offset = bias ? make.parameter({dim}) : Tensor();
  const Tensor grad = make.data(x_shape);
  bdgf::CausalConv1dArgs a{};
  a.x = x.view(), a.weight = weight.view(), a.bias = offset.view(), a.silu = silu;
  a.out = make.data_out(x_shape).view();
  s.table->causal_conv1d_fwd(a, s.threads);
  a.out = TensorView{};
  bdgf::CausalConv1dBwdArgs back{};
  back.forward = a, back.grad_out = grad.view();
  back.grad_x = make.data_out(x_shape).view(), back.grad_weight = make.parameter_out({dim, width}).view();
  if (bias) back.grad_bias = make.parameter_out({dim}).view();
  s.table->causal_conv1d_bwd(back, s.threads);
  return make.outputs();
}

struct Attention {
  int64_t batch, heads, rows, keys, depth;
  bool mask = false, bias = false;
  double dropout = 0;
};

std::vector<Tensor> attention(const Attention& o, const Setting& s) {
  Maker make(s, 3);
  const Shape rows{o.batch, o.heads, o.rows, o.depth}, keys{o.batch, o.heads, o.keys, o.depth}, scores{o.batch, 1, o.rows, o.keys};
  const Tensor q = make.data(rows, -2, 2), k = make.data(keys, -2, 2), v = make.data(keys), grad = make.data(rows);
  const Tensor mask = o.mask ? make.mask({o.batch, o.keys}) : Tensor(), bias = o.bias ? make.data(scores) : Tensor();
  bdgf::CrossAttentionArgs a{};
  a.query = q.view(), a.key = k.view(), a.value = v.view(), a.key_mask = mask.view(), a.attn_bias = bias.view();
  a.scale = 0.4, a.dropout_p = static_cast<float>(o.dropout), a.drop_below = static_cast<uint32_t>(o.dropout * 4294967296.0);
  a.keep_factor = 1 / (1 - o.dropout), a.seed = 11;
  const bool copied = s.stored != DType::f32 || o.mask || k.view().stride[3] != 1 || v.view().stride[3] != 1;
  const auto space = [&](bool backward) {
    return make.workspace(s.threads * bdgf::attention_workspace(o.keys, o.depth, backward, copied, o.dropout > 0));
  };
  const Tensor first = space(false), second = space(true);
  a.out = make.data_out(rows).view(), a.statistics = make.parameter_out({2, o.batch, o.heads, o.rows}).view(), a.workspace = first.view();
  s.table->cross_attention_fwd(a, s.threads);
  const Tensor delta({o.batch, o.heads, o.rows}, make.arithmetic());
  a.out = TensorView{}, a.workspace = second.view();
  bdgf::CrossAttentionBwdArgs back{};
  back.forward = a, back.grad_out = grad.view(), back.delta = delta.view();
  back.grad_query = make.data_out(rows).view(), back.grad_key = make.data_out(keys).view(), back.grad_value = make.data_out(keys).view();
  if (o.bias) back.grad_bias = make.data_out(scores).view();
  s.table->cross_attention_bwd(back, s.threads);
  return make.outputs();
}

std::vector<Tensor> group_attention(int64_t batch, int64_t channels, int64_t length, int64_t groups, const Setting& s) {
  Maker make(s, 4);
  const Shape shape{batch, channels, length};
  const Tensor q = make.data(shape), k = make.data(shape), v = make.data(shape), grad = make.data(shape);
  const Tensor temperature = make.parameter({groups}, 0.5, 3);
  const int64_t size = channels / groups;
  const Tensor space = make.workspace(s.threads * bdgf::group_scratch(size, length) + batch * groups + groups * (3 * size * size + 2 * size));
  bdgf::GroupChannelAttentionArgs a{};
  a.q = q.view(), a.k = k.view(), a.v = v.view(), a.temperature = temperature.view(), a.workspace = space.view(), a.groups = groups;
  a.out = make.data_out(shape).view();
  s.table->group_channel_attention_fwd(a, s.threads);
  a.out = TensorView{};
  bdgf::GroupChannelAttentionBwdArgs back{};
  back.forward = a, back.grad_out = grad.view();
  back.grad_q = make.data_out(shape).view(), back.grad_k = make.data_out(shape).view(), back.grad_v = make.data_out(shape).view();
  back.grad_temperature = make.parameter_out({groups}).view();
  s.table->group_channel_attention_bwd(back, s.threads);
  return make.outputs();
}

struct Gate {
  int64_t batch, channels, height, width, guide_channels, groups, hidden;
  bool use_x, use_guide;
};

std::vector<Tensor> gate(const Gate& o, const Setting& s) {
  Maker make(s, 5);
  const int64_t each = o.channels / o.groups, in = (o.use_x ? each : 0) + (o.use_guide ? o.guide_channels / o.groups : 0);
  const Shape shape{o.batch, o.channels, o.height, o.width}, guide_shape{o.batch, o.guide_channels, 5, 3};
  const Tensor x = make.data(shape), guide = make.data(guide_shape), grad = make.data(shape);
  const Shape one{o.groups, o.hidden, in}, two{o.groups, each, o.hidden};
  const Tensor w1 = make.parameter(one, -2, 2), b1 = make.parameter({o.groups, o.hidden}, 0, 1), w2 = make.parameter(two);
  const Tensor b2 = make.parameter({o.groups, each});
  const int64_t padded = (o.hidden + 15) / 16 * 16;
  const Tensor space = make.workspace(s.threads * bdgf::gate_scratch(o.hidden, in, o.channels, o.groups) +
                                      bdgf::gate_samples(o.batch, o.channels, o.groups, o.hidden) * (o.channels + 2 * o.groups * padded) +
                                      o.groups * (each + in));
  bdgf::GroupChannelGateArgs a{};
  a.x = x.view(), a.weight1 = w1.view(), a.bias1 = b1.view(), a.weight2 = w2.view(), a.bias2 = b2.view();
  if (o.use_guide) a.guide = guide.view();
  a.groups = o.groups, a.use_x = o.use_x, a.use_guide = o.use_guide, a.workspace = space.view();
  a.out = make.data_out(shape).view(), a.squeezed = make.parameter_out({o.batch, o.groups, in}).view();
  a.gate = make.parameter_out({o.batch, o.channels}).view();
  s.table->group_channel_gate_fwd(a, s.threads);
  a.out = TensorView{};
  bdgf::GroupChannelGateBwdArgs back{};
  back.forward = a, back.grad_out = grad.view(), back.grad_x = make.data_out(shape).view();
  if (o.use_guide) back.grad_guide = make.data_out(guide_shape).view();
  back.grad_weight1 = make.parameter_out(one).view(), back.grad_bias1 = make.parameter_out({o.groups, o.hidden}).view();
  back.grad_weight2 = make.parameter_out(two).view(), back.grad_bias2 = make.parameter_out({o.groups, each}).view();
  s.table->group_channel_gate_bwd(back, s.threads);
  return make.outputs();
}

}  // namespace

std::vector<Case> layer_cases() {
  std::vector<Case> cases;
  const auto add = [&](const std::string& name, const Shape& shape, Run run) { cases.push_back({name + " " + sizes(shape), run, {}}); };
  for (int64_t width : {2, 3, 4})
    for (const Shape& shape : {Shape{2, 19, 1}, Shape{3, 5, 37}, Shape{1, 33, 130}})
      add("causal_conv1d width " + std::to_string(width), shape,
          [=](const Setting& s) { return conv(shape, width, width != 3, width != 2, s); });
  for (const Attention& o : {Attention{2, 3, 1, 1, 4}, Attention{2, 2, 49, 49, 16}, Attention{1, 2, 33, 70, 24, true, false, 0},
                             Attention{2, 1, 7, 300, 8, false, true, 0}, Attention{2, 2, 35, 19, 13, true, true, 0.3}, Attention{1, 1, 5, 9, 128}})
    add("cross_attention", {o.batch, o.heads, o.rows, o.keys, o.depth}, [o](const Setting& s) { return attention(o, s); });
  for (const Shape& o : {Shape{2, 8, 1, 2}, Shape{3, 24, 49, 4}, Shape{1, 35, 121, 1}, Shape{2, 6, 130, 6}})
    add("group_channel_attention", o, [o](const Setting& s) { return group_attention(o[0], o[1], o[2], o[3], s); });
  for (const Gate& o : {Gate{3, 12, 7, 7, 8, 4, 5, true, true}, Gate{2, 20, 1, 1, 4, 2, 17, true, false}, Gate{1, 6, 11, 13, 9, 3, 2, false, true}})
    add("group_channel_gate", {o.batch, o.channels, o.height, o.width, o.guide_channels, o.groups, o.hidden},
        [o](const Setting& s) { return gate(o, s); });
  return cases;
}

}  // namespace check
