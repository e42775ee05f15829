// Draws output rows from a stored crop: bilinear, in integers, black outside the crop.
#pragma once

#include "decode.h"
#include "map.h"

// A row of the output: 4 bytes a pixel: R, G, B and an unused byte.
using Pixel = uint32_t;

// Draws row `v` of an output of side `res` from planes into `out`.
//
// Coordinates are rounded to 1/64 px. Luma is interpolated with weights in 64ths, to 1/4096 of a level.
// Chroma is an image of half the size; its sample (i, j) is at (2i + 0.5, 2j + 0.5), its edges are repeated
// outwards; it is interpolated with weights in 64ths, to 1/16 of a level after each direction. The
// weights of samples outside the crop count as black: luma 0, chroma 128. The colours are computed with
// JFIF's factors in units of 2^-14 and rounded once.
void warp_row(const Planes& planes, const Map& map, int res, int v, bool fast, Pixel* out);

// The same from a decoded image (height, width, 3); each channel is interpolated like luma.
void warp_row_rgb(const uint8_t* rgb, int height, int width, const Map& map, int res, int v,
                  Pixel* out);
