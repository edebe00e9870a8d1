// Calls the product kernels without jax, on any processor or emulator of one: panels against tiles, and both against sums
// in double precision. Prints a sum of the bits of each int8 product, which is the same on every processor.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "xla/ffi/api/ffi.h"

extern "C" {
XLA_FFI_Handler nemojax_panel_product, nemojax_int8_panel_product;
XLA_FFI_Handler nemojax_emulated_tile_product, nemojax_int8_emulated_tile_product;
}

namespace {

std::vector<std::thread> threads;

XLA_FFI_Error* Schedule(XLA_FFI_ThreadPool_Schedule_Args* args) {
  threads.emplace_back(args->task, args->data);
  return nullptr;
}

XLA_FFI_Error* NumThreads(XLA_FFI_ThreadPool_NumThreads_Args* args) {
  *args->num_threads = 3;
  return nullptr;
}

XLA_FFI_Error* CreateError(XLA_FFI_Error_Create_Args* args) {
  std::printf("%s\n", args->message);
  std::exit(1);
}

struct Array {
  XLA_FFI_DataType type;
  void* data;
  std::vector<int64_t> shape;
};

void Call(XLA_FFI_Handler* handler, std::vector<Array> arrays) {  // the last one is the result
  XLA_FFI_Api api = {};
  api.struct_size = XLA_FFI_Api_STRUCT_SIZE;
  api.XLA_FFI_Error_Create = CreateError;
  api.XLA_FFI_ThreadPool_Schedule = Schedule;
  api.XLA_FFI_ThreadPool_NumThreads = NumThreads;
  std::vector<XLA_FFI_Buffer> buffers;
  for (Array& array : arrays) {
    buffers.push_back({XLA_FFI_Buffer_STRUCT_SIZE, nullptr, array.type, array.data, (int64_t)array.shape.size(),
                       array.shape.data()});
  }
  std::vector<void*> pointers;
  for (XLA_FFI_Buffer& buffer : buffers) pointers.push_back(&buffer);
  std::vector<XLA_FFI_ArgType> types(arrays.size() - 1, XLA_FFI_ArgType_BUFFER);
  XLA_FFI_RetType result_type = XLA_FFI_RetType_BUFFER;
  XLA_FFI_CallFrame frame = {};
  frame.struct_size = XLA_FFI_CallFrame_STRUCT_SIZE;
  frame.api = &api;
  frame.stage = XLA_FFI_ExecutionStage_EXECUTE;
  frame.args = {XLA_FFI_Args_STRUCT_SIZE, nullptr, (int64_t)types.size(), types.data(), pointers.data()};
  frame.rets = {XLA_FFI_Rets_STRUCT_SIZE, nullptr, 1, &result_type, &pointers.back()};
  frame.attrs.struct_size = XLA_FFI_Attrs_STRUCT_SIZE;
  if (handler(&frame) != nullptr) std::exit(1);
  for (std::thread& thread : threads) thread.join();
  threads.clear();
}

int64_t Up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

float Narrow(float value) {  // to what bfloat16 holds
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  bits &= 0xffff0000u;
  std::memcpy(&value, &bits, sizeof(bits));
  return value;
}

// Weights as panels whose inputs lie side by side in groups: 1 for floats, 2 for int8; as tiles, in groups of 4 bytes.
template <typename Value>
std::vector<Value> Packed(const std::vector<Value>& kernel, int64_t inputs, int64_t outputs, bool tiles) {
  const int64_t group = tiles ? 4 / sizeof(Value) : sizeof(Value) == 1 ? 2 : 1, depth = tiles ? 16 * group : group;
  const int64_t padded = Up(inputs, depth), panels = tiles ? Up(outputs, 32) / 16 : Up(outputs, 16) / 16;
  std::vector<Value> packed(panels * padded * 16);
  for (int64_t i = 0; i < inputs; ++i) {
    for (int64_t o = 0; o < outputs; ++o) {
      const int64_t panel = o / 16, within = (i % depth / group * 16 + o % 16) * group + i % group;
      const int64_t place = tiles ? (panel / 2 * (padded / depth) + i / depth) * 2 + panel % 2 : panel * (padded / depth) + i / depth;
      packed[place * depth * 16 + within] = kernel[i * outputs + o];
    }
  }
  return packed;
}

int failures = 0;

void Compare(const char* name, const std::vector<float>& y, const std::vector<double>& expected, double error) {
  double largest = 0, worst = 0;
  for (double value : expected) largest = std::max(largest, std::abs(value));
  for (size_t i = 0; i < y.size(); ++i) worst = std::max(worst, std::abs(y[i] - expected[i]));
  if (!(worst <= error * largest)) ++failures, std::printf("%s differs by %g of %g\n", name, worst, largest);
}

void Try(int64_t rows, int64_t inputs, int64_t outputs) {
  std::mt19937 random(rows + 1000 * inputs + outputs);
  const auto draw = [&] { return (int32_t)random() / 2147483648.0f; };
  std::vector<float> x(rows * inputs), kernel(inputs * outputs), scale(outputs), y(rows * outputs), other(rows * outputs);
  std::vector<int8_t> numbers(inputs * outputs);
  std::vector<uint16_t> halves(inputs * outputs);
  for (float& value : x) value = draw() * 10;
  for (float& value : scale) value = std::abs(draw()) + 0.1f;
  for (size_t i = 0; i < kernel.size(); ++i) {
    kernel[i] = Narrow(draw()), numbers[i] = std::rint(draw() * 127);
    uint32_t bits;
    std::memcpy(&bits, &kernel[i], sizeof(bits));
    halves[i] = bits >> 16;
  }
  std::vector<double> exact(rows * outputs), exact_int8(rows * outputs);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t o = 0; o < outputs; ++o) {
      for (int64_t i = 0; i < inputs; ++i) {
        exact[row * outputs + o] += double{x[row * inputs + i]} * kernel[i * outputs + o];
        exact_int8[row * outputs + o] += double{x[row * inputs + i]} * numbers[i * outputs + o] * scale[o];
      }
    }
  }
  const Array given{XLA_FFI_DataType_F32, x.data(), {rows, inputs}}, scales{XLA_FFI_DataType_F32, scale.data(), {outputs}};
  const auto result = [&](std::vector<float>& to) { return Array{XLA_FFI_DataType_F32, to.data(), {rows, outputs}}; };
  const int64_t panels = Up(outputs, 16) / 16, pairs = Up(outputs, 32) / 32;

  auto floats = Packed(kernel, inputs, outputs, false);
  Call(nemojax_panel_product, {given, {XLA_FFI_DataType_F32, floats.data(), {panels, inputs, 16}}, result(y)});
  Compare("float32", y, exact, 1e-5);
  auto narrow = Packed(halves, inputs, outputs, false), narrow_tiles = Packed(halves, inputs, outputs, true);
  Call(nemojax_panel_product, {given, {XLA_FFI_DataType_BF16, narrow.data(), {panels, inputs, 16}}, result(y)});
  Compare("bfloat16", y, exact, 1e-5);
  const std::vector<int64_t> narrow_shape = {pairs, Up(inputs, 32) / 32, 2, 16, 16, 2};
  Call(nemojax_emulated_tile_product, {given, {XLA_FFI_DataType_BF16, narrow_tiles.data(), narrow_shape}, result(y)});
  Compare("bfloat16 by tiles", y, exact, 3e-5);
  auto small = Packed(numbers, inputs, outputs, false), small_tiles = Packed(numbers, inputs, outputs, true);
  const std::vector<int64_t> small_shape = {panels, Up(inputs, 2) / 2, 16, 2};
  Call(nemojax_int8_panel_product, {given, {XLA_FFI_DataType_S8, small.data(), small_shape}, scales, result(y)});
  Compare("int8", y, exact_int8, 1e-3);
  const std::vector<int64_t> tiles_shape = {pairs, Up(inputs, 64) / 64, 2, 16, 16, 4};
  Call(nemojax_int8_emulated_tile_product,
       {given, {XLA_FFI_DataType_S8, small_tiles.data(), tiles_shape}, scales, result(other)});
  uint32_t sum = 0;
  for (size_t i = 0; i < y.size(); ++i) {
    uint32_t bits, other_bits;
    std::memcpy(&bits, &y[i], sizeof(bits));
    std::memcpy(&other_bits, &other[i], sizeof(bits));
    if (bits != other_bits) ++failures, std::printf("int8 by tiles differs: %g, %g\n", y[i], other[i]);
    sum = sum * 31 + bits;
  }
  std::printf("%d rows, %d inputs, %d outputs: %08x\n", (int)rows, (int)inputs, (int)outputs, sum);
}

}  // namespace

int main() {
  for (int64_t rows : {1, 2, 7, 8, 9, 15, 16, 17, 28, 33, 45, 100}) {
    Try(rows, 7, 16);
    Try(rows, 130, 33);
    Try(rows, 520, 70);
  }
  return failures != 0;
}
