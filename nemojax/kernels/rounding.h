// Rows of activations in whole numbers. `panels.quantize_rows` has the same in JAX.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace nemojax {

constexpr int kLargestWeight = 127;

// Returns the largest whole number of a rounded row: as many products with weights of 127 as it has inputs can be
// summed in 32 bits. Its upper half, rounded, is a number of 8 bits too, for products by tiles.
inline float LargestNumber(int64_t inputs) {
  constexpr int64_t kLargest = 32639;  // 127 * 256 + 127
  return std::min<int64_t>(std::numeric_limits<int32_t>::max() / (kLargestWeight * inputs), kLargest);
}

// Rounds a row, and returns what one is worth in it: NaN, with numbers of zero, if a value is not finite.
inline float RoundRow(const float* x, int64_t inputs, int16_t* numbers) {
  uint32_t largest_bits = 0;  // of what is not finite they are larger than of any number
  for (int64_t i = 0; i < inputs; ++i) {
    uint32_t bits;
    std::memcpy(&bits, x + i, sizeof(bits));
    largest_bits = std::max(largest_bits, bits & 0x7fffffffu);
  }
  float largest;
  std::memcpy(&largest, &largest_bits, sizeof(largest));
  const bool finite = std::isfinite(largest), some = finite && largest > std::numeric_limits<float>::min();
  const float most = LargestNumber(inputs);
  if (!some) {
    std::fill_n(numbers, inputs, int16_t{0});
    return finite ? 0 : std::numeric_limits<float>::quiet_NaN();  // of which zero times is not a number either
  }
  const float inverse = most / largest;
  for (int64_t i = 0; i < inputs; ++i) numbers[i] = std::rint(x[i] * inverse);
  return largest / most;
}

}  // namespace nemojax
