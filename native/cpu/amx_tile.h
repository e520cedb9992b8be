// The few AMX tile operations that the int8 kernel uses, as macros because tile numbers are literals. With
// KOTOBA_EMULATE_AMX they run on any CPU, with the semantics of Intel's manual: tests prove the kernel so.
#pragma once

#include <cstdint>
#include <cstring>

#if !defined(KOTOBA_EMULATE_AMX)
#include <immintrin.h>
#endif

namespace kotoba::cpu::KOTOBA_ISA {

// Palette 1: eight tiles of at most 16 rows of 64 bytes. The operand of LDTILECFG.
struct alignas(64) TileConfig {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};
static_assert(sizeof(TileConfig) == 64, "LDTILECFG reads 64 bytes");

#if !defined(KOTOBA_EMULATE_AMX)

// The compiler must not move stores past a load that its own header does not mark as reading memory.
#define KOTOBA_TILE_CONFIGURE(config) _tile_loadconfig(config)
#define KOTOBA_TILE_RELEASE() _tile_release()
#define KOTOBA_TILE_ZERO(tile) _tile_zero(tile)
#define KOTOBA_TILE_LOAD(tile, base, stride) \
  do {                                       \
    asm volatile("" ::: "memory");           \
    _tile_loadd(tile, base, stride);         \
  } while (0)
#define KOTOBA_TILE_STORE(tile, base, stride) _tile_stored(tile, base, stride)
// sum += a (signed) · b (unsigned)
#define KOTOBA_TILE_DOT(sum, a, b) _tile_dpbsud(sum, a, b)

#else

struct EmulatedTiles {
  TileConfig config;
  uint8_t data[8][16][64];
};
static thread_local EmulatedTiles tiles;

static inline void tile_configure(const TileConfig* config) {
  memset(&tiles, 0, sizeof tiles);
  tiles.config = *config;
}
static inline void tile_load(int tile, const void* base, int64_t stride) {
  memset(tiles.data[tile], 0, sizeof tiles.data[tile]);
  for (int r = 0; r < tiles.config.rows[tile]; ++r)
    memcpy(tiles.data[tile][r], static_cast<const char*>(base) + r * stride, tiles.config.row_bytes[tile]);
}
static inline void tile_store(int tile, void* base, int64_t stride) {
  for (int r = 0; r < tiles.config.rows[tile]; ++r)
    memcpy(static_cast<char*>(base) + r * stride, tiles.data[tile][r], tiles.config.row_bytes[tile]);
}
// Row m of a: 4 bytes for each row k of b, which holds 4 bytes for each column n.
static inline void tile_dot(int sum, int a, int b) {
  const TileConfig& c = tiles.config;
  if (c.rows[sum] != c.rows[a] || c.row_bytes[sum] != c.row_bytes[b] || c.row_bytes[a] != 4 * c.rows[b])
    __builtin_trap();  // #UD on a CPU
  for (int m = 0; m < c.rows[a]; ++m)
    for (int n = 0; n < c.row_bytes[b] / 4; ++n) {
      int32_t total;
      memcpy(&total, &tiles.data[sum][m][4 * n], 4);
      for (int k = 0; k < c.rows[b]; ++k)
        for (int i = 0; i < 4; ++i)
          total += static_cast<int8_t>(tiles.data[a][m][4 * k + i]) * int32_t{tiles.data[b][k][4 * n + i]};
      memcpy(&tiles.data[sum][m][4 * n], &total, 4);
    }
}

#define KOTOBA_TILE_CONFIGURE(config) tile_configure(config)
#define KOTOBA_TILE_RELEASE() static_cast<void>(tiles.config.palette = 0)
#define KOTOBA_TILE_ZERO(tile) static_cast<void>(memset(tiles.data[tile], 0, sizeof tiles.data[tile]))
#define KOTOBA_TILE_LOAD(tile, base, stride) tile_load(tile, base, stride)
#define KOTOBA_TILE_STORE(tile, base, stride) tile_store(tile, base, stride)
#define KOTOBA_TILE_DOT(sum, a, b) tile_dot(sum, a, b)

#endif

}  // namespace kotoba::cpu::KOTOBA_ISA
