// Writes a finished row into the batch's memory.
#pragma once

#include "api.h"
#include "warp.h"

// Writes output row `v`. uint8: the pixels. Other types: each channel's level times its factor, at most
// 255, truncated to a whole level, then times `scale` minus `shift`; each step in float32.
void write_row(const RefitBatch& batch, const RefitSample& sample, int v, bool fast, const Pixel* row);
