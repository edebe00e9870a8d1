// Attention with relative positions to new frames and to those in rings, whose sums are in an order that no shape changes.
//
// A score is a sum as `lanes.h` has it, over the width of a head; values are added in the order of their keys. Keys count
// from the first one that a query attends to; others are not read. So a query gets the same bits in any company.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <vector>

#include "lanes.h"
#include "threads.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace nemojax {
namespace {

constexpr int kQueries = 4;  // computed together, in registers

// Numbers past the end of a vector are zeros, unless its width is a multiple of 16.
template <bool kWhole>
inline Lanes LoadPart(const float* from, int64_t count) {
  return kWhole ? Load(from) : Load(from, std::max<int64_t>(0, count));
}

// Calls `function` for each whole number below kCount, which the compiler knows: what is found by it stays in registers.
template <int kCount, typename Function>
__attribute__((always_inline)) inline void Unrolled(const Function& function) {
  if constexpr (kCount > 0) {
    Unrolled<kCount - 1>(function);
    function(std::integral_constant<int, kCount - 1>());
  }
}

// What the queries of one chunk and head attend to.
struct Window {
  const float* const* keys;
  const float* const* values;
  int64_t count, width;

  int64_t padded() const { return (count + kLanes - 1) / kLanes * kLanes; }
};

// The positions of one head, `stride` numbers apart. A query's next key has the next one.
struct Positions {
  const float* data;
  int64_t stride, last;
};

// Computes the scores of some queries, [kCount, padded keys]. A query has two forms, with the bias of contents and with
// that of positions, [2, width]. The first query's first key has position `first_position`, the next query's the one before.
template <int kCount, bool kWhole>
void Scores(const float* queries, const Positions& positions, int64_t first_position, const Window& window, float scale,
            float* scores) {
  constexpr int kKeys = kLanes / kCount, kDistances = kKeys + kCount - 1;  // 16 sums stay in registers
  const int64_t width = window.width;
  for (int64_t first = 0; first < window.count; first += kKeys) {
    // an index past the end is the last one again: that result is not kept
    const float *key[kKeys], *distance[kDistances];
    for (int j = 0; j < kKeys; ++j) key[j] = window.keys[std::min(first + j, window.count - 1)];
    for (int d = 0; d < kDistances; ++d) {
      distance[d] = positions.data + std::min(first_position + first + d - (kCount - 1), positions.last) * positions.stride;
    }
    Lanes sums[kLanes] = {};
    for (int64_t k = 0; k < width; k += kLanes) {
      Lanes one[kKeys];
      Unrolled<kKeys>([&](auto j) { one[j()] = LoadPart<kWhole>(key[j()] + k, width - k); });
      Unrolled<kCount>([&](auto q) {
        const Lanes content = LoadPart<kWhole>(queries + 2 * q() * width + k, width - k);
        Unrolled<kKeys>([&](auto j) {
          constexpr int i = q() * kKeys + j();
          sums[i] = MultiplyAdd(content, one[j()], sums[i]);
        });
      });
    }
    for (int64_t k = 0; k < width; k += kLanes) {
      Lanes one[kDistances];
      Unrolled<kDistances>([&](auto d) { one[d()] = LoadPart<kWhole>(distance[d()] + k, width - k); });
      Unrolled<kCount>([&](auto q) {
        const Lanes position = LoadPart<kWhole>(queries + (2 * q() + 1) * width + k, width - k);
        Unrolled<kKeys>([&](auto j) {
          constexpr int i = q() * kKeys + j(), d = j() + kCount - 1 - q();
          sums[i] = MultiplyAdd(position, one[d], sums[i]);
        });
      });
    }
    Lanes copy[kLanes];  // `Sums` works in memory; the sums themselves stay in registers
    Unrolled<kLanes>([&](auto i) { copy[i()] = sums[i()]; });
    float all[kLanes];
    Store(Sums(copy) * scale, all);
    const int64_t keys = std::min<int64_t>(kKeys, window.count - first);
    for (int q = 0; q < kCount; ++q) std::copy_n(all + q * kKeys, keys, scores + q * window.padded() + first);
  }
}

// Turns the scores of a query into weights, whose sum is 1.
void Softmax(float* scores, int64_t count) {
  const float largest = Largest(scores, count);
  const auto exponential = [&](Lanes sums, int64_t i) {
    const Lanes y = First(Exp(Load(scores + i, count - i) - largest), count - i);
    Store(y, scores + i);
    return sums + y;
  };
  const float sum = SumOf(count, exponential);
  for (int64_t i = 0; i < count; i += kLanes) Store(Load(scores + i) / sum, scores + i);
}

// Adds up the values of some queries by their weights, [kCount, padded keys], in the order of the keys.
template <int kCount, bool kWhole>
void WeightedSums(const float* weights, const Window& window, float* y, int64_t stride) {
  constexpr int kColumns = kCount <= 2 ? 8 : 4;  // vectors whose sums stay in registers
  const int64_t width = window.width;
  for (int64_t k = 0; k < width; k += kColumns * kLanes) {
    const int64_t columns = std::min<int64_t>(kColumns, (width - k + kLanes - 1) / kLanes);
    const auto add = [&](auto whole) {
      Lanes sums[kCount][kColumns] = {};
      for (int64_t key = 0; key < window.count; ++key) {
        const float* value = window.values[key] + k;
        Lanes column[kColumns];
        for (int part = 0; part < kColumns; ++part) {
          column[part] = LoadPart<whole()>(value + part * kLanes, width - k - part * kLanes);
        }
        for (int q = 0; q < kCount; ++q) {
          const Lanes weight = All(weights[q * window.padded() + key]);
          for (int part = 0; part < kColumns; ++part) sums[q][part] = MultiplyAdd(weight, column[part], sums[q][part]);
        }
      }
      for (int q = 0; q < kCount; ++q) {
        for (int part = 0; part < columns; ++part) {
          Store(sums[q][part], y + q * stride + k + part * kLanes, width - k - part * kLanes);
        }
      }
    };
    if (kWhole && columns == kColumns) {
      add(std::true_type());
    } else {
      add(std::false_type());
    }
  }
}

// New keys or values, [B, T, H, K], and the ring of earlier ones, [B, H, S, K], where frame f lies in slot f mod S.
struct Frames {
  const float* data;
  float* ring;
  int64_t frames, heads, slots, width;

  const float* New(int64_t row, int64_t place, int64_t head) const {
    return data + ((row * frames + place) * heads + head) * width;
  }
  float* Kept(int64_t row, int64_t frame, int64_t head) const {
    return ring + ((row * heads + head) * slots + frame % slots) * width;
  }
  const float* Of(int64_t row, int64_t frame, int64_t begin, int64_t head) const {
    return frame < begin ? Kept(row, frame, head) : New(row, frame - begin, head);
  }

  // Writes the newest of the valid new frames of a row and head to the ring.
  void Keep(int64_t row, int64_t head, int64_t begin, int64_t end) const {
    for (int64_t frame = std::max(begin, end - slots); frame < end; ++frame) {
      std::copy_n(New(row, frame - begin, head), width, Kept(row, frame, head));
    }
  }
};

// Returns the same numbers with zeros in place of those that are not finite: a copy, which `memory` holds, if there are such.
const float* Finite(ffi::ThreadPool& pool, const float* data, int64_t count, std::shared_ptr<std::vector<float>>& memory) {
  const auto finite = std::make_shared<std::atomic<bool>>(true);
  const int64_t blocks = (count + kTaskValues - 1) / kTaskValues;
  ForTasks(pool, blocks, [=](int64_t block) {
    IntLanes bad = {};
    const int64_t stop = std::min(count, (block + 1) * kTaskValues);
    for (int64_t i = block * kTaskValues; i < stop; i += kLanes) {
      bad |= ((IntLanes)Load(data + i, stop - i) & 0x7fffffff) >= 0x7f800000;
    }
    for (int lane = 0; lane < kLanes; ++lane) {
      if (bad[lane]) finite->store(false);
    }
  });
  if (finite->load()) return data;
  memory = std::make_shared<std::vector<float>>(count);
  for (int64_t i = 0; i < count; i += kLanes) {
    Store(FiniteOrZero(Load(data + i, count - i)), memory->data() + i, count - i);
  }
  return memory->data();
}

// Attention of a segment of T frames in chunks of `chunk` to itself and the frames in rings; query, keys, values and y are
// [B, T, H, K]. Valid new keys and values are written to the rings, and count as zero where they are not finite.
//
// The segment begins at frame `begin`, and frames before `end` are valid. A query attends to its chunk and to `left` frames
// before that. Positions are [R, H, K], furthest first; distance 0 is number (R + left - 1) / 2.
ffi::Error Attention(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> query, ffi::Buffer<ffi::F32> content_bias,
                     ffi::Buffer<ffi::F32> position_bias, ffi::Buffer<ffi::F32> keys, ffi::Buffer<ffi::F32> values,
                     ffi::Buffer<ffi::F32> positions, ffi::Buffer<ffi::S32> begin, ffi::Buffer<ffi::S32> end,
                     ffi::Buffer<ffi::F32>, ffi::Buffer<ffi::F32>, ffi::ResultBuffer<ffi::F32> y,
                     ffi::ResultBuffer<ffi::F32> key_ring, ffi::ResultBuffer<ffi::F32> value_ring, int64_t left,
                     int64_t chunk, float scale) {
  const int64_t frames = query.dimensions()[1], heads = query.dimensions()[2], width = query.dimensions()[3];
  const int64_t batch = query.dimensions()[0], slots = key_ring->dimensions()[2], stride = heads * width;
  const int64_t chunks = (frames + chunk - 1) / chunk, distances = positions.dimensions()[0];
  const int64_t nearest = (distances + left - 1) / 2;
  const float *query_data = query.typed_data(), *positions_data = positions.typed_data();
  const float *content = content_bias.typed_data(), *place_bias = position_bias.typed_data();
  const int32_t *begin_data = begin.typed_data(), *end_data = end.typed_data();
  float* y_data = y->typed_data();
  std::shared_ptr<std::vector<float>> memory[2];
  const auto of = [&](const ffi::Buffer<ffi::F32>& given, float* ring, std::shared_ptr<std::vector<float>>& held) {
    return Frames{Finite(pool, given.typed_data(), given.element_count(), held), ring, frames, heads, slots, width};
  };
  const Frames all_keys = of(keys, key_ring->typed_data(), memory[0]);
  const Frames all_values = of(values, value_ring->typed_data(), memory[1]);

  const auto attend = [=](int64_t unit) {
    const int64_t row = unit / (heads * chunks), head = unit / chunks % heads, place = unit % chunks * chunk;
    const int64_t start = begin_data[row] + place, count = std::min(chunk, frames - place);
    const int64_t first = std::max<int64_t>(0, start - left), stop = std::min<int64_t>(end_data[row], start + chunk);
    const int64_t at = ((row * frames + place) * heads + head) * width;
    if (stop <= first) {
      for (int64_t q = 0; q < count; ++q) std::fill_n(y_data + at + q * stride, width, 0.0f);
      return;
    }
    static thread_local std::vector<Lanes> memory;  // aligned
    static thread_local std::vector<const float*> pointers;
    pointers.resize(2 * (stop - first));
    const float **key = pointers.data(), **value = key + (stop - first);
    for (int64_t frame = first; frame < stop; ++frame) {
      key[frame - first] = all_keys.Of(row, frame, begin_data[row], head);
      value[frame - first] = all_values.Of(row, frame, begin_data[row], head);
    }
    const Window window{key, value, stop - first, width};
    const Positions own{positions_data + head * width, stride, distances - 1};
    memory.resize(kQueries * (2 * width + window.padded()) / kLanes + 1);
    float *scores = (float*)memory.data(), *queries = scores + kQueries * window.padded();
    const auto attend_few = [&](auto now, auto whole, int64_t q) {
      for (int64_t i = 0; i < now(); ++i) {
        const float* from = query_data + at + (q + i) * stride;
        float* to = queries + 2 * i * width;
        for (int64_t k = 0; k < width; ++k) to[k] = from[k] + content[head * width + k];
        for (int64_t k = 0; k < width; ++k) to[width + k] = from[k] + place_bias[head * width + k];
      }
      Scores<now(), whole()>(queries, own, nearest - (start + q - first), window, scale, scores);
      for (int64_t i = 0; i < now(); ++i) Softmax(scores + i * window.padded(), window.count);
      WeightedSums<now(), whole()>(scores, window, y_data + at + q * stride, stride);
    };
    const auto attend_all = [&](auto whole) {
      for (int64_t q = 0; q < count; q += kQueries) {
        switch (count - q) {
          case 1: attend_few(std::integral_constant<int, 1>(), whole, q); break;
          case 2: attend_few(std::integral_constant<int, 2>(), whole, q); break;
          case 3: attend_few(std::integral_constant<int, 3>(), whole, q); break;
          default: attend_few(std::integral_constant<int, kQueries>(), whole, q); break;
        }
      }
    };
    if (width % kLanes) {
      attend_all(std::false_type());
    } else {
      attend_all(std::true_type());
    }
  };
  ForUnits(pool, batch * heads * chunks, (left + chunk) * width * 2, attend);
  ForUnits(pool, batch * heads, frames * width * 2, [=](int64_t unit) {
    const int64_t row = unit / heads, head = unit % heads;
    for (const Frames& one : {all_keys, all_values}) one.Keep(row, head, begin_data[row], end_data[row]);
  });
  return ffi::Error::Success();
}

}  // namespace
}  // namespace nemojax

XLA_FFI_DEFINE_HANDLER_SYMBOL(nemojax_fixed_attention, nemojax::Attention,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()  // rings, in whose memory the results are
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Attr<int64_t>("left")
                                  .Attr<int64_t>("chunk")
                                  .Attr<float>("scale"));
