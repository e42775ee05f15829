// A finished row, written to the batch's memory.
#pragma once

#include "api.h"
#include "warp.h"

// Writes output row `v`. uint8: the pixels. Otherwise each channel's level times its factor, at most
// 255, cut to a whole level; then times `scale` less `shift`; each step a float32.
void write_row(const RefitBatch& batch, const RefitSample& sample, int v, bool fast, const Pixel* row);
