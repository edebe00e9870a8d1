// Attention, layer norm and log-sum-exp whose sums are in an order that no shape changes: a frame gets the same bits
// alone and in any company, whatever the rows, the segment and the slot of a key.
//
// A sum of numbers that lie together is that of 16 lanes, lane i taking numbers i, i + 16 and so on, which are added in
// one order at the end. Keys count from the first one that a query attends to; others are not read. Multiplications that
// feed an addition are one operation, by `MultiplyAdd`, so every processor gives the same. `nemojax/kernels/fixed_order.py`
// has the layers.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "threads.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace nemojax {
namespace {

constexpr int64_t kLanes = 16;
constexpr int64_t kTaskValues = 1 << 14;  // read or written; fewer are not worth a thread
constexpr int kQueries = 4, kKeys = 4, kColumns = 4;  // computed together, in registers

typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float))));
typedef int32_t IntLanes __attribute__((vector_size(kLanes * sizeof(int32_t))));

inline Lanes All(float value) { return value - Lanes{}; }

// Returns x * y + sum, rounded once.
inline Lanes MultiplyAdd(Lanes x, Lanes y, Lanes sum) {
#if defined(__AVX512F__)
  return (Lanes)_mm512_fmadd_ps((__m512)x, (__m512)y, (__m512)sum);
#elif defined(__AVX2__) && defined(__FMA__)
  __m256 parts[3][2];
  std::memcpy(parts[0], &x, sizeof(x));
  std::memcpy(parts[1], &y, sizeof(y));
  std::memcpy(parts[2], &sum, sizeof(sum));
  for (int half = 0; half < 2; ++half) parts[2][half] = _mm256_fmadd_ps(parts[0][half], parts[1][half], parts[2][half]);
  std::memcpy(&sum, parts[2], sizeof(sum));
  return sum;
#else
  for (int lane = 0; lane < kLanes; ++lane) sum[lane] = std::fma(x[lane], y[lane], sum[lane]);
  return sum;
#endif
}

// Returns the next 16 numbers, with zeros in place of those past `count`.
inline Lanes Load(const float* from, int64_t count) {
  Lanes lanes = {};
  if (count >= kLanes) {
    std::memcpy(&lanes, from, sizeof(lanes));
    return lanes;
  }
#if defined(__AVX512F__)
  return (Lanes)_mm512_maskz_loadu_ps((1u << count) - 1, from);
#else
  for (int64_t lane = 0; lane < count; ++lane) lanes[lane] = from[lane];
  return lanes;
#endif
}

inline void Store(Lanes lanes, float* to, int64_t count) {
  if (count >= kLanes) {
    std::memcpy(to, &lanes, sizeof(lanes));
  } else {
    for (int64_t lane = 0; lane < count; ++lane) to[lane] = lanes[lane];
  }
}

// Returns the first `count` lanes, and zeros.
inline Lanes First(Lanes lanes, int64_t count) {
  constexpr IntLanes kIndex = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return count >= kLanes ? lanes : (kIndex < (int32_t)count ? lanes : Lanes{});
}

inline float Sum(Lanes lanes) {
  typedef float Eight __attribute__((vector_size(32)));
  typedef float Four __attribute__((vector_size(16)));
  Eight eight[2];
  std::memcpy(eight, &lanes, sizeof(lanes));
  eight[0] += eight[1];
  Four four[2];
  std::memcpy(four, &eight[0], sizeof(four));
  four[0] += four[1];
  return (four[0][0] + four[0][2]) + (four[0][1] + four[0][3]);
}

// Returns the sum of `count` numbers: `add(sums, i)` adds those from i on to 16 lanes. Four chains hide an addition's time.
template <typename Function>
inline float SumOf(int64_t count, const Function& add) {
  Lanes sums[4] = {};
  for (int64_t i = 0; i < count; i += 4 * kLanes) {
    for (int chain = 0; chain < 4; ++chain) {
      if (i + chain * kLanes < count) sums[chain] = add(sums[chain], i + chain * kLanes);
    }
  }
  return Sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// Returns e^x for x of at most 0, within two units in the last place; of less than -87 it is e^-87, 1.6e-38.
inline Lanes Exp(Lanes x) {
  constexpr float kLog2OfE = 1.44269504f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  constexpr float kRounds = 12582912.0f;  // 1.5 * 2^23: a number added to it is rounded to a whole one
  x = x < -87.0f ? All(-87.0f) : x;  // what is not a number stays so
  const Lanes shifted = MultiplyAdd(x, All(kLog2OfE), All(kRounds)), whole = shifted - kRounds;
  const Lanes rest = MultiplyAdd(whole, All(-kLn2Low), MultiplyAdd(whole, All(-kLn2High), x));
  Lanes y = All(1.0f / 5040);  // the series of e^rest, |rest| <= ln(2) / 2
  for (const float factor : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) {
    y = MultiplyAdd(y, rest, All(factor));
  }
  const IntLanes exponent = (IntLanes)shifted - (IntLanes)All(kRounds) + 127;
  return y * (Lanes)(exponent << 23);
}

float Largest(const float* x, int64_t count) {
  float largest = x[0];
  for (int64_t i = 1; i < count; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
}

// Calls `task(unit)` for each unit by all threads, which take as many units at a time as have `kTaskValues` values.
template <typename Function>
void ForUnits(ffi::ThreadPool& pool, int64_t units, int64_t values, const Function& task) {
  const int64_t each = std::max<int64_t>(1, kTaskValues / std::max<int64_t>(1, values));
  ForTasks(pool, (units + each - 1) / each, [=](int64_t index) {
    for (int64_t unit = index * each; unit < std::min(units, (index + 1) * each); ++unit) task(unit);
  });
}

// Layer norm of the rows of x, [R, D].
ffi::Error Norm(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::F32> scale, ffi::Buffer<ffi::F32> bias,
                ffi::ResultBuffer<ffi::F32> y, float epsilon) {
  const int64_t width = x.dimensions()[1];
  const float *x_data = x.typed_data(), *scale_data = scale.typed_data(), *bias_data = bias.typed_data();
  float* y_data = y->typed_data();
  ForUnits(pool, x.dimensions()[0], width, [=](int64_t row) {
    const float* from = x_data + row * width;
    const float mean = SumOf(width, [&](Lanes sums, int64_t i) { return sums + Load(from + i, width - i); }) / width;
    const auto centered = [&](int64_t i) { return First(Load(from + i, width - i) - mean, width - i); };
    const auto square = [&](Lanes sums, int64_t i) { return MultiplyAdd(centered(i), centered(i), sums); };
    const float inverse = 1.0f / std::sqrt(SumOf(width, square) / width + epsilon);
    for (int64_t i = 0; i < width; i += kLanes) {
      const int64_t left = width - i;
      const Lanes normed = centered(i) * inverse;
      Store(MultiplyAdd(normed, Load(scale_data + i, left), Load(bias_data + i, left)), y_data + row * width + i, left);
    }
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

// Where the keys of a stream and head lie, and the values alike: `frames` slots, `stride` numbers apart.
struct Rows {
  const float* data;
  int64_t stride, slots;

  const float* operator[](int64_t frame) const { return data + frame % slots * stride; }
};

// The queries of one chunk, all of which attend to the keys [first, end); frame numbers count as those of the keys do.
struct Window {
  int64_t first, end;

  int64_t keys() const { return std::max<int64_t>(0, end - first); }
  int64_t padded() const { return (keys() + kLanes - 1) / kLanes * kLanes; }
};

// Computes the scores of some queries, [kCount, padded keys]. A query has two forms, with the bias of contents and with
// that of positions, [2, width]. `positions` has the position of the first key for each query; the next ones follow.
template <int kCount>
void Scores(const float* queries, const float* const* positions, int64_t position_stride, const Rows& keys,
            const Window& window, int64_t width, float scale, float* scores) {
  constexpr int kRows = std::min(2, kCount);  // whose sums stay in registers
  for (int64_t first = 0; first < window.keys(); first += kKeys) {
    // an index past the end is the last one again: that result is not kept
    const float* key[kKeys];
    int64_t offset[kKeys];
    for (int j = 0; j < kKeys; ++j) {
      offset[j] = std::min(first + j, window.keys() - 1);
      key[j] = keys[window.first + offset[j]];
    }
    for (int q = 0; q < kCount; q += kRows) {
      const int index[] = {q, std::min(q + 1, kCount - 1)};
      Lanes sums[kRows][kKeys] = {};
      for (int64_t k = 0; k < width; k += kLanes) {
        const int64_t left = width - k;
        Lanes content[kRows], position[kRows];
        for (int row = 0; row < kRows; ++row) {
          const float* query = queries + index[row] * 2 * width + k;
          content[row] = Load(query, left);
          position[row] = Load(query + width, left);
        }
        for (int j = 0; j < kKeys; ++j) {
          const Lanes one = Load(key[j] + k, left);
          for (int row = 0; row < kRows; ++row) {
            const Lanes distance = Load(positions[index[row]] + offset[j] * position_stride + k, left);
            sums[row][j] = MultiplyAdd(position[row], distance, MultiplyAdd(content[row], one, sums[row][j]));
          }
        }
      }
      for (int row = 0; row < kRows; ++row) {
        for (int j = 0; j < kKeys; ++j) scores[index[row] * window.padded() + offset[j]] = Sum(sums[row][j]) * scale;
      }
    }
  }
}

// Turns the scores of a query into weights, whose sum is 1.
void Softmax(float* scores, const Window& window) {
  const float largest = Largest(scores, window.keys());
  const auto exponential = [&](Lanes sums, int64_t i) {
    const Lanes y = First(Exp(Load(scores + i, window.keys() - i) - largest), window.keys() - i);
    std::memcpy(scores + i, &y, sizeof(y));
    return sums + y;
  };
  const float sum = SumOf(window.keys(), exponential);
  for (int64_t i = 0; i < window.padded(); i += kLanes) Store(Load(scores + i, kLanes) / sum, scores + i, kLanes);
}

// Adds up the values of some queries by their weights, [kCount, padded keys], in the order of the keys.
template <int kCount>
void WeightedSums(const float* weights, const Rows& values, const Window& window, int64_t width, float* y, int64_t stride) {
  for (int64_t k = 0; k < width; k += kColumns * kLanes) {
    Lanes sums[kCount][kColumns] = {};
    for (int64_t offset = 0; offset < window.keys(); ++offset) {
      const float* value = values[window.first + offset];
      Lanes column[kColumns];
      for (int part = 0; part < kColumns; ++part) {
        column[part] = Load(value + k + part * kLanes, std::max<int64_t>(0, width - k - part * kLanes));
      }
      for (int q = 0; q < kCount; ++q) {
        const Lanes weight = All(weights[q * window.padded() + offset]);
        for (int part = 0; part < kColumns; ++part) sums[q][part] = MultiplyAdd(weight, column[part], sums[q][part]);
      }
    }
    for (int q = 0; q < kCount; ++q) {
      for (int part = 0; part < kColumns && k + part * kLanes < width; ++part) {
        Store(sums[q][part], y + q * stride + k + part * kLanes, width - k - part * kLanes);
      }
    }
  }
}

// Attention with relative positions of a segment of T frames in chunks of `chunk`, [B, T, H, K].
//
// Keys and values are [B, H, S, K] with `heads_first`, or [B, S, H, K]; frame f lies in slot f mod S. The segment begins
// at frame `begin`, and frames [`first`, `end`) are valid. A query attends to its chunk and to `left` frames before that.
// Positions are [R, H, K], furthest first; distance 0 is number (R + left - 1) / 2.
ffi::Error Attention(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> query, ffi::Buffer<ffi::F32> content_bias,
                     ffi::Buffer<ffi::F32> position_bias, ffi::Buffer<ffi::F32> keys, ffi::Buffer<ffi::F32> values,
                     ffi::Buffer<ffi::F32> positions, ffi::Buffer<ffi::S32> begin, ffi::Buffer<ffi::S32> first,
                     ffi::Buffer<ffi::S32> end, ffi::ResultBuffer<ffi::F32> y, int64_t left, int64_t chunk,
                     bool heads_first, float scale) {
  const int64_t frames = query.dimensions()[1], heads = query.dimensions()[2], width = query.dimensions()[3];
  const int64_t slots = keys.dimensions()[heads_first ? 2 : 1];
  const int64_t slot_stride = heads_first ? width : heads * width, head_stride = heads_first ? slots * width : width;
  const int64_t chunks = (frames + chunk - 1) / chunk, nearest = (positions.dimensions()[0] + left - 1) / 2;
  const float *query_data = query.typed_data(), *keys_data = keys.typed_data(), *values_data = values.typed_data();
  const float *biases[] = {content_bias.typed_data(), position_bias.typed_data()}, *positions_data = positions.typed_data();
  const int32_t *begin_data = begin.typed_data(), *first_data = first.typed_data(), *end_data = end.typed_data();
  float* y_data = y->typed_data();
  const auto attend = [=](int64_t unit) {
    const int64_t row = unit / (heads * chunks), head = unit / chunks % heads, place = unit % chunks * chunk;
    const int64_t start = begin_data[row] + place, count = std::min(chunk, frames - place);
    const Window window{std::max<int64_t>(first_data[row], start - left), std::min<int64_t>(end_data[row], start + chunk)};
    const int64_t stride = heads * width, at = ((row * frames + place) * heads + head) * width;
    if (window.keys() == 0) {
      for (int64_t q = 0; q < count; ++q) std::fill_n(y_data + at + q * stride, width, 0.0f);
      return;
    }
    const int64_t base = row * slots * heads * width + head * head_stride;
    const Rows key_rows{keys_data + base, slot_stride, slots}, value_rows{values_data + base, slot_stride, slots};
    static thread_local std::vector<float> queries, scores;
    queries.resize(kQueries * 2 * width);
    scores.resize(kQueries * window.padded());
    const auto attend_few = [&](auto now, int64_t q) {
      const float* distances[now()];
      for (int64_t i = 0; i < now(); ++i) {
        const float* from = query_data + at + (q + i) * stride;
        for (int form = 0; form < 2; ++form) {
          for (int64_t k = 0; k < width; ++k) queries[(2 * i + form) * width + k] = from[k] + biases[form][head * width + k];
        }
        const int64_t distance = start + q + i - window.first;  // of the first key
        distances[i] = positions_data + (nearest - distance) * stride + head * width;
      }
      Scores<now()>(queries.data(), distances, stride, key_rows, window, width, scale, scores.data());
      for (int64_t i = 0; i < now(); ++i) Softmax(scores.data() + i * window.padded(), window);
      WeightedSums<now()>(scores.data(), value_rows, window, width, y_data + at + q * stride, stride);
    };
    for (int64_t q = 0; q < count; q += kQueries) {
      switch (count - q) {
        case 1: attend_few(std::integral_constant<int, 1>(), q); break;
        case 2: attend_few(std::integral_constant<int, 2>(), q); break;
        case 3: attend_few(std::integral_constant<int, 3>(), q); break;
        default: attend_few(std::integral_constant<int, kQueries>(), q); break;
      }
    }
  };
  ForUnits(pool, query.dimensions()[0] * heads * chunks, (left + chunk) * width * 2, attend);
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
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Attr<int64_t>("left")
                                  .Attr<int64_t>("chunk")
                                  .Attr<bool>("heads_first")
                                  .Attr<float>("scale"));
