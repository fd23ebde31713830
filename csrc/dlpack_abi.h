// The part of the DLPack ABI (major version 1) that this extension reads, written from the specification at
// https://dmlc.github.io/dlpack (DLPack is Apache-2.0, by its contributors). Layouts must not be changed.
#pragma once
#include <stdint.h>

namespace bdgf {
namespace dlpack {

enum DeviceType : int32_t { kCPU = 1, kCUDA = 2, kCUDAHost = 3, kCUDAManaged = 13 };
enum TypeCode : uint8_t { kInt = 0, kUInt = 1, kFloat = 2, kBFloat = 4, kComplex = 5, kBool = 6 };

struct DLDevice {
  int32_t type;
  int32_t index;
};
struct DLDataType {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
};
struct DLTensor {
  void* data;
  DLDevice device;
  int32_t ndim;
  DLDataType dtype;
  int64_t* shape;
  int64_t* strides;  // in elements; null: row-major
  uint64_t byte_offset;
};

struct ExchangeHeader {
  uint32_t major, minor;
  ExchangeHeader* previous;  // an older table, or null
};
struct ExchangeApi {
  ExchangeHeader header;
  void* managed_tensor_allocator;
  void* managed_tensor_from_py_object_no_sync;
  void* managed_tensor_to_py_object_no_sync;
  int (*dltensor_from_py_object_no_sync)(void* py_object, DLTensor* out);  // borrowed; may be null
  int (*current_work_stream)(int32_t device_type, int32_t device_index, void** out);
};

}  // namespace dlpack
}  // namespace bdgf
