// Layer norm, log-sum-exp, and the gated convolution over time, whose sums are in an order that no shape changes: a frame
// gets the same bits alone and in any company, whatever the rows, the segment and the slot of a frame. `lanes.h` has the
// order, `nemojax/kernels/fixed_order.py` the layers.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <vector>

#include "lanes.h"
#include "threads.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace nemojax {
namespace {

// Calls `write(normed lanes, i)` for the numbers of a row from i on, normalized by their mean and variance.
template <typename Function>
void NormRow(const float* from, int64_t width, const float* scale, const float* bias, float epsilon, const Function& write) {
  const float mean = SumOf(width, [&](Lanes sums, int64_t i) { return sums + Load(from + i, width - i); }) / width;
  const auto centered = [&](int64_t i) { return First(Load(from + i, width - i) - mean, width - i); };
  const auto square = [&](Lanes sums, int64_t i) { return MultiplyAdd(centered(i), centered(i), sums); };
  const float inverse = 1.0f / std::sqrt(SumOf(width, square) / width + epsilon);
  for (int64_t i = 0; i < width; i += kLanes) {
    const Lanes normed = centered(i) * inverse;
    write(MultiplyAdd(normed, Load(scale + i, width - i), Load(bias + i, width - i)), i);
  }
}

// Layer norm of the rows of x, [R, D].
ffi::Error Norm(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::F32> scale, ffi::Buffer<ffi::F32> bias,
                ffi::ResultBuffer<ffi::F32> y, float epsilon) {
  const int64_t width = x.dimensions()[1];
  const float *x_data = x.typed_data(), *scale_data = scale.typed_data(), *bias_data = bias.typed_data();
  float* y_data = y->typed_data();
  ForUnits(pool, x.dimensions()[0], width, [=](int64_t row) {
    NormRow(x_data + row * width, width, scale_data, bias_data, epsilon,
            [=](Lanes normed, int64_t i) { Store(normed, y_data + row * width + i, width - i); });
  });
  return ffi::Error::Success();
}

// ln of the sum of e^x over each row of x, [R, V].
ffi::Error LogSumExp(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::ResultBuffer<ffi::F32> y) {
  const int64_t width = x.dimensions()[1];
  const float* x_data = x.typed_data();
  float* y_data = y->typed_data();
  ForUnits(pool, x.dimensions()[0], width, [=](int64_t row) {
    const float* from = x_data + row * width;
    const float largest = Largest(from, width);
    const auto add = [&](Lanes sums, int64_t i) {
      return sums + First(Exp(Load(from + i, width - i) - largest), width - i);
    };
    y_data[row] = std::log(SumOf(width, add)) + largest;
  });
  return ffi::Error::Success();
}

// The middle of a block's convolution: gated linear unit, depthwise convolution over the frame and those before it, layer
// norm, SiLU. x is [B, T, 2 D], y [B, T, D].
//
// The segment begins at frame `begin`, and frames before `end` are valid; others, and what is not finite, count as zero
// after the gate. Earlier frames are in the ring, [B, 1, S, D], frame f in slot f mod S; valid ones are written to it at the
// end. `gated` is [B, T, D]. The kernel is [taps, D]; without a bias that is empty.
ffi::Error GatedConvolution(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::S32> begin,
                            ffi::Buffer<ffi::S32> end, ffi::Buffer<ffi::F32> kernel, ffi::Buffer<ffi::F32> bias,
                            ffi::Buffer<ffi::F32> scale, ffi::Buffer<ffi::F32> norm_bias, ffi::Buffer<ffi::F32>,
                            ffi::ResultBuffer<ffi::F32> y, ffi::ResultBuffer<ffi::F32> gated,
                            ffi::ResultBuffer<ffi::F32> ring, float epsilon) {
  const int64_t batch = x.dimensions()[0], frames = x.dimensions()[1], width = x.dimensions()[2] / 2;
  const int64_t taps = kernel.dimensions()[0], slots = ring->dimensions()[2];
  const float *x_data = x.typed_data(), *kernel_data = kernel.typed_data(), *scale_data = scale.typed_data();
  const float *norm_bias_data = norm_bias.typed_data(), *bias_data = bias.element_count() ? bias.typed_data() : nullptr;
  const int32_t *begin_data = begin.typed_data(), *end_data = end.typed_data();
  float *y_data = y->typed_data(), *gated_data = gated->typed_data(), *ring_data = ring->typed_data();

  ForUnits(pool, batch * frames, 2 * width, [=](int64_t unit) {
    const bool valid = begin_data[unit / frames] + unit % frames < end_data[unit / frames];
    const float* from = x_data + unit * 2 * width;
    for (int64_t i = 0; i < width; i += kLanes) {
      const int64_t left = width - i;
      const Lanes y = Load(from + i, left) * Sigmoid(Load(from + width + i, left));
      Store(valid ? FiniteOrZero(y) : Lanes{}, gated_data + unit * width + i, left);
    }
  });
  ForUnits(pool, batch * frames, 2 * width, [=](int64_t unit) {
    static thread_local std::vector<const float*> memory;
    memory.resize(taps);
    const float** inputs = memory.data();
    const int64_t row = unit / frames, place = unit % frames;
    const int64_t first = std::max<int64_t>(0, taps - 1 - place - begin_data[row]);  // taps before that lack a frame
    for (int64_t tap = first; tap < taps; ++tap) {
      const int64_t back = taps - 1 - tap, slot = (begin_data[row] + place - back) % slots;
      inputs[tap] = back <= place ? gated_data + (unit - back) * width : ring_data + (row * slots + slot) * width;
    }
    float* to = y_data + unit * width;
    for (int64_t i = 0; i < width; i += kLanes) {
      Lanes sum = bias_data ? Load(bias_data + i, width - i) : Lanes{};
      for (int64_t tap = first; tap < taps; ++tap) {
        sum = MultiplyAdd(Load(inputs[tap] + i, width - i), Load(kernel_data + tap * width + i, width - i), sum);
      }
      Store(sum, to + i, width - i);
    }
    NormRow(to, width, scale_data, norm_bias_data, epsilon,
            [=](Lanes normed, int64_t i) { Store(Silu(normed), to + i, width - i); });
  });
  for (int64_t row = 0; row < batch; ++row) {
    const int64_t valid = end_data[row] - begin_data[row];
    for (int64_t place = std::max<int64_t>(0, valid - slots); place < valid; ++place) {
      const float* from = gated_data + (row * frames + place) * width;
      std::copy_n(from, width, ring_data + (row * slots + (begin_data[row] + place) % slots) * width);
    }
  }
  return ffi::Error::Success();
}

}  // namespace
}  // namespace nemojax

XLA_FFI_DEFINE_HANDLER_SYMBOL(nemojax_fixed_norm, nemojax::Norm,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Attr<float>("epsilon"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    nemojax_fixed_log_sum_exp, nemojax::LogSumExp,
    ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<ffi::Buffer<ffi::F32>>().Ret<ffi::Buffer<ffi::F32>>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(nemojax_fixed_gated_convolution, nemojax::GatedConvolution,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()  // the ring, in whose memory the result is
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Attr<float>("epsilon"));
