// Vectors of the registers' size, and weights widened into them. Compilers make them of what the processor has.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace nemojax {

constexpr int kPanel = 16;  // outputs that lie together in packed weights
constexpr int64_t kAheadBytes = 1 << 12;  // of weights

// The sums of so many rows and panels stay in registers. Each number of a row that is loaded multiplies two registers.
#if defined(__AVX512BW__)
constexpr int kRegisterLanes = 16, kMostRows = 8, kMostPanels = 2;
#else
constexpr int kRegisterLanes = 8, kMostRows = 5, kMostPanels = 1;
#endif
constexpr int kParts = kPanel / kRegisterLanes;
typedef float Floats __attribute__((vector_size(kRegisterLanes * sizeof(float))));
typedef int32_t Ints __attribute__((vector_size(kRegisterLanes * sizeof(int32_t))));
typedef int16_t Pairs __attribute__((vector_size(2 * kRegisterLanes * sizeof(int16_t))));  // two inputs for each lane

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
  for (int lane = 0; lane < kRegisterLanes; ++lane) {
    const uint32_t bits = uint32_t{weights[lane].bits} << 16;
    std::memcpy((char*)&floats + lane * sizeof(float), &bits, sizeof(float));
  }
  return floats;
#endif
}

// Asks for the weights some iterations ahead: the processor's own guesses come too late for the few operations of each.
inline void Prefetch(const void* weights) { __builtin_prefetch((const char*)weights + kAheadBytes); }

inline Pairs WidenedPairs(const int8_t* weights) {
#if defined(__AVX512BW__)
  return (Pairs)_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i*)weights));
#elif defined(__AVX2__)
  return (Pairs)_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)weights));
#else
  Pairs pairs;
  for (int i = 0; i < 2 * kRegisterLanes; ++i) pairs[i] = weights[i];
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
  for (int lane = 0; lane < kRegisterLanes; ++lane) sums[lane] += x[0] * weights[2 * lane] + x[1] * weights[2 * lane + 1];
  return sums;
#endif
}

}  // namespace nemojax
