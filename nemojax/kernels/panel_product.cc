// y = x W for float32 rows x, with W in float32, bfloat16, or int8 with a scale for each output: what a live step spends
// its time on.
//
// With few rows a product takes as long as reading W takes, so W is read once, straight on, and widened in registers. It
// lies in panels of 16 outputs, [panels, inputs, 16], a panel being contiguous; in int8 two inputs of an output lie side
// by side, [panels, inputs / 2, 16, 2]. Sums are float32; for int8 they are of whole numbers, exact: each row of x is
// rounded to as many bits as leave room for them in 32, which is twice as fast again where there are many rows. With many
// rows it is the cache that counts: W is read again for each block of rows. Threads take panels, a few at a time, of a
// block as they come. Several kernels may multiply the same rows, and a product may end in a bias and an activation.
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
constexpr int64_t kBlockBytes = 1 << 19;  // of rows, which stay in a core's cache while panels pass

// Returns a panel's numbers of a row.
inline Lanes Joined(const Floats* parts) {
  Lanes joined;
  std::memcpy(&joined, parts, sizeof(joined));
  return joined;
}

// Some panels for `kRows` rows. A sum is in the order of the inputs, whatever the rows, so a row's bits depend on it alone.
template <int kRows, int kPanels, typename Weight>
void Panels(const float* x, int64_t inputs, const Weight* weights, const Kernel& kernel, int64_t row, int64_t output) {
  Floats sums[kPanels][kRows][kParts] = {};
  for (int64_t i = 0; i < inputs; ++i) {
    Floats w[kPanels][kParts];
    for (int panel = 0; panel < kPanels; ++panel) {
      const Weight* from = weights + (panel * inputs + i) * kPanel;
      Prefetch(from);
      for (int part = 0; part < kParts; ++part) w[panel][part] = Widened(from + part * kRegisterLanes);
    }
    for (int r = 0; r < kRows; ++r) {
      for (int panel = 0; panel < kPanels; ++panel) {
        for (int part = 0; part < kParts; ++part) sums[panel][r][part] += x[r * inputs + i] * w[panel][part];
      }
    }
  }
  for (int panel = 0; panel < kPanels; ++panel) {
    for (int r = 0; r < kRows; ++r) kernel.Write(Joined(sums[panel][r]), All(1.0f), row + r, output + panel * kPanel);
  }
}

// Rows that are multiplied at once, at most `kMostRows`.
struct Pass {
  int64_t first, rows;
};
typedef std::shared_ptr<const std::vector<Pass>> Passes;  // threads that begin late hold them

// Returns passes as even as can be: 9 rows are 5 and 4 rather than 8 and 1, for each pass widens the weights again.
Passes PassesOf(int64_t rows) {
  const auto passes = std::make_shared<std::vector<Pass>>();
  const int64_t count = (rows + kMostRows - 1) / kMostRows;
  for (int64_t pass = 0, first = 0; pass < count; ++pass) {
    const int64_t now = (rows - first + count - pass - 1) / (count - pass);
    passes->push_back({first, now});
    first += now;
  }
  return passes;
}

// Rows in whole numbers, and what one is worth in each row. In each pass a pair of inputs of all rows lies side by side:
// [pairs, rows, 2].
struct Rounded {
  std::vector<int16_t> values;
  std::vector<float> step;
};

std::shared_ptr<const Rounded> Round(ffi::ThreadPool& pool, const float* x, int64_t rows, int64_t inputs,
                                     const Passes& passes) {
  const int64_t pairs = (inputs + 1) / 2;
  const auto rounded = std::make_shared<Rounded>();
  rounded->values.resize(rows * pairs * 2);
  rounded->step.resize(rows);
  const auto round = [=](int64_t index) {
    const Pass pass = (*passes)[index];
    std::vector<int16_t> numbers(pairs * 2);
    for (int64_t r = 0; r < pass.rows; ++r) {
      rounded->step[pass.first + r] = RoundRow(x + (pass.first + r) * inputs, inputs, numbers.data());
      int16_t* to = rounded->values.data() + (pass.first * pairs + r) * 2;
      for (int64_t i = 0; i < pairs; ++i) std::memcpy(to + i * pass.rows * 2, &numbers[i * 2], 2 * sizeof(int16_t));
    }
  };
  ForRows(pool, rows, inputs, kMostRows, round);  // by passes, whose rows share lines of the cache
  return rounded;
}

// Some panels of int8 for the rows of a pass.
template <int kRows, int kPanels>
void Int8Panels(const int16_t* x, const float* step, int64_t pairs, const int8_t* weights, const Kernel& kernel, int64_t row,
                int64_t output) {
  Ints sums[kPanels][kRows][kParts] = {};
  for (int64_t i = 0; i < pairs; ++i) {
    Pairs w[kPanels][kParts];
    for (int panel = 0; panel < kPanels; ++panel) {
      const int8_t* from = weights + (panel * pairs + i) * kPanel * 2;
      Prefetch(from);
      for (int part = 0; part < kParts; ++part) w[panel][part] = WidenedPairs(from + part * kRegisterLanes * 2);
    }
    for (int r = 0; r < kRows; ++r) {
      for (int panel = 0; panel < kPanels; ++panel) {
        for (int part = 0; part < kParts; ++part) {
          sums[panel][r][part] = Added(sums[panel][r][part], x + (i * kRows + r) * 2, w[panel][part]);
        }
      }
    }
  }
  for (int panel = 0; panel < kPanels; ++panel) {
    const int64_t first = output + panel * kPanel;
    const Lanes scale = Load(kernel.scale + first, kernel.outputs - first);
    for (int r = 0; r < kRows; ++r) {
      Floats floats[kParts];
      for (int part = 0; part < kParts; ++part) floats[part] = __builtin_convertvector(sums[panel][r][part], Floats);
      kernel.Write(Joined(floats), step[r] * scale, row + r, first);
    }
  }
}

template <int kNumber>
using Number = std::integral_constant<int, kNumber>;

// Calls `multiply(rows)` with a number of rows known to the compiler.
template <int kRows = kMostRows, typename Function>
void WithRows(int64_t rows, const Function& multiply) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return WithRows<kRows - 1>(rows, multiply);
  }
  multiply(Number<kRows>());
}

// Calls `multiply(rows, panels, first row, kernel, first panel)` for all panels of all kernels and all passes, by all
// threads; how many rows and panels is known to the compiler.
template <typename Function>
void ForPanels(ffi::ThreadPool& pool, const Kernels& kernels, const Passes& passes, int64_t row_bytes, int64_t panel_bytes,
               const Function& multiply) {
  const int64_t count = passes->size(), block = std::max<int64_t>(1, kBlockBytes / (row_bytes * kMostRows));
  const int64_t blocks = (count + block - 1) / block, least_bytes = panel_bytes * std::min(block, count) * kMostPanels;
  const int64_t each = std::max<int64_t>(1, kTaskBytes / least_bytes) * kMostPanels;
  int64_t tasks = 0;  // of a block
  for (const Kernel& kernel : *kernels) tasks += (kernel.panels + each - 1) / each;
  const auto all_passes = [=](auto panels, const Kernel& kernel, int64_t panel, int64_t first) {
    for (int64_t index = first; index < std::min(count, first + block); ++index) {
      const Pass pass = (*passes)[index];
      WithRows(pass.rows, [&](auto rows) { multiply(rows, panels, pass.first, kernel, panel); });
    }
  };
  ForTasks(pool, blocks * tasks, [=](int64_t task) {
    const int64_t first = task / tasks * block;
    int64_t index = task % tasks;
    for (const Kernel& kernel : *kernels) {
      const int64_t own = (kernel.panels + each - 1) / each;
      if (index < own) {
        int64_t panel = index * each;
        const int64_t end = std::min(kernel.panels, panel + each);
        for (; panel + kMostPanels <= end; panel += kMostPanels) all_passes(Number<kMostPanels>(), kernel, panel, first);
        for (; panel < end; ++panel) all_passes(Number<1>(), kernel, panel, first);
        return;
      }
      index -= own;
    }
  });
}

template <typename Weight>
void Product(ffi::ThreadPool& pool, const float* x, int64_t rows, int64_t inputs, const Kernels& kernels) {
  const int64_t panel_size = inputs * kPanel;
  const auto multiply = [=](auto now, auto panels, int64_t row, const Kernel& kernel, int64_t panel) {
    const Weight* weights = (const Weight*)kernel.weights + panel * panel_size;
    Panels<now(), panels()>(x + row * inputs, inputs, weights, kernel, row, panel * kPanel);
  };
  ForPanels(pool, kernels, PassesOf(rows), inputs * sizeof(float), panel_size * sizeof(Weight), multiply);
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
  const Passes passes = PassesOf(rows);
  // a thread that begins late, when all is done, still holds it
  const auto rounded = Round(pool, x.typed_data(), rows, x.dimensions()[1], passes);
  const auto multiply = [=](auto now, auto panels, int64_t row, const Kernel& kernel, int64_t panel) {
    const int16_t* values = rounded->values.data() + row * pairs * 2;
    const int8_t* weights = (const int8_t*)kernel.weights + panel * panel_size;
    Int8Panels<now(), panels()>(values, rounded->step.data() + row, pairs, weights, kernel, row, panel * kPanel);
  };
  ForPanels(pool, *kernels, passes, pairs * 2 * sizeof(int16_t), panel_size, multiply);
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
