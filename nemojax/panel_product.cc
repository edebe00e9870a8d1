// y = x W for float32 rows x, with W in float32, bfloat16, or int8 with a scale for each output: what a live step spends
// its time on.
//
// With few rows a product takes as long as reading W takes, so W is read once, straight on, and widened in registers; all
// sums are float32. W lies in panels of 16 outputs, [panels, inputs, 16], a panel being contiguous. Threads take panels
// as they come. `nemojax/native.py` compiles this for the machine that it runs on; `nemojax/packed.py` has the same in
// JAX.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

constexpr int kPanel = 16;
constexpr int64_t kTaskBytes = 1 << 16;  // of weights; less is not worth a thread

#if defined(__AVX512F__)
constexpr int kLanes = 16, kMostRows = 8;  // rows whose sums stay in registers
#else
constexpr int kLanes = 8, kMostRows = 5;
#endif
constexpr int kParts = kPanel / kLanes;
typedef float Floats __attribute__((vector_size(kLanes * sizeof(float))));

struct BFloat16 {
  uint16_t bits;
};

inline Floats Widened(const float* weights) {
  Floats floats;
  std::memcpy(&floats, weights, sizeof(floats));
  return floats;
}

// Compilers widen these one by one where they are not told how.
inline Floats Widened(const int8_t* weights) {
#if defined(__AVX512F__)
  return (Floats)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)weights)));
#elif defined(__AVX2__)
  return (Floats)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)weights)));
#else
  Floats floats;
  for (int lane = 0; lane < kLanes; ++lane) floats[lane] = weights[lane];
  return floats;
#endif
}

inline Floats Widened(const BFloat16* weights) {  // the upper half of a float32
#if defined(__AVX512F__)
  return (Floats)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)weights)), 16);
#elif defined(__AVX2__)
  return (Floats)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)weights)), 16);
#else
  Floats floats;
  for (int lane = 0; lane < kLanes; ++lane) {
    const uint32_t bits = uint32_t{weights[lane].bits} << 16;
    std::memcpy((char*)&floats + lane * sizeof(float), &bits, sizeof(float));
  }
  return floats;
#endif
}

// One panel for `kRows` rows. Sums run in `kChains` chains, so that an addition need not wait for the one before.
template <int kRows, int kChains, typename Weight>
void Panel(const float* x, int64_t inputs, const Weight* weights, const float* scale, int64_t columns, float* y,
           int64_t stride) {
  Floats sums[kRows][kChains][kParts] = {};
  const auto add = [&](int64_t i, int chain) {
    for (int part = 0; part < kParts; ++part) {
      const Floats w = Widened(weights + i * kPanel + part * kLanes);
      for (int row = 0; row < kRows; ++row) sums[row][chain][part] += x[row * inputs + i] * w;
    }
  };
  int64_t i = 0;
  for (; i + kChains <= inputs; i += kChains) {
    for (int chain = 0; chain < kChains; ++chain) add(i + chain, chain);
  }
  for (; i < inputs; ++i) add(i, 0);
  for (int row = 0; row < kRows; ++row) {
    for (int64_t o = 0; o < columns; ++o) {
      float sum = 0;
      for (int chain = 0; chain < kChains; ++chain) sum += sums[row][chain][o / kLanes][o % kLanes];
      y[row * stride + o] = scale ? sum * scale[o] : sum;
    }
  }
}

template <typename Weight>
void Rows(const float* x, int64_t rows, int64_t inputs, const Weight* weights, const float* scale, int64_t columns,
          float* y, int64_t stride) {
  while (rows > 0) {
    // 9 rows are 5 and 4 rather than 8 and 1: each pass widens the weights again
    const int64_t passes = (rows + kMostRows - 1) / kMostRows, now = (rows + passes - 1) / passes;
    switch (now) {
      case 1: Panel<1, 4>(x, inputs, weights, scale, columns, y, stride); break;
      case 2: Panel<2, 2>(x, inputs, weights, scale, columns, y, stride); break;
      case 3: Panel<3, 1>(x, inputs, weights, scale, columns, y, stride); break;
      case 4: Panel<4, 1>(x, inputs, weights, scale, columns, y, stride); break;
      case 5: Panel<5, 1>(x, inputs, weights, scale, columns, y, stride); break;
      case 6: Panel<6, 1>(x, inputs, weights, scale, columns, y, stride); break;
      case 7: Panel<7, 1>(x, inputs, weights, scale, columns, y, stride); break;
      default: Panel<8, 1>(x, inputs, weights, scale, columns, y, stride); break;
    }
    x += now * inputs;
    y += now * stride;
    rows -= now;
  }
}

// What the threads of one product share. It outlives the call: a task that begins late finds no work, and goes.
struct Work {
  int64_t tasks;
  std::atomic<int64_t> next{0};
  std::mutex mutex;
  std::condition_variable all_done;
  int64_t done = 0;

  template <typename Function>
  void Run(const Function& task) {
    int64_t finished = 0;
    for (int64_t index; (index = next.fetch_add(1)) < tasks; ++finished) task(index);
    if (finished == 0) return;
    std::lock_guard<std::mutex> lock(mutex);
    if ((done += finished) == tasks) all_done.notify_all();
  }

  void Wait() {
    std::unique_lock<std::mutex> lock(mutex);
    all_done.wait(lock, [this] { return done == tasks; });
  }
};

template <typename Weight>
ffi::Error Product(ffi::ThreadPool& pool, const ffi::Buffer<ffi::F32>& x, const Weight* weights, int64_t panels,
                   const float* scale, ffi::ResultBuffer<ffi::F32>& y) {
  const int64_t rows = x.dimensions()[0], inputs = x.dimensions()[1], outputs = y->dimensions()[1];
  const int64_t panel_size = inputs * kPanel;
  const int64_t each = std::max<int64_t>(1, kTaskBytes / (panel_size * int64_t{sizeof(Weight)}));
  const float* x_data = x.typed_data();
  float* y_data = y->typed_data();

  const auto task = [=](int64_t index) {
    for (int64_t panel = index * each; panel < std::min(panels, (index + 1) * each); ++panel) {
      const int64_t first = panel * kPanel, columns = std::min<int64_t>(kPanel, outputs - first);
      Rows(x_data, rows, inputs, weights + panel * panel_size, scale ? scale + first : nullptr, columns,
           y_data + first, outputs);
    }
  };
  auto work = std::make_shared<Work>();
  work->tasks = (panels + each - 1) / each;
  const int64_t helpers = std::min<int64_t>(pool.num_threads(), work->tasks) - 1;
  for (int64_t helper = 0; helper < helpers; ++helper) pool.Schedule([work, task] { work->Run(task); });
  work->Run(task);
  work->Wait();
  return ffi::Error::Success();
}

ffi::Error PanelProduct(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::AnyBuffer weights,
                        ffi::ResultBuffer<ffi::F32> y) {
  const int64_t panels = weights.dimensions()[0];
  if (weights.element_type() == ffi::BF16) {
    return Product(pool, x, (const BFloat16*)weights.untyped_data(), panels, nullptr, y);
  }
  if (weights.element_type() == ffi::F32) {
    return Product(pool, x, (const float*)weights.untyped_data(), panels, nullptr, y);
  }
  return ffi::Error::InvalidArgument("weights without a scale are float32 or bfloat16");
}

ffi::Error ScaledPanelProduct(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::S8> weights,
                              ffi::Buffer<ffi::F32> scale, ffi::ResultBuffer<ffi::F32> y) {
  return Product(pool, x, weights.typed_data(), weights.dimensions()[0], scale.typed_data(), y);
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(nemojax_panel_product, PanelProduct,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::Buffer<ffi::F32>>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(nemojax_scaled_panel_product, ScaledPanelProduct,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::S8>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>());
