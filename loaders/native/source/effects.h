// What a camera does to a whole image: fewer pixels, blur, no colour, other contrast and brightness.
#pragma once

#include "api.h"
#include "warp.h"

// Memory of one thread.
struct Effects {
    Buffer shares, places, sums, line, spare;
};

// Changes an image of side `res`; every step rounds its levels once to whole ones.
//
// Scaled down: cell k of a row is the mean of its pixels, weighed by what they share of it, in 4096ths
// that sum to 4096. Scaled up again: between the four nearest cells, by 64ths, as cut-outs are.
// Blurred: down, then across; the edge's pixels are repeated beyond it.
// Gray: (77 R + 150 G + 29 B) / 256. Then (level - 127.5) * contrast + 127.5 + brightness, 0 to 255.
RefitCode apply_effects(Effects* memory, const RefitEffects& wanted, int res, bool fast, Pixel* image);
