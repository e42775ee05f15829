// Effects on a whole image: downscaling, blur, gray, contrast and brightness.
#pragma once

#include "api.h"
#include "warp.h"

// Memory of one thread.
struct Effects {
    Buffer cells, shares, places, sums, line, spare;
};

// Changes an image of side `res`; every step rounds its levels to whole ones.
//
// Every direction of these is a step of its own, down before across. Scaled down: cell k of a row is the
// mean of its pixels, weighed by what they share of it, in 256ths that sum to 256. Scaled up again:
// between the two nearest cells, by 64ths. Blurred: the edge's pixels are repeated beyond it.
//
// Gray: (77 R + 150 G + 29 B) / 256. Then (level - 127.5) * contrast + 127.5 + brightness, 0 to 255.
RefitCode apply_effects(Effects* memory, const RefitEffects& wanted, int res, bool fast, Pixel* image);
