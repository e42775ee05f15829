// The inverse cosine transform of two blocks at a time.
#pragma once

#include "common.h"

// Coefficients of two blocks, dequantised, in natural order.
struct alignas(32) TwoBlocks {
    int16_t of[2][64];
};

// Their pixels as libjpeg's "islow" computes them: row by row, 8 of the first block, then 8 of the second.
// Equal to libjpeg to the bit for the coefficients of any encoded image; for others both
// functions still agree with each other.
struct alignas(32) TwoTiles {
    uint8_t row[8][16];
};

void idct_portable(const TwoBlocks& blocks, TwoTiles* tiles);
#if REFIT_X86
FAST void idct_fast(const TwoBlocks& blocks, TwoTiles* tiles);
#endif
