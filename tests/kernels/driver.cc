// Calls the kernels without jax, on any processor or emulator of one: panels against tiles, and all against sums in double
// precision. Prints a sum of the bits of what is the same on every processor: int8 products, layer norm, attention, convolutions.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string_view>
#include <thread>
#include <vector>

#include "xla/ffi/api/ffi.h"

extern "C" {
XLA_FFI_Handler nemojax_panel_product, nemojax_int8_panel_product;
XLA_FFI_Handler nemojax_emulated_tile_product, nemojax_int8_emulated_tile_product;
XLA_FFI_Handler nemojax_fixed_attention, nemojax_fixed_norm, nemojax_fixed_log_sum_exp;
XLA_FFI_Handler nemojax_fixed_convolution, nemojax_fixed_gated_convolution;
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

struct Attribute {
  std::string_view name;
  XLA_FFI_DataType type;
  void* value;
};

// The last arrays are the results; attributes are in the order of their names.
void Call(XLA_FFI_Handler* handler, std::vector<Array> arrays, std::vector<Attribute> attributes = {}, size_t results = 1) {
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
  std::vector<XLA_FFI_ArgType> types(arrays.size() - results, XLA_FFI_ArgType_BUFFER);
  std::vector<XLA_FFI_RetType> result_types(results, XLA_FFI_RetType_BUFFER);
  XLA_FFI_CallFrame frame = {};
  frame.struct_size = XLA_FFI_CallFrame_STRUCT_SIZE;
  frame.api = &api;
  frame.stage = XLA_FFI_ExecutionStage_EXECUTE;
  frame.args = {XLA_FFI_Args_STRUCT_SIZE, nullptr, (int64_t)types.size(), types.data(), pointers.data()};
  frame.rets = {XLA_FFI_Rets_STRUCT_SIZE, nullptr, (int64_t)results, result_types.data(),
                pointers.data() + types.size()};
  std::vector<XLA_FFI_ByteSpan> names;
  std::vector<XLA_FFI_Scalar> scalars;
  for (const Attribute& one : attributes) {
    names.push_back({one.name.data(), one.name.size()});
    scalars.push_back({one.type, one.value});
  }
  std::vector<XLA_FFI_ByteSpan*> name_pointers;
  std::vector<void*> scalar_pointers;
  for (XLA_FFI_ByteSpan& name : names) name_pointers.push_back(&name);
  for (XLA_FFI_Scalar& scalar : scalars) scalar_pointers.push_back(&scalar);
  std::vector<XLA_FFI_AttrType> attribute_types(attributes.size(), XLA_FFI_AttrType_SCALAR);
  frame.attrs = {XLA_FFI_Attrs_STRUCT_SIZE, nullptr, (int64_t)attributes.size(), attribute_types.data(),
                 name_pointers.data(), scalar_pointers.data()};
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

  const Array none{XLA_FFI_DataType_F32, nullptr, {0}};
  int64_t activation = 0;
  const std::vector<Attribute> plainly = {{"activation", XLA_FFI_DataType_S64, &activation}};
  auto floats = Packed(kernel, inputs, outputs, false);
  Call(nemojax_panel_product, {given, {XLA_FFI_DataType_F32, floats.data(), {panels, inputs, 16}}, none, none, result(y)}, plainly);
  Compare("float32", y, exact, 1e-5);
  auto narrow = Packed(halves, inputs, outputs, false), narrow_tiles = Packed(halves, inputs, outputs, true);
  Call(nemojax_panel_product, {given, {XLA_FFI_DataType_BF16, narrow.data(), {panels, inputs, 16}}, none, none, result(y)}, plainly);
  Compare("bfloat16", y, exact, 1e-5);
  const std::vector<int64_t> narrow_shape = {pairs, Up(inputs, 32) / 32, 2, 16, 16, 2};
  Call(nemojax_emulated_tile_product, {given, {XLA_FFI_DataType_BF16, narrow_tiles.data(), narrow_shape}, none, none, result(y)}, plainly);
  Compare("bfloat16 by tiles", y, exact, 3e-5);
  auto small = Packed(numbers, inputs, outputs, false), small_tiles = Packed(numbers, inputs, outputs, true);
  const std::vector<int64_t> small_shape = {panels, Up(inputs, 2) / 2, 16, 2};
  Call(nemojax_int8_panel_product, {given, {XLA_FFI_DataType_S8, small.data(), small_shape}, scales, none, result(y)}, plainly);
  Compare("int8", y, exact_int8, 1e-3);
  const std::vector<int64_t> tiles_shape = {pairs, Up(inputs, 64) / 64, 2, 16, 16, 4};
  Call(nemojax_int8_emulated_tile_product,
       {given, {XLA_FFI_DataType_S8, small_tiles.data(), tiles_shape}, scales, none, result(other)}, plainly);
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

uint32_t SumOfBits(const std::vector<float>& values) {
  uint32_t sum = 0;
  for (const float& value : values) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    sum = sum * 31 + bits;
  }
  return sum;
}

// Attention of two streams to rings of `left` + `frames` frames, layer norm, and log-sum-exp of its queries.
void TryFixedOrder(int64_t frames, int64_t chunk, int64_t width) {
  const int64_t batch = 2, heads = 2, slots = 2 * frames;
  int64_t left = frames;
  std::mt19937 random(frames * 1000 + width);
  const auto drawn = [&](int64_t count) {
    std::vector<float> values(count);
    for (float& value : values) value = (int32_t)random() / 2147483648.0f;
    return values;
  };
  const auto array = [](std::vector<float>& values, std::vector<int64_t> shape) {
    return Array{XLA_FFI_DataType_F32, values.data(), shape};
  };
  std::vector<float> query = drawn(batch * frames * heads * width), bias[] = {drawn(heads * width), drawn(heads * width)};
  std::vector<float> keys = drawn(query.size()), values = drawn(query.size()), key_ring = drawn(batch * heads * slots * width);
  std::vector<float> value_ring = drawn(key_ring.size()), positions = drawn((3 * left - 1) * heads * width), y(query.size());
  std::vector<int32_t> begin = {0, 7 * (int32_t)frames}, end = {(int32_t)frames - 1, 8 * (int32_t)frames};
  const auto numbers = [&](std::vector<int32_t>& given) { return Array{XLA_FFI_DataType_S32, given.data(), {batch}}; };
  const std::vector<int64_t> segment = {batch, frames, heads, width}, ring = {batch, heads, slots, width};
  float scale = 1 / std::sqrt((float)width), epsilon = 1e-5f;
  // of new frames, the ring has them after the call
  Call(nemojax_fixed_attention,
       {array(query, segment), array(bias[0], {heads, width}), array(bias[1], {heads, width}), array(keys, segment),
        array(values, segment), array(positions, {3 * left - 1, heads, width}), numbers(begin), numbers(end),
        array(key_ring, ring), array(value_ring, ring), array(y, segment), array(key_ring, ring), array(value_ring, ring)},
       {{"chunk", XLA_FFI_DataType_S64, &chunk},
        {"left", XLA_FFI_DataType_S64, &left},
        {"scale", XLA_FFI_DataType_F32, &scale}},
       3);
  std::vector<double> expected(y.size());
  for (int64_t unit = 0; unit < batch * frames * heads; ++unit) {
    const int64_t row = unit / (frames * heads), place = unit / heads % frames, head = unit % heads;
    const int64_t start = begin[row] + place / chunk * chunk, until = std::min<int64_t>(end[row], start + chunk);
    double total = 0;
    std::vector<double> sums(width);
    for (int64_t frame = std::max<int64_t>(0, start - left); frame < until; ++frame) {
      const int64_t slot = ((row * heads + head) * slots + frame % slots) * width;
      const int64_t distance = (2 * left - 1 - (begin[row] + place - frame)) * heads + head;
      double score = 0;
      for (int64_t k = 0; k < width; ++k) {
        const double own = query[unit * width + k];
        score += (own + bias[0][head * width + k]) * key_ring[slot + k];
        score += (own + bias[1][head * width + k]) * positions[distance * width + k];
      }
      const double weight = std::exp(score * scale);
      total += weight;
      for (int64_t k = 0; k < width; ++k) sums[k] += weight * value_ring[slot + k];
    }
    for (int64_t k = 0; k < width; ++k) expected[unit * width + k] = total ? sums[k] / total : 0;
  }
  Compare("attention", y, expected, 1e-5);

  const int64_t rows = batch * frames, columns = heads * width;
  std::vector<float> normed(query.size()), logarithms(rows);
  std::vector<double> exact(query.size()), exact_logarithms(rows);
  for (int64_t row = 0; row < rows; ++row) {
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < columns; ++i) mean += query[row * columns + i] / columns;
    for (int64_t i = 0; i < columns; ++i) variance += std::pow(query[row * columns + i] - mean, 2) / columns;
    for (int64_t i = 0; i < columns; ++i) {
      exact[row * columns + i] = (query[row * columns + i] - mean) / std::sqrt(variance + epsilon) * bias[0][i] + bias[1][i];
      exact_logarithms[row] += std::exp(query[row * columns + i]);
    }
    exact_logarithms[row] = std::log(exact_logarithms[row]);
  }
  const Array flat = array(query, {rows, columns});
  Call(nemojax_fixed_norm, {flat, array(bias[0], {columns}), array(bias[1], {columns}), array(normed, {rows, columns})},
       {{"epsilon", XLA_FFI_DataType_F32, &epsilon}});
  Compare("layer norm", normed, exact, 1e-5);
  Call(nemojax_fixed_log_sum_exp, {flat, array(logarithms, {rows})});
  Compare("log-sum-exp", logarithms, exact_logarithms, 1e-6);
  std::printf("%d frames, width %d: %08x %08x\n", (int)frames, (int)width, SumOfBits(y), SumOfBits(normed));
}

// The gated convolution of two streams, in two cuts, and a convolution of the subsampling.
void TryConvolutions(int64_t frames, int64_t width) {
  const int64_t batch = 2, taps = 9, slots = 30;
  std::mt19937 random(frames * 1000 + width);
  const auto drawn = [&](int64_t count) {
    std::vector<float> values(count);
    for (float& value : values) value = (int32_t)random() / 2147483648.0f;
    return values;
  };
  const auto array = [](std::vector<float>& values, std::vector<int64_t> shape) {
    return Array{XLA_FFI_DataType_F32, values.data(), shape};
  };
  std::vector<float> x = drawn(batch * frames * 2 * width), kernel = drawn(taps * width), bias = drawn(width);
  std::vector<float> scale = drawn(width), norm_bias = drawn(width), ring(batch * slots * width), y(x.size() / 2), gated(y.size());
  std::vector<int32_t> begin = {0, 0}, end = {(int32_t)frames, (int32_t)frames};
  const auto numbers = [&](std::vector<int32_t>& given) { return Array{XLA_FFI_DataType_S32, given.data(), {batch}}; };
  float epsilon = 1e-5f;
  bool relu = true;
  Call(nemojax_fixed_gated_convolution,
       {array(x, {batch, frames, 2 * width}), numbers(begin), numbers(end), array(kernel, {taps, width}), array(bias, {width}),
        array(scale, {width}), array(norm_bias, {width}), array(ring, {batch, 1, slots, width}), array(y, {batch, frames, width}),
        array(gated, {batch, frames, width}), array(ring, {batch, 1, slots, width})},
       {{"epsilon", XLA_FFI_DataType_F32, &epsilon}}, 3);
  const auto sigmoid = [](double value) { return 1 / (1 + std::exp(-value)); };
  std::vector<double> expected(y.size());
  for (int64_t unit = 0; unit < batch * frames; ++unit) {
    std::vector<double> sums(bias.begin(), bias.end());
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < width; ++i) {
      for (int64_t back = 0; back < std::min(taps, unit % frames + 1); ++back) {
        const float* from = &x[(unit - back) * 2 * width + i];
        sums[i] += from[0] * sigmoid(from[width]) * kernel[(taps - 1 - back) * width + i];
      }
      mean += sums[i] / width;
    }
    for (double sum : sums) variance += (sum - mean) * (sum - mean) / width;
    for (int64_t i = 0; i < width; ++i) {
      const double normed = (sums[i] - mean) / std::sqrt(variance + epsilon) * scale[i] + norm_bias[i];
      expected[unit * width + i] = normed * sigmoid(normed);
    }
  }
  Compare("gated convolution", y, expected, 1e-5);
  const int64_t bins = 11, new_bins = bins / 2 + 1;
  std::vector<float> picture = drawn(batch * 8 * bins * width), cache(batch * bins * width), nine = drawn(9 * width);
  std::vector<float> smaller(batch * 4 * new_bins * width);
  bool mask[16];
  std::fill_n(mask, 16, true);
  Call(nemojax_fixed_convolution,
       {array(picture, {batch, 8, bins, width}), {XLA_FFI_DataType_PRED, mask, {batch, 8}}, array(cache, {batch, 1, bins, width}),
        array(nine, {9, width}), array(bias, {width}), array(smaller, {batch, 4, new_bins, width})},
       {{"relu", XLA_FFI_DataType_PRED, &relu}});
  std::printf("%d frames, %d channels: %08x %08x %08x\n", (int)frames, (int)width, SumOfBits(y), SumOfBits(ring), SumOfBits(smaller));
}

}  // namespace

int main() {
  TryFixedOrder(14, 7, 36);
  TryFixedOrder(14, 1, 128);
  TryFixedOrder(70, 14, 100);
  TryConvolutions(14, 40);
  TryConvolutions(33, 256);
  for (int64_t rows : {1, 2, 7, 8, 9, 15, 16, 17, 28, 33, 45, 100}) {
    Try(rows, 7, 16);
    Try(rows, 130, 33);
    Try(rows, 520, 70);
  }
  return failures != 0;
}
