// Effects on a whole image: downscaling, blur, gray, contrast and brightness.
#pragma once

#include "api.h"
#include "warp.h"

// Scratch memory of one thread.
struct Effects {
    Buffer cells, shares, places, sums, line, spare;
};

// Applies the effects to an image of side `res`; every step rounds to whole levels.
//
// Vertical and horizontal are separate steps, vertical first. Scaling down: cell k of a row is the
// weighted mean of the pixels that overlap it, with weights in 256ths that sum to 256. Scaling up again:
// linear between the two nearest cells, in 64ths. Blur: pixels at the edge are repeated outwards.
//
// Gray: (77 R + 150 G + 29 B) / 256. Then (level - 127.5) * contrast + 127.5 + brightness, 0 to 255.
RefitCode apply_effects(Effects* memory, const RefitEffects& wanted, int res, bool fast, Pixel* image);
