// y = x W for float32 rows x, with W in float32, bfloat16, or int8 with a scale for each output: what a live step spends
// its time on.
//
// With few rows a product takes as long as reading W takes, so W is read once, straight on, and widened in registers. It
// lies in panels of 16 outputs, [panels, inputs, 16], a panel being contiguous; in int8 two inputs of an output lie side
// by side, [panels, inputs / 2, 16, 2]. Sums are float32; for int8 they are of whole numbers, exact: each row of x is
// rounded to as many bits as leave room for them in 32, which is twice as fast again where there are many rows. Threads
// take panels as they come. `nemojax/kernels/panels.py` has the same in JAX.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <vector>

#include "rounding.h"
#include "threads.h"
#include "vectors.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace nemojax {
namespace {

constexpr int64_t kTaskBytes = 1 << 16;  // of weights; less is not worth a thread

// One panel for `kRows` rows. A sum is in the order of the inputs, whatever the rows, so a row's bits depend on it alone.
template <int kRows, typename Weight>
void Panel(const float* x, int64_t inputs, const Weight* weights, int64_t columns, float* y, int64_t stride) {
  Floats sums[kRows][kParts] = {};
  for (int64_t i = 0; i < inputs; ++i) {
    Prefetch(weights + i * kPanel);
    for (int part = 0; part < kParts; ++part) {
      const Floats w = Widened(weights + i * kPanel + part * kLanes);
      for (int row = 0; row < kRows; ++row) sums[row][part] += x[row * inputs + i] * w;
    }
  }
  for (int row = 0; row < kRows; ++row) {
    for (int64_t o = 0; o < columns; ++o) y[row * stride + o] = sums[row][o / kLanes][o % kLanes];
  }
}

// Rows in whole numbers, and what one is worth in each row.
struct Rounded {
  std::vector<int16_t> values;
  std::vector<float> step;
};

std::shared_ptr<const Rounded> Round(ffi::ThreadPool& pool, const float* x, int64_t rows, int64_t inputs) {
  const int64_t padded = (inputs + 1) / 2 * 2;
  const auto rounded = std::make_shared<Rounded>(Rounded{std::vector<int16_t>(rows * padded), std::vector<float>(rows)});
  const auto round = [=](int64_t row) {
    rounded->step[row] = RoundRow(x + row * inputs, inputs, rounded->values.data() + row * padded);
  };
  ForRows(pool, rows, inputs, 1, round);
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

// Calls `multiply(panel, first output, number of outputs)` for each panel, by all threads.
template <typename Function>
void ForPanels(ffi::ThreadPool& pool, int64_t panels, int64_t panel_bytes, int64_t outputs, const Function& multiply) {
  const int64_t each = std::max<int64_t>(1, kTaskBytes / panel_bytes);
  const auto task = [=](int64_t index) {
    for (int64_t panel = index * each; panel < std::min(panels, (index + 1) * each); ++panel) {
      multiply(panel, panel * kPanel, std::min<int64_t>(kPanel, outputs - panel * kPanel));
    }
  };
  ForTasks(pool, (panels + each - 1) / each, task);
}

template <typename Weight>
ffi::Error Product(ffi::ThreadPool& pool, const ffi::Buffer<ffi::F32>& x, const Weight* weights, int64_t panels,
                   ffi::ResultBuffer<ffi::F32>& y) {
  const int64_t rows = x.dimensions()[0], inputs = x.dimensions()[1], outputs = y->dimensions()[1];
  const float* x_data = x.typed_data();
  float* y_data = y->typed_data();
  ForPanels(pool, panels, inputs * kPanel * sizeof(Weight), outputs, [=](int64_t panel, int64_t first, int64_t columns) {
    InPasses(rows, [=](auto now, int64_t row) {
      Panel<now()>(x_data + row * inputs, inputs, weights + panel * inputs * kPanel, columns,
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
  // a thread that begins late, when all is done, still holds it
  const auto rounded = Round(pool, x.typed_data(), rows, x.dimensions()[1]);
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
}  // namespace nemojax

XLA_FFI_DEFINE_HANDLER_SYMBOL(nemojax_panel_product, nemojax::PanelProduct,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::Buffer<ffi::F32>>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(nemojax_int8_panel_product, nemojax::Int8PanelProduct,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::S8>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>());
