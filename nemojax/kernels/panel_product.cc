// y = x W for float32 rows x, with W in float32, bfloat16, or int8 with a scale for each output: what a live step spends
// its time on.
//
// With few rows a product takes as long as reading W takes, so W is read once, straight on, and widened in registers. It
// lies in panels of 16 outputs, [panels, inputs, 16], a panel being contiguous; in int8 two inputs of an output lie side
// by side, [panels, inputs / 2, 16, 2]. Sums are float32; for int8 they are of whole numbers, exact: each row of x is
// rounded to as many bits as leave room for them in 32, which is twice as fast again where there are many rows. Threads
// take panels as they come. `nemojax/kernels/native.py` compiles this for the machine that it runs on; `nemojax/kernels/quantization.py` has the
// same in JAX.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <mutex>
#include <type_traits>
#include <vector>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

constexpr int kPanel = 16;
constexpr int kLargestWeight = 127;
constexpr int64_t kAheadBytes = 1 << 12;  // of weights
constexpr int64_t kTaskBytes = 1 << 16;  // of weights; less is not worth a thread

#if defined(__AVX512BW__)
constexpr int kLanes = 16, kMostRows = 8;  // rows whose sums stay in registers
#else
constexpr int kLanes = 8, kMostRows = 5;
#endif
constexpr int kParts = kPanel / kLanes;
typedef float Floats __attribute__((vector_size(kLanes * sizeof(float))));
typedef int32_t Ints __attribute__((vector_size(kLanes * sizeof(int32_t))));
typedef int16_t Pairs __attribute__((vector_size(2 * kLanes * sizeof(int16_t))));  // two inputs for each lane

struct BFloat16 {
  uint16_t bits;
};

inline Floats Widened(const float* weights) {
  Floats floats;
  std::memcpy(&floats, weights, sizeof(floats));
  return floats;
}

// Compilers widen one value at a time unless the code says how.
inline Floats Widened(const BFloat16* weights) {  // the upper half of a float32
#if defined(__AVX512BW__)
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

// Asks for the weights some iterations ahead: the processor's own guesses come too late for the few operations of each.
inline void Prefetch(const void* weights) { __builtin_prefetch((const char*)weights + kAheadBytes); }

// One panel for `kRows` rows. Sums run in `kChains` chains, so that an addition need not wait for the one before.
template <int kRows, int kChains, typename Weight>
void Panel(const float* x, int64_t inputs, const Weight* weights, int64_t columns, float* y, int64_t stride) {
  Floats sums[kRows][kChains][kParts] = {};
  const auto add = [&](int64_t i, int chain) {
    Prefetch(weights + i * kPanel);
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
      y[row * stride + o] = sum;
    }
  }
}

inline Pairs WidenedPairs(const int8_t* weights) {
#if defined(__AVX512BW__)
  return (Pairs)_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i*)weights));
#elif defined(__AVX2__)
  return (Pairs)_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)weights));
#else
  Pairs pairs;
  for (int i = 0; i < 2 * kLanes; ++i) pairs[i] = weights[i];
  return pairs;
#endif
}

// Adds the products of a pair of inputs, the same for all lanes, with each lane's pair of weights.
inline Ints Added(Ints sums, const int16_t* x, Pairs weights) {
  int32_t both;
  std::memcpy(&both, x, sizeof(both));
#if defined(__AVX512BW__) && defined(__AVX512VNNI__)
  return (Ints)_mm512_dpwssd_epi32((__m512i)sums, _mm512_set1_epi32(both), (__m512i)weights);
#elif defined(__AVX512BW__)
  return sums + (Ints)_mm512_madd_epi16(_mm512_set1_epi32(both), (__m512i)weights);
#elif defined(__AVX2__)
  return sums + (Ints)_mm256_madd_epi16(_mm256_set1_epi32(both), (__m256i)weights);
#else
  for (int lane = 0; lane < kLanes; ++lane) sums[lane] += x[0] * weights[2 * lane] + x[1] * weights[2 * lane + 1];
  return sums;
#endif
}

// Rows in whole numbers, and what one is worth in each row.
struct Rounded {
  std::vector<int16_t> values;
  std::vector<float> step;
};

Rounded Round(const float* x, int64_t rows, int64_t inputs) {
  const int64_t pairs = (inputs + 1) / 2, room = std::numeric_limits<int32_t>::max() / (kLargestWeight * inputs);
  const float most = std::min<int64_t>(room, std::numeric_limits<int16_t>::max());
  Rounded rounded{std::vector<int16_t>(rows * pairs * 2), std::vector<float>(rows)};
  for (int64_t row = 0; row < rows; ++row, x += inputs) {
    uint32_t largest_bits = 0;  // of what is not finite they are larger than of any number
    for (int64_t i = 0; i < inputs; ++i) {
      uint32_t bits;
      std::memcpy(&bits, x + i, sizeof(bits));
      largest_bits = std::max(largest_bits, bits & 0x7fffffffu);
    }
    float largest;
    std::memcpy(&largest, &largest_bits, sizeof(largest));
    if (!std::isfinite(largest)) {
      rounded.step[row] = std::numeric_limits<float>::quiet_NaN();  // of which zero times is not a number either
    } else if (largest > std::numeric_limits<float>::min()) {
      rounded.step[row] = largest / most;
      const float inverse = most / largest;
      int16_t* values = rounded.values.data() + row * pairs * 2;
      for (int64_t i = 0; i < inputs; ++i) values[i] = std::rint(x[i] * inverse);
    }
  }
  return rounded;
}

// The same for a panel of int8, given some rows of `x`.
template <int kRows>
void Int8Panel(const int16_t* x, const float* step, int64_t pairs, const int8_t* weights, const float* scale,
               int64_t columns, float* y, int64_t stride) {
  Ints sums[kRows][kParts] = {};
  for (int64_t i = 0; i < pairs; ++i) {
    Prefetch(weights + i * kPanel * 2);
    for (int part = 0; part < kParts; ++part) {
      const Pairs w = WidenedPairs(weights + (i * kPanel + part * kLanes) * 2);
      for (int row = 0; row < kRows; ++row) sums[row][part] = Added(sums[row][part], x + (row * pairs + i) * 2, w);
    }
  }
  for (int row = 0; row < kRows; ++row) {
    for (int64_t o = 0; o < columns; ++o) y[row * stride + o] = sums[row][o / kLanes][o % kLanes] * (step[row] * scale[o]);
  }
}

// Calls `panel` with a number of rows known to the compiler, until all rows are done.
template <typename Function>
void InPasses(int64_t rows, const Function& panel) {
  for (int64_t first = 0; first < rows;) {
    // 9 rows are 5 and 4 rather than 8 and 1: each pass widens the weights again
    const int64_t left = rows - first, passes = (left + kMostRows - 1) / kMostRows, now = (left + passes - 1) / passes;
    switch (now) {
      case 1: panel(std::integral_constant<int, 1>(), first); break;
      case 2: panel(std::integral_constant<int, 2>(), first); break;
      case 3: panel(std::integral_constant<int, 3>(), first); break;
      case 4: panel(std::integral_constant<int, 4>(), first); break;
      case 5: panel(std::integral_constant<int, 5>(), first); break;
      case 6: panel(std::integral_constant<int, 6>(), first); break;
      case 7: panel(std::integral_constant<int, 7>(), first); break;
      default: panel(std::integral_constant<int, 8>(), first); break;
    }
    first += now;
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

// Calls `multiply(panel, first output, number of outputs)` for each panel, by all threads.
template <typename Function>
void ForPanels(ffi::ThreadPool& pool, int64_t panels, int64_t panel_bytes, int64_t outputs, const Function& multiply) {
  const int64_t each = std::max<int64_t>(1, kTaskBytes / panel_bytes);
  const auto task = [=](int64_t index) {
    for (int64_t panel = index * each; panel < std::min(panels, (index + 1) * each); ++panel) {
      multiply(panel, panel * kPanel, std::min<int64_t>(kPanel, outputs - panel * kPanel));
    }
  };
  auto work = std::make_shared<Work>();
  work->tasks = (panels + each - 1) / each;
  const int64_t helpers = std::min<int64_t>(pool.num_threads(), work->tasks) - 1;
  for (int64_t helper = 0; helper < helpers; ++helper) pool.Schedule([work, task] { work->Run(task); });
  work->Run(task);
  work->Wait();
}

template <typename Weight>
ffi::Error Product(ffi::ThreadPool& pool, const ffi::Buffer<ffi::F32>& x, const Weight* weights, int64_t panels,
                   ffi::ResultBuffer<ffi::F32>& y) {
  const int64_t rows = x.dimensions()[0], inputs = x.dimensions()[1], outputs = y->dimensions()[1];
  const float* x_data = x.typed_data();
  float* y_data = y->typed_data();
  ForPanels(pool, panels, inputs * kPanel * sizeof(Weight), outputs, [=](int64_t panel, int64_t first, int64_t columns) {
    InPasses(rows, [=](auto now, int64_t row) {
      constexpr int kRows = now(), kChains = kRows == 1 ? 4 : kRows == 2 ? 2 : 1;
      Panel<kRows, kChains>(x_data + row * inputs, inputs, weights + panel * inputs * kPanel, columns,
                            y_data + row * outputs + first, outputs);
    });
  });
  return ffi::Error::Success();
}

ffi::Error PanelProduct(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::AnyBuffer weights,
                        ffi::ResultBuffer<ffi::F32> y) {
  const int64_t panels = weights.dimensions()[0];
  if (weights.element_type() == ffi::BF16) {
    return Product(pool, x, (const BFloat16*)weights.untyped_data(), panels, y);
  }
  if (weights.element_type() == ffi::F32) {
    return Product(pool, x, (const float*)weights.untyped_data(), panels, y);
  }
  return ffi::Error::InvalidArgument("weights without a scale are float32 or bfloat16");
}

ffi::Error Int8PanelProduct(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::S8> weights,
                            ffi::Buffer<ffi::F32> scale, ffi::ResultBuffer<ffi::F32> y) {
  const int64_t rows = x.dimensions()[0], pairs = weights.dimensions()[1], outputs = y->dimensions()[1];
  const int64_t panel_size = pairs * kPanel * 2;
  // a task that begins late, when all is done, still holds it
  const auto rounded = std::make_shared<const Rounded>(Round(x.typed_data(), rows, x.dimensions()[1]));
  const int8_t* weights_data = weights.typed_data();
  const float* scale_data = scale.typed_data();
  float* y_data = y->typed_data();
  ForPanels(pool, weights.dimensions()[0], panel_size, outputs, [=](int64_t panel, int64_t first, int64_t columns) {
    InPasses(rows, [&](auto now, int64_t row) {
      Int8Panel<now()>(rounded->values.data() + row * pairs * 2, rounded->step.data() + row, pairs,
                       weights_data + panel * panel_size, scale_data + first, columns,
                       y_data + row * outputs + first, outputs);
    });
  });
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(nemojax_panel_product, PanelProduct,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::Buffer<ffi::F32>>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(nemojax_int8_panel_product, Int8PanelProduct,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::S8>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>());
