// Output rows from a stored crop: bilinear, in whole numbers, black outside the crop.
#pragma once

#include "decode.h"
#include "map.h"

// A row of the output: pixels of 4 bytes, R, G, B and one of any value.
using Pixel = uint32_t;

// Row `v` of an output of side `res` from planes, to `out`.
//
// A place is rounded to 1/64 px. Luma is weighed by 64ths in both directions, to 1/4096 of a level.
// Chroma is a picture of half the size whose sample (i, j) lies at (2i + 0.5, 2j + 0.5), repeated
// beyond its edges: weighed by 64ths of its own pixels, to 1/16 of a level after each direction. What
// part of the weights lies outside the crop is black: luma 0, chroma 128. Then the colours, with
// JFIF's factors in 2^-14, are rounded once.
void warp_row(const Planes& planes, const Map& map, int res, int v, bool fast, Pixel* out);

// The same from a decoded image (height, width, 3), each channel weighed as luma is.
void warp_row_rgb(const uint8_t* rgb, int height, int width, const Map& map, int res, int v,
                  Pixel* out);
