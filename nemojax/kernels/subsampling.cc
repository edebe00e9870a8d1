// A 3 x 3 convolution of stride 2 over time and frequency, from one channel or of each channel by itself; its sums are in
// the order of the taps, whatever the shape.

#include <cstdint>

#include "lanes.h"
#include "threads.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace nemojax {
namespace {

constexpr int64_t kSide = 3, kStride = 2;

// y is [B, F / 2, Q / 2 + 1, channels] for x, [B, F, Q, 1] or [B, F, Q, channels], whose frames count as zero outside
// `mask`, [B, F]. The frame before the first one is `cache`, [B, 1, Q, ...]. Below and above the frequencies there are zeros.
// The kernel is [9, channels]. With `relu`, no result is below zero.
ffi::Error Convolution(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::PRED> mask,
                       ffi::Buffer<ffi::F32> cache, ffi::Buffer<ffi::F32> kernel, ffi::Buffer<ffi::F32> bias,
                       ffi::ResultBuffer<ffi::F32> y, bool relu) {
  const int64_t frames = x.dimensions()[1], bins = x.dimensions()[2], inputs = x.dimensions()[3];
  const int64_t new_frames = y->dimensions()[1], new_bins = y->dimensions()[2], channels = y->dimensions()[3];
  const float *x_data = x.typed_data(), *cache_data = cache.typed_data();
  const float *kernel_data = kernel.typed_data(), *bias_data = bias.typed_data();
  const bool* mask_data = mask.typed_data();
  float* y_data = y->typed_data();
  ForUnits(pool, y->dimensions()[0] * new_frames, 2 * new_bins * channels, [=](int64_t unit) {
    const int64_t row = unit / new_frames, first_frame = unit % new_frames * kStride - 1;
    const float* lines[kSide];  // of frequencies, those of a frame
    for (int64_t dt = 0; dt < kSide; ++dt) {
      const int64_t frame = first_frame + dt;
      lines[dt] = x_data + (row * frames + frame) * bins * inputs;
      if (frame < 0) lines[dt] = cache_data + row * bins * inputs;
      else if (!mask_data[row * frames + frame]) lines[dt] = nullptr;
    }
    for (int64_t bin = 0; bin < new_bins; ++bin) {
      const float *input[kSide * kSide], *weights[kSide * kSide];
      int taps = 0;  // others are zero
      for (int64_t dt = 0; dt < kSide; ++dt) {
        for (int64_t df = 0; df < kSide; ++df) {
          const int64_t from = bin * kStride - (kSide - 1) + df;
          if (!lines[dt] || from < 0 || from >= bins) continue;
          input[taps] = lines[dt] + from * inputs;
          weights[taps++] = kernel_data + (dt * kSide + df) * channels;
        }
      }
      float* to = y_data + (unit * new_bins + bin) * channels;
      const auto write = [=](const auto& value) {
        for (int64_t i = 0; i < channels; i += kLanes) {
          const int64_t left = channels - i;
          Lanes sum = Load(bias_data + i, left);
          for (int tap = 0; tap < taps; ++tap) sum = MultiplyAdd(value(input[tap], i), Load(weights[tap] + i, left), sum);
          Store(relu ? Positive(sum) : sum, to + i, left);
        }
      };
      if (inputs == 1) {
        write([](const float* from, int64_t) { return All(*from); });
      } else {
        write([=](const float* from, int64_t i) { return Load(from + i, channels - i); });
      }
    }
  });
  return ffi::Error::Success();
}

}  // namespace
}  // namespace nemojax

XLA_FFI_DEFINE_HANDLER_SYMBOL(nemojax_fixed_convolution, nemojax::Convolution,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::PRED>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Attr<bool>("relu"));
