// The map from output to stored pixels in fixed-point numbers, and the MCUs that it shows.
#pragma once

#include "common.h"
#include "decode.h"

// x(u, v) = xu u + xv v + x0 in units of 2^-bits px; y alike. No overflow for any u, v below 4096.
struct Map {
    int64_t xu, xv, x0, yu, yv, y0;
    int bits;
};

// False if a number is not finite or too large.
bool make_map(const double affine[6], int height, int width, Map* map);

// The u of 0 … res - 1 with low <= begin + u step < high, from `first` to `end` - 1; narrows both.
void clip(int64_t begin, int64_t step, int64_t low, int64_t high, int* first, int* end);

// The MCUs that an output of side `res` shows of an image; false where it shows nothing of it. The
// region's arrays lie in `memory`; null `first`: there is no memory.
bool find_region(const Map& map, int res, int height, int width, Buffer memory[2], Region* region);
