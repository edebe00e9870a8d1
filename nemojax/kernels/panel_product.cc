// y = x W for float32 rows x, with W in float32, bfloat16, or int8 with a scale for each output: what a live step spends
// its time on.
//
// With few rows a product takes as long as reading W takes, so W is read once, straight on, and widened in registers. It
// lies in panels of 16 outputs, [panels, inputs, 16], a panel being contiguous; in int8 two inputs of an output lie side
// by side, [panels, inputs / 2, 16, 2]. Sums are float32; for int8 they are of whole numbers, exact: each row of x is
// rounded to as many bits as leave room for them in 32, which is twice as fast again where there are many rows. Threads
// take panels as they come. Several kernels may multiply the same rows, and a product may end in a bias and an activation.
// `nemojax/kernels/panels.py` has the same in JAX.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>
#include <vector>

#include "outputs.h"
#include "rounding.h"
#include "threads.h"
#include "vectors.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace nemojax {
namespace {

constexpr int64_t kTaskBytes = 1 << 16;  // of weights; less is not worth a thread

// Returns a panel's numbers of a row.
inline Lanes Joined(const Floats* parts) {
  Lanes joined;
  std::memcpy(&joined, parts, sizeof(joined));
  return joined;
}

// One panel for `kRows` rows. A sum is in the order of the inputs, whatever the rows, so a row's bits depend on it alone.
template <int kRows, typename Weight>
void Panel(const float* x, int64_t inputs, const Weight* weights, const Kernel& kernel, int64_t row, int64_t output) {
  Floats sums[kRows][kParts] = {};
  for (int64_t i = 0; i < inputs; ++i) {
    Prefetch(weights + i * kPanel);
    for (int part = 0; part < kParts; ++part) {
      const Floats w = Widened(weights + i * kPanel + part * kRegisterLanes);
      for (int r = 0; r < kRows; ++r) sums[r][part] += x[r * inputs + i] * w;
    }
  }
  for (int r = 0; r < kRows; ++r) kernel.Write(Joined(sums[r]), All(1.0f), row + r, output);
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
void Int8Panel(const int16_t* x, const float* step, int64_t pairs, const int8_t* weights, const Kernel& kernel, int64_t row,
               int64_t output) {
  Ints sums[kRows][kParts] = {};
  for (int64_t i = 0; i < pairs; ++i) {
    Prefetch(weights + i * kPanel * 2);
    for (int part = 0; part < kParts; ++part) {
      const Pairs w = WidenedPairs(weights + (i * kPanel + part * kRegisterLanes) * 2);
      for (int r = 0; r < kRows; ++r) sums[r][part] = Added(sums[r][part], x + (r * pairs + i) * 2, w);
    }
  }
  const Lanes scale = Load(kernel.scale + output, kernel.outputs - output);
  for (int r = 0; r < kRows; ++r) {
    Floats floats[kParts];
    for (int part = 0; part < kParts; ++part) floats[part] = __builtin_convertvector(sums[r][part], Floats);
    kernel.Write(Joined(floats), step[r] * scale, row + r, output);
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

// Calls `multiply(kernel, panel, first output)` for each panel of all kernels, by all threads.
template <typename Function>
void ForPanels(ffi::ThreadPool& pool, const Kernels& kernels, int64_t rows, int64_t panel_bytes, const Function& multiply) {
  const int64_t passes = (rows + kMostRows - 1) / kMostRows;
  const int64_t each = std::max<int64_t>(1, kTaskBytes / (panel_bytes * passes));
  int64_t tasks = 0;
  for (const Kernel& kernel : *kernels) tasks += (kernel.panels + each - 1) / each;
  ForTasks(pool, tasks, [=](int64_t index) {
    for (const Kernel& kernel : *kernels) {
      const int64_t own = (kernel.panels + each - 1) / each;
      if (index < own) {
        for (int64_t panel = index * each; panel < std::min(kernel.panels, (index + 1) * each); ++panel) {
          multiply(kernel, panel, panel * kPanel);
        }
        return;
      }
      index -= own;
    }
  });
}

template <typename Weight>
void Product(ffi::ThreadPool& pool, const float* x, int64_t rows, int64_t inputs, const Kernels& kernels) {
  ForPanels(pool, kernels, rows, inputs * kPanel * sizeof(Weight), [=](const Kernel& kernel, int64_t panel, int64_t output) {
    InPasses(rows, [&](auto now, int64_t row) {
      Panel<now()>(x + row * inputs, inputs, (const Weight*)kernel.weights + panel * inputs * kPanel, kernel, row, output);
    });
  });
}

ffi::Error PanelProduct(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::RemainingArgs arguments,
                        ffi::RemainingRets results, int64_t activation) {
  const auto kernels = ReadKernels(arguments, results, activation);
  if (!kernels) return kernels.error();
  const int64_t rows = x.dimensions()[0], inputs = x.dimensions()[1];
  const ffi::DataType type = (*kernels)->front().type;
  for (const Kernel& kernel : **kernels) {
    if (kernel.type != type) return ffi::Error::InvalidArgument("kernels of one product have one type");
  }
  if (type == ffi::BF16) {
    Product<BFloat16>(pool, x.typed_data(), rows, inputs, *kernels);
  } else if (type == ffi::F32) {
    Product<float>(pool, x.typed_data(), rows, inputs, *kernels);
  } else {
    return ffi::Error::InvalidArgument("weights without a scale are float32 or bfloat16");
  }
  return ffi::Error::Success();
}

ffi::Error Int8PanelProduct(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::RemainingArgs arguments,
                            ffi::RemainingRets results, int64_t activation) {
  const auto kernels = ReadKernels(arguments, results, activation);
  if (!kernels) return kernels.error();
  const int64_t rows = x.dimensions()[0], pairs = (x.dimensions()[1] + 1) / 2, panel_size = pairs * kPanel * 2;
  // a thread that begins late, when all is done, still holds it
  const auto rounded = Round(pool, x.typed_data(), rows, x.dimensions()[1]);
  ForPanels(pool, *kernels, rows, panel_size, [=](const Kernel& kernel, int64_t panel, int64_t output) {
    InPasses(rows, [&](auto now, int64_t row) {
      Int8Panel<now()>(rounded->values.data() + row * pairs * 2, rounded->step.data() + row, pairs,
                       (const int8_t*)kernel.weights + panel * panel_size, kernel, row, output);
    });
  });
  return ffi::Error::Success();
}

template <typename Value>
void LayOutPanels(const Value* kernel, int64_t inputs, int64_t outputs, Value* panels) {
  for (int64_t first = 0; first < outputs; first += kPanel) {
    const int64_t count = std::min<int64_t>(kPanel, outputs - first);
    for (int64_t input = 0; input < inputs; ++input, panels += kPanel) {
      const Value* from = kernel + input * outputs + first;
      if (count == kPanel) {
        std::memcpy(panels, from, kPanel * sizeof(Value));
      } else {
        std::fill(std::copy_n(from, count, panels), panels + kPanel, Value{});
      }
    }
  }
}

}  // namespace
}  // namespace nemojax

// Lays a kernel, [inputs, outputs], of float32 or bfloat16 out in panels; `panels.to_panels` does the same in JAX.
extern "C" void nemojax_lay_out_panels(const void* kernel, int64_t inputs, int64_t outputs, int64_t bytes, void* panels) {
  if (bytes == sizeof(float)) {
    nemojax::LayOutPanels((const uint32_t*)kernel, inputs, outputs, (uint32_t*)panels);
  } else {
    nemojax::LayOutPanels((const uint16_t*)kernel, inputs, outputs, (uint16_t*)panels);
  }
}

NEMOJAX_DEFINE_PRODUCT(nemojax_panel_product, nemojax::PanelProduct);
NEMOJAX_DEFINE_PRODUCT(nemojax_int8_panel_product, nemojax::Int8PanelProduct);
