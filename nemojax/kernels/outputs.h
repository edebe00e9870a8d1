// Kernels that the same rows are multiplied with, and how their products are written: with a bias and an activation.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "lanes.h"
#include "xla/ffi/api/ffi.h"

namespace nemojax {

enum Activation : int64_t { kNone = 0, kSilu = 1, kRelu = 2 };

struct Kernel {
  const void* weights;
  xla::ffi::DataType type;
  int64_t panels, depth;  // the first two axes of the weights
  const float* scale;     // of each output; null if there is none
  const float* bias;      // the same
  float* y;               // [rows, outputs]
  int64_t outputs, activation;

  // Writes a row's sums of a panel whose first output is `first`, each times its factor.
  void Write(Lanes sums, Lanes factor, int64_t row, int64_t first) const {
    const int64_t count = outputs - first;
    Lanes numbers = bias ? MultiplyAdd(sums, factor, Load(bias + first, count)) : sums * factor;
    if (activation == kSilu) numbers = Silu(numbers);
    if (activation == kRelu) numbers = Positive(numbers);
    Store(numbers, y + row * outputs + first, count);
  }
};

typedef std::shared_ptr<const std::vector<Kernel>> Kernels;  // threads that begin late hold them

// Reads triples of weights, scale and bias, and as many results. A scale or a bias of no numbers is none.
inline xla::ffi::ErrorOr<Kernels> ReadKernels(xla::ffi::RemainingArgs& arguments, xla::ffi::RemainingRets& results,
                                              int64_t activation) {
  const auto kernels = std::make_shared<std::vector<Kernel>>();
  for (size_t i = 0; i < results.size(); ++i) {
    const auto weights = arguments.get<xla::ffi::AnyBuffer>(3 * i);
    const auto scale = arguments.get<xla::ffi::Buffer<xla::ffi::F32>>(3 * i + 1);
    const auto bias = arguments.get<xla::ffi::Buffer<xla::ffi::F32>>(3 * i + 2);
    auto y = results.get<xla::ffi::Buffer<xla::ffi::F32>>(i);
    if (!weights || !scale || !bias || !y) {
      return xla::ffi::Unexpected(xla::ffi::Error::InvalidArgument("a kernel has weights, a scale, a bias and a result"));
    }
    const auto numbers = [](const auto& buffer) { return buffer->element_count() ? buffer->typed_data() : nullptr; };
    kernels->push_back({weights->untyped_data(), weights->element_type(), weights->dimensions()[0],
                        weights->dimensions()[1], numbers(scale), numbers(bias), (*y)->typed_data(),
                        (*y)->dimensions()[1], activation});
  }
  return Kernels(kernels);
}

// Binds a handler of rows, kernels as `ReadKernels` reads them, and their activation.
#define NEMOJAX_DEFINE_PRODUCT(NAME, FUNCTION)                                  \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(NAME, FUNCTION,                                 \
                                xla::ffi::Ffi::Bind()                           \
                                    .Ctx<xla::ffi::ThreadPool>()                \
                                    .Arg<xla::ffi::Buffer<xla::ffi::F32>>()     \
                                    .RemainingArgs()                            \
                                    .RemainingRets()                            \
                                    .Attr<int64_t>("activation"))

}  // namespace nemojax
