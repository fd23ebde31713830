#include "tensor_arg.h"

#include "dlpack_abi.h"

namespace bdgf {
namespace {

const dlpack::ExchangeApi* torch_api = nullptr;  // the last table seen: where the current stream is asked for

// type(t).__dlpack_c_exchange_api__, remembered for the few tensor types of a process (Tensor, Parameter, Buffer).
const dlpack::ExchangeApi* exchange_api(PyTypeObject* type) {
  struct Entry {
    PyTypeObject* type;
    const dlpack::ExchangeApi* api;
  };
  static Entry cache[4] = {};  // guarded by the GIL; the types are kept alive on purpose
  for (const Entry& entry : cache) {
    if (entry.type == type) return entry.api;
  }
  const dlpack::ExchangeApi* api = nullptr;
  PyObject* capsule = PyObject_GetAttrString(reinterpret_cast<PyObject*>(type), "__dlpack_c_exchange_api__");
  if (capsule) {
    auto* header = static_cast<dlpack::ExchangeHeader*>(PyCapsule_GetPointer(capsule, "dlpack_exchange_api"));
    while (header && header->major != 1) header = header->previous;
    api = reinterpret_cast<const dlpack::ExchangeApi*>(header);
    if (api && !api->dltensor_from_py_object_no_sync) api = nullptr;
    Py_DECREF(capsule);
  }
  PyErr_Clear();
  for (Entry& entry : cache) {
    if (entry.type) continue;
    Py_INCREF(type);
    entry = {type, api};
    break;
  }
  if (api) torch_api = api;
  return api;
}

DType dtype_of(dlpack::DLDataType t) {
  if (t.lanes != 1) return DType::other;
  switch (t.code * 1000 + t.bits) {
    case dlpack::kFloat * 1000 + 32: return DType::f32;
    case dlpack::kFloat * 1000 + 16: return DType::f16;
    case dlpack::kFloat * 1000 + 64: return DType::f64;
    case dlpack::kBFloat * 1000 + 16: return DType::bf16;
    case dlpack::kInt * 1000 + 64: return DType::i64;
    case dlpack::kInt * 1000 + 32: return DType::i32;
    case dlpack::kUInt * 1000 + 8: return DType::u8;
    case dlpack::kBool * 1000 + 8: return DType::boolean;
    default: return DType::other;
  }
}

Device device_of(int32_t type) {
#ifdef BDGF_EMULATED  // tests/emulated: the kernels of csrc/cuda run on the CPU's tensors
  if (type == dlpack::kCPU) return Device::cuda;
#endif
  if (type == dlpack::kCPU || type == dlpack::kCUDAHost) return Device::cpu;
  return type == dlpack::kCUDA || type == dlpack::kCUDAManaged ? Device::cuda : Device::other;
}

// "(TypeError: ...)" of the Python error that is set, which is cleared.
std::string take_python_error() {
  py::error_already_set error;
  return std::string("(") + error.what() + ")";
}

void view_by_dlpack(const char* op, const char* name, const dlpack::ExchangeApi& api, py::handle value, TensorView& t) {
  dlpack::DLTensor d;
  if (api.dltensor_from_py_object_no_sync(value.ptr(), &d) != 0) {
    bad_value(op, name, "has no plain memory to work on; pass a dense tensor " + take_python_error());
  }
  t.ndim = d.ndim;
  if (d.ndim > kMaxDims) return;  // refused by the caller
  t.dtype = dtype_of(d.dtype);
  t.device = device_of(d.device.type);
  t.device_index = d.device.index;
  t.numel = 1;
  for (int i = d.ndim - 1; i >= 0; --i) {
    t.shape[i] = d.shape[i];
    t.stride[i] = d.strides ? d.strides[i] : t.numel;
    t.numel *= d.shape[i];
  }
  t.data = d.data ? static_cast<char*>(d.data) + d.byte_offset : nullptr;
}

void view_by_methods(const char* op, const char* name, py::handle value, TensorView& t) {
  try {
    py::tuple shape(value.attr("shape")), stride(value.attr("stride")());
    t.ndim = static_cast<int32_t>(shape.size());
    if (t.ndim > kMaxDims) return;
    const std::string dtype = py::str(value.attr("dtype"));
    for (DType d : {DType::f32, DType::f16, DType::bf16, DType::f64, DType::i64, DType::i32, DType::u8, DType::boolean}) {
      if (dtype == std::string("torch.") + dtype_name(d)) t.dtype = d;
    }
    py::object device = value.attr("device");
    const std::string kind = py::str(device.attr("type"));
    t.device = kind == "cpu" ? Device::cpu : kind == "cuda" ? Device::cuda : Device::other;
    t.device_index = device.attr("index").is_none() ? 0 : device.attr("index").cast<int>();
    t.numel = 1;
    for (int i = 0; i < t.ndim; ++i) {
      t.shape[i] = shape[i].cast<int64_t>();
      t.stride[i] = stride[i].cast<int64_t>();
      t.numel *= t.shape[i];
    }
    if (t.device != Device::other) t.data = reinterpret_cast<void*>(value.attr("data_ptr")().cast<uintptr_t>());
  } catch (py::error_already_set& error) {
    bad_value(op, name, std::string("has no plain memory to work on; pass a dense tensor (") + error.what() + ")");
  }
}

bool looks_like_tensor(py::handle value) {
  return exchange_api(Py_TYPE(value.ptr())) || py::hasattr(value, "data_ptr");
}

}  // namespace

TensorView tensor_arg(const char* op, const char* name, py::handle value) {
  const dlpack::ExchangeApi* api = exchange_api(Py_TYPE(value.ptr()));
  if (!api && !py::hasattr(value, "data_ptr")) {
    bad_type(op, name, std::string("must be a torch.Tensor, got ") + Py_TYPE(value.ptr())->tp_name);
  }
  TensorView t;
  t.present = true;
  if (api) {
    view_by_dlpack(op, name, *api, value, t);
  } else {
    view_by_methods(op, name, value, t);
  }
  if (t.ndim > kMaxDims) {
    bad_value(op, name, "has " + std::to_string(t.ndim) + " dimensions; at most " + std::to_string(kMaxDims));
  }
  if (t.device == Device::other) bad_value(op, name, "is on a device other than cpu and cuda");
  if (t.numel > 0 && !t.data) {
    bad_value(op, name, "holds no data (a fake or meta tensor); kernels run on real tensors only");
  }
  static PyObject* const is_neg = PyUnicode_InternFromString("is_neg");
  if (t.dtype <= DType::f64) {  // a floating type: the imaginary part of a conjugate is such a view
    PyObject* negated = PyObject_CallMethodNoArgs(value.ptr(), is_neg);
    if (!negated) PyErr_Clear();
    const bool lazy = negated == Py_True;
    Py_XDECREF(negated);
    if (lazy) bad_value(op, name, "is a lazily negated view; call .resolve_neg() first");
  }
  return t;
}

TensorView optional_arg(const char* op, const char* name, py::handle value) {
  return value.is_none() ? TensorView{} : tensor_arg(op, name, value);
}

uint64_t counter_arg(const char* op, const char* name, py::handle value, const TensorView& like, const int64_t*& at) {
  at = nullptr;
  if (!PyLong_Check(value.ptr())) {
    if (looks_like_tensor(value)) {
      TensorView t = tensor_arg(op, name, value);
      check_dtype(op, name, t, {DType::i64});
      check_shape(op, name, t, {});
      check_same_device(op, name, t, "the output", like);
      at = static_cast<const int64_t*>(t.data);
      return 0;
    }
    if (!PyIndex_Check(value.ptr())) {
      bad_type(op, name, std::string("must be an int or a 0-d int64 tensor, got ") + Py_TYPE(value.ptr())->tp_name);
    }
  }
  const uint64_t number = PyLong_AsUnsignedLongLongMask(py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr())).ptr());
  if (PyErr_Occurred()) throw py::error_already_set();
  return number;
}

TensorView like_arg(const char* op, const char* name, py::handle value, const TensorView& like, bool optional) {
  TensorView t = optional ? optional_arg(op, name, value) : tensor_arg(op, name, value);
  if (!t.present) return t;
  check_dtype(op, name, t, {like.dtype});
  check_same_device(op, name, t, "the first tensor", like);
  bool same = t.ndim == like.ndim;
  for (int i = 0; same && i < t.ndim; ++i) same = t.shape[i] == like.shape[i];
  if (!same) bad_value(op, name, "has shape " + shape_text(t) + "; expected " + shape_text(like));
  return t;
}

CudaLaunch cuda_launch(const char* op, const TensorView& like, py::handle cuda_stream) {
#ifndef BDGF_WITH_CUDA
  (void)like, (void)cuda_stream;
  throw std::runtime_error(std::string(op) + ": this build of bdgf_fast has no CUDA kernels (" BDGF_CUDA_REASON
                           "); use the Triton backend, or rebuild where nvcc is found");
#elif defined(BDGF_EMULATED)
  (void)op, (void)cuda_stream;
  return {like.device_index, nullptr};
#else
  CudaLaunch launch{like.device_index, nullptr};
  if (!cuda_stream.is_none()) {
    launch.stream = reinterpret_cast<void*>(cuda_stream.cast<uintptr_t>());
  } else if (!torch_api || torch_api->current_work_stream(dlpack::kCUDA, launch.device, &launch.stream) != 0) {
    PyErr_Clear();
    throw std::runtime_error(std::string(op) + ": torch before 2.10 does not tell its current stream; pass "
                             "cuda_stream=torch.cuda.current_stream(device).cuda_stream");
  }
  return launch;
#endif
}

}  // namespace bdgf
