// What panel_product.cc uses of AVX-512, for processors that lack it: included before it, by `-include`, this makes it
// take its AVX-512 path, with -DVNNI the one for AVX-512 with VNNI. Vectors of 64 bytes are the compiler's own.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

typedef int16_t Int16s __attribute__((vector_size(64)));
typedef int32_t Int32s __attribute__((vector_size(64)));

template <typename From, typename To>
inline __m512i Emulated(__m256i packed, To) {
  From values[32 / sizeof(From)];
  std::memcpy(values, &packed, sizeof(packed));
  To wide;
  for (unsigned i = 0; i < sizeof(values) / sizeof(From); ++i) wide[i] = values[i];
  return (__m512i)wide;
}

inline __m512i SumsOfPairs(__m512i a, __m512i b) {
  Int32s sums;
  for (int i = 0; i < 16; ++i) {
    const auto product = [&](int j) { return int32_t{((Int16s)a)[j]} * ((Int16s)b)[j]; };
    sums[i] = product(2 * i) + product(2 * i + 1);
  }
  return (__m512i)sums;
}

#define _mm512_cvtepi8_epi16(x) Emulated<int8_t>(x, Int16s())
#define _mm512_cvtepu16_epi32(x) Emulated<uint16_t>(x, Int32s())
#define _mm512_slli_epi32(x, bits) ((__m512i)((Int32s)(x) << (bits)))
#define _mm512_set1_epi32(value) ((__m512i)(Int32s() + (value)))
#define _mm512_madd_epi16 SumsOfPairs
#define _mm512_dpwssd_epi32(sums, a, b) ((__m512i)((Int32s)(sums) + (Int32s)SumsOfPairs(a, b)))
#undef __AVX512BW__
#undef __AVX512VNNI__
#define __AVX512BW__ 1
#ifdef VNNI
#define __AVX512VNNI__ 1
#endif
