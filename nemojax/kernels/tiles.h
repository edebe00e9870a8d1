// Tiles: registers of 16 rows of 64 bytes, and their products, which Intel's AMX has; emulated for other processors.
//
// `AmxTiles` and `EmulatedTiles` have the same operations. The instructions are written as assembly, because GCC 12's
// functions for them read less memory than the instructions do, as far as the compiler can see; any compiler for x86
// builds them. Only a thread that has configured its tiles may use them.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace nemojax {

constexpr int kTileRows = 16, kTileBytes = 64;  // of a row

// Tiles 0 to 5 have a number of rows that varies: sums, and rows of activations. 6 and 7 are weights.
constexpr int kWeightTile = 6, kTiles = 8;

struct EmulatedTiles {
  struct State {
    int rows[kTiles] = {};  // 0: it is not configured, so operations do nothing
    char bytes[kTiles][kTileRows][kTileBytes];
  };

  static State& Own() {
    static thread_local State state;
    return state;
  }

  static void Configure(int rows) {
    for (int tile = 0; tile < kTiles; ++tile) Own().rows[tile] = tile < kWeightTile ? rows : kTileRows;
    std::memset(Own().bytes, 0, sizeof(Own().bytes));
  }

  static void Release() {
    for (int& rows : Own().rows) rows = 0;
  }

  template <int tile>
  static void Zero() {
    std::memset(Own().bytes[tile], 0, sizeof(Own().bytes[tile]));
  }

  template <int tile>
  static void Load(const void* from) {
    Zero<tile>();
    std::memcpy(Own().bytes[tile], from, Own().rows[tile] * kTileBytes);
  }

  template <int tile>
  static void Store(void* to) {
    std::memcpy(to, Own().bytes[tile], Own().rows[tile] * kTileBytes);
  }

  // sums[row][column] += four numbers of 8 bits of x[row] times those of weights[four][column], for all fours
  template <int sums, int x, int weights>
  static void MultiplyInt8() {
    State& own = Own();
    const auto at = [&](int tile, int row, int byte) { return int32_t{(int8_t)own.bytes[tile][row][byte]}; };
    for (int row = 0; row < own.rows[sums]; ++row) {
      int32_t totals[16];
      std::memcpy(totals, own.bytes[sums][row], kTileBytes);
      for (int four = 0; four < own.rows[weights]; ++four) {
        for (int column = 0; column < 16; ++column) {
          for (int i = 0; i < 4; ++i) totals[column] += at(x, row, 4 * four + i) * at(weights, four, 4 * column + i);
        }
      }
      std::memcpy(own.bytes[sums][row], totals, kTileBytes);
    }
  }

  // sums[row][column] += two numbers of bfloat16 of x[row] times those of weights[pair][column], for all pairs
  template <int sums, int x, int weights>
  static void MultiplyBFloat16() {
    State& own = Own();
    const auto at = [&](int tile, int row, int index) {
      uint16_t upper;
      std::memcpy(&upper, own.bytes[tile][row] + 2 * index, sizeof(upper));
      const uint32_t bits = uint32_t{upper} << 16;
      float number;
      std::memcpy(&number, &bits, sizeof(number));
      return number;
    };
    for (int row = 0; row < own.rows[sums]; ++row) {
      float totals[16];
      std::memcpy(totals, own.bytes[sums][row], kTileBytes);
      for (int column = 0; column < 16; ++column) {
        float even = 0, odd = 0;
        for (int pair = 0; pair < own.rows[weights]; ++pair) {
          even += at(x, row, 2 * pair) * at(weights, pair, 2 * column);
          odd += at(x, row, 2 * pair + 1) * at(weights, pair, 2 * column + 1);
        }
        totals[column] += even + odd;
      }
      std::memcpy(own.bytes[sums][row], totals, kTileBytes);
    }
  }
};

#if defined(__x86_64__) && defined(__linux__)

struct AmxTiles {
  static void Configure(int rows) {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t bytes[16] = {};
      uint8_t rows[16] = {};
    } layout;
    static_assert(sizeof(layout) == 64, "what LDTILECFG reads");
    for (int tile = 0; tile < kTiles; ++tile) {
      layout.bytes[tile] = kTileBytes;
      layout.rows[tile] = tile < kWeightTile ? rows : kTileRows;
    }
    asm volatile("ldtilecfg %0" ::"m"(layout));
  }

  static void Release() { asm volatile("tilerelease" ::: "memory"); }

  template <int tile>
  static void Zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(tile));
  }

  template <int tile>
  static void Load(const void* from) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(int64_t{kTileBytes}), "i"(tile) : "memory");
  }

  template <int tile>
  static void Store(void* to) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(int64_t{kTileBytes}), "i"(tile) : "memory");
  }

  template <int sums, int x, int weights>
  static void MultiplyInt8() {
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sums), "i"(x), "i"(weights));
  }

  template <int sums, int x, int weights>
  static void MultiplyBFloat16() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sums), "i"(x), "i"(weights));
  }
};

// Whether this processor has tiles of int8 and bfloat16, and Linux lets this process use them: it must be asked once,
// for all threads. It refuses if it is older than 5.16, in some sandboxes, and where a thread's stack for signals is
// small.
inline bool RequestTiles() {
  constexpr unsigned kFeatures = 1u << 22 | 1u << 24 | 1u << 25;  // of CPUID 7, EDX: bfloat16, tiles, int8
  constexpr unsigned kSavesState = 1u << 27;  // of CPUID 1, ECX: XGETBV may be used
  constexpr unsigned kTileState = 1u << 17 | 1u << 18;  // of XCR0
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // of arch_prctl
  unsigned a, b, c, d, low, high;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & kFeatures) != kFeatures) return false;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & kSavesState)) return false;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & kTileState) == kTileState && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

#else

using AmxTiles = EmulatedTiles;  // never called
inline bool RequestTiles() { return false; }

#endif

}  // namespace nemojax
