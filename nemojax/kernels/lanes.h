// Vectors of 16 floats, and what is computed of them in an order that no shape changes.
//
// A sum of numbers that lie together is that of 16 lanes, lane i taking numbers i, i + 16 and so on, which are added in
// one order at the end. Multiplications that feed an addition are one operation, by `MultiplyAdd`, so every processor
// gives the same.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace nemojax {

constexpr int64_t kLanes = 16;

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
inline Lanes Load(const float* from, int64_t count = kLanes) {
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

inline void Store(Lanes lanes, float* to, int64_t count = kLanes) {
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

// Returns zeros in place of what is not finite.
inline Lanes FiniteOrZero(Lanes lanes) { return ((IntLanes)lanes & 0x7fffffff) < 0x7f800000 ? lanes : Lanes{}; }

inline Lanes Larger(Lanes x, Lanes y) { return x > y ? x : y; }

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

// Adds the halves of each group of kWidth lanes of x and of y; the groups of y follow those of x, half as wide.
template <int kWidth>
inline Lanes AddHalves(Lanes x, Lanes y) {
  Lanes sums;
#if defined(__AVX512F__)
  constexpr int kHalf = kWidth / 2;
  IntLanes lower, upper;
  for (int lane = 0; lane < kLanes; ++lane) {
    const int group = lane / kHalf, place = group * kWidth + lane % kHalf;  // of the 32 lanes of both
    lower[lane] = place;
    upper[lane] = place + kHalf;
  }
  sums = (Lanes)_mm512_permutex2var_ps((__m512)x, (__m512i)lower, (__m512)y) +
         (Lanes)_mm512_permutex2var_ps((__m512)x, (__m512i)upper, (__m512)y);
#else
  constexpr int kHalf = kWidth / 2, kGroups = kLanes / kWidth;
  for (int group = 0; group < kGroups; ++group) {
    for (int i = 0; i < kHalf; ++i) {
      sums[group * kHalf + i] = x[group * kWidth + i] + x[group * kWidth + kHalf + i];
      sums[kLanes / 2 + group * kHalf + i] = y[group * kWidth + i] + y[group * kWidth + kHalf + i];
    }
  }
#endif
  return sums;
}

// Returns `Sum` of each of 16 vectors, which it overwrites.
inline Lanes Sums(Lanes* all) {
  for (int i = 0; i < 8; ++i) all[i] = AddHalves<16>(all[2 * i], all[2 * i + 1]);
  for (int i = 0; i < 4; ++i) all[i] = AddHalves<8>(all[2 * i], all[2 * i + 1]);
  for (int i = 0; i < 2; ++i) all[i] = AddHalves<4>(all[2 * i], all[2 * i + 1]);
  return AddHalves<2>(all[0], all[1]);
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

// Returns 1 / (1 + e^-x).
inline Lanes Sigmoid(Lanes x) {
  const Lanes small = Exp(x > 0.0f ? -x : x);
  return (x > 0.0f ? All(1.0f) : small) / (1.0f + small);
}

inline Lanes Silu(Lanes x) { return x * Sigmoid(x); }

// Returns zeros in place of what is below.
inline Lanes Positive(Lanes x) { return x < 0.0f ? Lanes{} : x; }

// Returns the largest of `count` numbers.
inline float Largest(const float* x, int64_t count) {
  float largest = x[0];
  int64_t i = 0;
  if (count >= kLanes) {
    Lanes lanes = Load(x);
    for (; i + kLanes <= count; i += kLanes) lanes = Larger(Load(x + i), lanes);
    for (int lane = 0; lane < kLanes; ++lane) largest = lanes[lane] > largest ? lanes[lane] : largest;
  }
  for (; i < count; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
}

}  // namespace nemojax
