// y = x W by tiles, for float32 rows x, with W in int8 with a scale for each output, or in bfloat16.
//
// Each number of x is the sum of two numbers of W's type. For int8 a row is rounded to whole numbers of 16 bits as in
// panel_product.cc, and n = 256 high + low: both sums are exact, so y has the same bits as there. For bfloat16, low is
// what high lacks, so that x has 16 bits. The sums of high and of low are apart until the end, and a row's order of
// additions is that of the inputs: a row of y depends on its row of x alone.
//
// W lies in pairs of panels of 16 outputs, [pairs, tiles of depth, 2, 16, 64 bytes]; a row of a tile has, for each of
// 16 outputs, 4 inputs of int8 or 2 of bfloat16. A pair is read straight on. `panels.to_tiles` makes it of panels.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include "outputs.h"
#include "rounding.h"
#include "threads.h"
#include "tiles.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace nemojax {
namespace {

constexpr int kOutputs = 32, kPanelOutputs = 16;  // of a pair of panels, and of each
constexpr int kTileSize = kTileRows * kTileBytes, kSums = 4;  // high and low of two panels
constexpr int64_t kAhead = 1 << 12, kLine = 64;  // bytes
constexpr int64_t kTaskBytes = 1 << 16;  // of weights; less is not worth a thread
constexpr int64_t kFewBlocks = 2;  // of rows. For more, weights are read again and again:
constexpr int64_t kPieceTiles = 8, kPieceTask = 8;  // pieces of this depth stay in the first cache; pairs in a task
constexpr int64_t kGroupBlocks = 24;  // whose sums stay in the second cache

// Memory that a call holds until its last thread is done. Later calls use it again, for new pages take longer to get
// than to fill.
std::shared_ptr<char> Borrow(int64_t bytes) {
  struct Block {
    char* data;
    int64_t bytes;
  };
  static std::mutex& mutex = *new std::mutex;  // threads may outlive static objects
  static std::vector<Block>& unused = *new std::vector<Block>;
  Block block{nullptr, 0};
  {
    std::lock_guard<std::mutex> lock(mutex);
    if (!unused.empty()) {
      block = unused.back();
      unused.pop_back();
    }
  }
  if (block.bytes < bytes) {
    std::free(block.data);
    const int64_t whole = (bytes + kLine - 1) / kLine * kLine;
    block = {(char*)std::aligned_alloc(kLine, whole), whole};
  }
  return std::shared_ptr<char>(block.data, [block](char*) {
    std::lock_guard<std::mutex> lock(mutex);
    unused.push_back(block);
  });
}

// A thread's own memory, which it keeps.
template <typename Value>
Value* Own(int64_t count) {
  static thread_local std::unique_ptr<char, decltype(&std::free)> data(nullptr, &std::free);
  static thread_local int64_t size = 0;
  if (size < count) {
    data.reset((char*)std::aligned_alloc(kLine, (count * sizeof(Value) + kLine - 1) / kLine * kLine));
    size = count;
  }
  return (Value*)data.get();
}

// Rows of x as tiles: blocks of at most 16 rows, [blocks, tiles of depth, high and low, rows, 64 bytes].
struct Rows {
  int64_t rows, inputs, tiles;
  int64_t blocks = (rows + kTileRows - 1) / kTileRows, each = (rows + blocks - 1) / blocks;  // 17 are 9 and 8
  bool together = 2 * each <= kTileRows;  // high and low are rows of one tile
  int64_t tile_bytes = each * kTileBytes, depth_bytes = 2 * tile_bytes, block_bytes = tiles * depth_bytes;
};

struct Int8 {
  static constexpr int kDepth = 64;  // inputs of a tile
  typedef int32_t Sum;

  // Writes a row; `to` is its place in the first tile. Returns what one is worth in it.
  static float Write(const Rows& all, const float* x, char* to) {
    const int64_t padded = all.tiles * kDepth;
    int16_t* numbers = Own<int16_t>(padded);
    const float step = RoundRow(x, all.inputs, numbers);
    std::fill(numbers + all.inputs, numbers + padded, int16_t{0});
    for (int64_t tile = 0; tile < all.tiles; ++tile, numbers += kDepth, to += all.depth_bytes) {
      int8_t* high = (int8_t*)to;
      int8_t* low = (int8_t*)to + all.tile_bytes;
      for (int i = 0; i < kDepth; ++i) high[i] = int16_t(numbers[i] + 128) >> 8;
      for (int i = 0; i < kDepth; ++i) low[i] = int8_t(numbers[i]);
    }
    return step;
  }

  template <typename Tiles, int sums, int x, int weights>
  static void Multiply() {
    Tiles::template MultiplyInt8<sums, x, weights>();
  }

  static Lanes Sums(const int32_t* high, const int32_t* low) {
    typedef uint32_t Unsigned __attribute__((vector_size(sizeof(Lanes))));
    Unsigned parts[2];
    std::memcpy(&parts[0], high, sizeof(Lanes));
    std::memcpy(&parts[1], low, sizeof(Lanes));
    return __builtin_convertvector((IntLanes)(parts[0] * 256 + parts[1]), Lanes);  // a sum fits, so it wraps to itself
  }

  static Lanes Factor(float step, Lanes scale) { return step * scale; }
};

struct BFloat16 {
  static constexpr int kDepth = 32;
  typedef float Sum;

  static float Write(const Rows& all, const float* x, char* to) {
    for (int64_t tile = 0; tile < all.tiles; ++tile, to += all.depth_bytes) {
      const int64_t first = tile * kDepth, count = std::min<int64_t>(kDepth, all.inputs - first);
      uint16_t high[kDepth] = {}, low[kDepth] = {};
      for (int64_t i = 0; i < count; ++i) {
        high[i] = Rounded(x[first + i]);
        const float rest = x[first + i] - Widened(high[i]);
        low[i] = std::isfinite(rest) ? Rounded(rest) : 0;  // infinity has no rest
      }
      std::memcpy(to, high, sizeof(high));
      std::memcpy(to + all.tile_bytes, low, sizeof(low));
    }
    return 1;
  }

  static uint16_t Rounded(float number) {
    uint32_t bits;
    std::memcpy(&bits, &number, sizeof(bits));
    if (number != number) return bits >> 16 | 0x40;  // so that it stays a NaN
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;  // to the nearest, to even of two
  }

  static float Widened(uint16_t upper) {
    const uint32_t bits = uint32_t{upper} << 16;
    float number;
    std::memcpy(&number, &bits, sizeof(number));
    return number;
  }

  template <typename Tiles, int sums, int x, int weights>
  static void Multiply() {
    Tiles::template MultiplyBFloat16<sums, x, weights>();
  }

  static Lanes Sums(const float* high, const float* low) { return Load(high) + Load(low); }

  static Lanes Factor(float, Lanes) { return All(1.0f); }
};

// Adds the products of a block of rows with a pair of panels, over some tiles of depth, to `sums`; to zero at first.
template <typename Tiles, typename Kind, bool together>
void MultiplyPair(const Rows& all, const char* x, const char* weights, int64_t tiles, bool ahead, bool first,
                  char* sums) {
  if (first) {
    Tiles::template Zero<0>(), Tiles::template Zero<1>();
    if (!together) Tiles::template Zero<2>(), Tiles::template Zero<3>();
  } else {
    Tiles::template Load<0>(sums), Tiles::template Load<1>(sums + kTileSize);
    if (!together) Tiles::template Load<2>(sums + 2 * kTileSize), Tiles::template Load<3>(sums + 3 * kTileSize);
  }
  for (int64_t tile = 0; tile < tiles; ++tile, x += all.depth_bytes, weights += 2 * kTileSize) {
    if (ahead) {
      for (int64_t byte = 0; byte < 2 * kTileSize; byte += kLine) __builtin_prefetch(weights + kAhead + byte);
    }
    Tiles::template Load<6>(weights), Tiles::template Load<7>(weights + kTileSize);
    Tiles::template Load<4>(x);
    Kind::template Multiply<Tiles, 0, 4, 6>(), Kind::template Multiply<Tiles, 1, 4, 7>();
    if (!together) {
      Tiles::template Load<5>(x + all.tile_bytes);
      Kind::template Multiply<Tiles, 2, 5, 6>(), Kind::template Multiply<Tiles, 3, 5, 7>();
    }
  }
  Tiles::template Store<0>(sums), Tiles::template Store<1>(sums + kTileSize);
  if (!together) Tiles::template Store<2>(sums + 2 * kTileSize), Tiles::template Store<3>(sums + 3 * kTileSize);
}

// Blocks of rows, of which a thread keeps the sums.
struct Group {
  int64_t first, stop;
};

// A thread's tiles while it has tasks. The pool's threads may use tiles for something else, and those that hold some
// are slow to switch.
template <typename Tiles>
struct Configured {
  explicit Configured(int rows) { Tiles::Configure(rows); }
  ~Configured() { Tiles::Release(); }
  Configured(const Configured&) = delete;
};

// Rows that are written as tiles, and what one is worth in each of them.
struct Written {
  Rows all;
  std::shared_ptr<char> packed;
  std::shared_ptr<std::vector<float>> steps;
};

template <typename Kind>
Written WriteRows(ffi::ThreadPool& pool, const float* x, const Rows& all) {
  const auto packed = Borrow(all.blocks * all.block_bytes);
  const auto steps = std::make_shared<std::vector<float>>(all.rows);
  const auto write = [=](int64_t block) {
    char* to = packed.get() + block * all.block_bytes;
    const int64_t first = block * all.each, count = std::min(all.each, all.rows - first);
    for (int64_t row = 0; row < count; ++row) {
      (*steps)[first + row] = Kind::Write(all, x + (first + row) * all.inputs, to + row * kTileBytes);
    }
    for (int64_t tile = 0; tile < 2 * all.tiles; ++tile) {  // of high and of low
      std::memset(to + tile * all.tile_bytes + count * kTileBytes, 0, (all.each - count) * kTileBytes);
    }
  };
  ForRows(pool, all.rows, all.inputs, all.each, write);
  return {all, packed, steps};
}

template <typename Tiles, typename Kind>
void Product(ffi::ThreadPool& pool, const Written& written, const Kernels& kernels) {
  const Rows all = written.all;
  const auto packed = written.packed;
  const auto steps = written.steps;
  const int64_t tiles = all.tiles, pair_bytes = tiles * 2 * kTileSize;

  const auto finish = [=](const Kernel& kernel, const typename Kind::Sum* sums, int64_t block, int64_t pair) {
    const int64_t low = all.together ? all.each * kPanelOutputs : 2 * kTileSize / sizeof(*sums);  // from high
    for (int panel = 0; panel < 2; ++panel) {
      const int64_t first = pair * kOutputs + panel * kPanelOutputs;
      if (first >= kernel.outputs) break;
      const Lanes scale = kernel.scale ? Load(kernel.scale + first, kernel.outputs - first) : Lanes{};
      const auto* high = sums + panel * kTileSize / sizeof(*sums);
      const int64_t stop = std::min(all.rows, (block + 1) * all.each);
      for (int64_t row = block * all.each; row < stop; ++row, high += kPanelOutputs) {
        kernel.Write(Kind::Sums(high, high + low), Kind::Factor((*steps)[row], scale), row, first);
      }
    }
  };

  const bool few = all.blocks <= kFewBlocks;
  const int64_t piece = few ? tiles : kPieceTiles;
  const auto pairs_each = [=](int64_t pairs) {
    return std::max<int64_t>(1, few ? kTaskBytes / pair_bytes : std::min(kPieceTask, pairs / 4));
  };
  // Adds a piece of depth of one pair for all blocks of a group, and finishes them after the last piece.
  const auto add = [=](const Kernel& kernel, const Group& group, int64_t pair, int64_t tile, const char* next, char* sums) {
    const int64_t now = std::min(piece, tiles - tile), lines = few ? 0 : now * 2 * kTileSize / kLine;
    const char* start = (const char*)kernel.weights + pair * pair_bytes + tile * 2 * kTileSize;
    for (int64_t block = group.first; block < group.stop; ++block, sums += kSums * kTileSize) {
      const int64_t done = block - group.first, count = group.stop - group.first;
      for (int64_t line = done * lines / count; line < (done + 1) * lines / count; ++line) {
        __builtin_prefetch(next + line * kLine, 0, 2);  // into the second cache
      }
      const char* rows = packed.get() + block * all.block_bytes + tile * all.depth_bytes;
      (all.together ? MultiplyPair<Tiles, Kind, true> : MultiplyPair<Tiles, Kind, false>)(
          all, rows, start, now, few && block == 0, tile == 0, sums);
      if (tile + now == tiles) finish(kernel, (const typename Kind::Sum*)sums, block, pair);
    }
  };
  const auto multiply = [=](const Kernel& kernel, int64_t index) {
    const int64_t pairs = kernel.panels, each = pairs_each(pairs);
    const char* weights = (const char*)kernel.weights;
    const int64_t first = index * each, stop = std::min(pairs, first + each);
    for (Group group{0, 0}; group.stop < all.blocks;) {
      group = {group.stop, std::min(all.blocks, group.stop + kGroupBlocks)};
      const int64_t pair_sums = (group.stop - group.first) * kSums * kTileSize;
      char* sums = Own<char>((stop - first) * pair_sums);
      for (int64_t tile = 0; tile < tiles; tile += piece) {
        for (int64_t pair = first; pair < stop; ++pair) {
          const bool next_piece = pair + 1 == stop && tile + piece < tiles;
          const char* next = weights + (next_piece ? first * pair_bytes + (tile + piece) * 2 * kTileSize
                                                   : (pair + 1) * pair_bytes + tile * 2 * kTileSize);
          add(kernel, group, pair, tile, next, sums + (pair - first) * pair_sums);
        }
      }
    }
  };
  const auto tasks_of = [=](const Kernel& kernel) {
    return (kernel.panels + pairs_each(kernel.panels) - 1) / pairs_each(kernel.panels);
  };
  int64_t tasks = 0;
  for (const Kernel& kernel : *kernels) tasks += tasks_of(kernel);
  const auto task = [=](int64_t index) {
    for (const Kernel& kernel : *kernels) {
      if (index < tasks_of(kernel)) return multiply(kernel, index);
      index -= tasks_of(kernel);
    }
  };
  const int tile_rows = all.together ? 2 * all.each : all.each;
  ForTasks(pool, tasks, task, [=] { return Configured<Tiles>(tile_rows); });
}

template <typename Tiles, typename Kind>
ffi::Error TileProduct(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::RemainingArgs arguments,
                       ffi::RemainingRets results, int64_t activation) {
  const auto kernels = ReadKernels(arguments, results, activation);
  if (!kernels) return kernels.error();
  const Rows all{x.dimensions()[0], x.dimensions()[1], (*kernels)->front().depth};
  Product<Tiles, Kind>(pool, WriteRows<Kind>(pool, x.typed_data(), all), *kernels);
  return ffi::Error::Success();
}

}  // namespace
}  // namespace nemojax

// Lays panels out in tiles; `panels.to_tiles` does the same in JAX. In both, 16 outputs lie side by side, as 32 bytes in
// a panel, of 2 inputs in int8 or of one in bfloat16, and as 64 bytes in a tile, of twice as many.
extern "C" void nemojax_lay_out_tiles(const uint16_t* panels, int64_t count, int64_t rows, uint16_t* tiles) {
  using nemojax::kPanelOutputs;
  using nemojax::kTileRows;
  typedef uint16_t Row[kPanelOutputs];
  const int64_t depth = (rows + 2 * kTileRows - 1) / (2 * kTileRows);  // of whole tiles
  for (int64_t panel = 0; panel < (count + 1) / 2 * 2; ++panel) {
    const Row* from = (const Row*)panels + panel * rows;
    for (int64_t row = 0; row < depth * kTileRows; ++row, from += 2) {
      const int64_t tile = (panel / 2 * depth + row / kTileRows) * 2 + panel % 2;
      uint16_t* to = tiles + (tile * kTileRows + row % kTileRows) * 2 * kPanelOutputs;
      Row last[2] = {};  // of a panel, with zeros past its end
      const int64_t left = panel < count ? rows - 2 * row : 0;
      if (left == 1) std::memcpy(last[0], from[0], sizeof(Row));
      const Row* pair = left > 1 ? from : last;
      for (int output = 0; output < kPanelOutputs; ++output) {
        to[2 * output] = pair[0][output];
        to[2 * output + 1] = pair[1][output];
      }
    }
  }
}

extern "C" int nemojax_request_tiles() { return nemojax::RequestTiles(); }

#define DEFINE_TILE_PRODUCTS(INT8_NAME, BFLOAT16_NAME, TILES)                          \
  NEMOJAX_DEFINE_PRODUCT(INT8_NAME, (nemojax::TileProduct<nemojax::TILES, nemojax::Int8>)); \
  NEMOJAX_DEFINE_PRODUCT(BFLOAT16_NAME, (nemojax::TileProduct<nemojax::TILES, nemojax::BFloat16>))

DEFINE_TILE_PRODUCTS(nemojax_int8_tile_product, nemojax_tile_product, AmxTiles);
DEFINE_TILE_PRODUCTS(nemojax_int8_emulated_tile_product, nemojax_emulated_tile_product, EmulatedTiles);
