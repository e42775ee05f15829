// The inverse cosine transform of two blocks at a time.
#pragma once

#include "common.h"

// Coefficients of two blocks, dequantised, in natural order.
struct alignas(32) TwoBlocks {
    int16_t of[2][64];
};

// Their pixels, as libjpeg's "islow" makes them: row by row, 8 of the first, then 8 of the second.
// The results are equal to the bit with any coefficients that a picture has; with others both
// functions still give the same.
struct alignas(32) TwoTiles {
    uint8_t row[8][16];
};

void idct_portable(const TwoBlocks& blocks, TwoTiles* tiles);
#if REFIT_X86
FAST void idct_fast(const TwoBlocks& blocks, TwoTiles* tiles);
#endif
