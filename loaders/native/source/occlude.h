// Blending cut-outs into the output, row by row.
#pragma once

#include "api.h"
#include "common.h"
#include "warp.h"

constexpr int MOST_PASTES = 64;  // cut-outs of one sample at most

// A cut-out placed on the output: columns left to right - 1, rows top to bottom - 1.
struct Placed {
    const uint8_t* rgba;    // pixels of the level that is used
    int columns, rows;      // of the level
    int level;
    int left, right, top, bottom;
    int64_t begin, height;  // of the whole cut-out on the output: its first row, its rows
    int64_t source_height;  // of the cut-out itself
    const int32_t* at;      // for each output column the coordinate in the level, in 64ths of a pixel
    int first, end;         // the level's columns that are needed
};

// Scratch memory of one thread.
struct Occluder {
    Placed placed[MOST_PASTES];
    int count = 0;
    Buffer places, line;
};

// Places the cut-outs of a sample on an output of side `res`.
//
// A cut-out of width w gets max(1, rint(w * size)) columns, its rows likewise; its upper left corner is
// rint(x - columns / 2), rint(y - rows / 2). The smallest level is used that is not smaller
// than the result, sampled at the result's pixel centres, rounded to 1/64 pixel.
RefitCode place(Occluder* occluder, const RefitBatch& batch, const RefitSample& sample);

// Blends all cut-outs on output row `v` into the row, one after the other: bilinear between the
// four nearest pixels of the cut-out, rounded; then (alpha over + (255 - alpha) under) / 255, rounded.
void blend_row(Occluder* occluder, int v, bool fast, Pixel* row);
