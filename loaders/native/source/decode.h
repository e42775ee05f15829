// Decodes the MCUs of a stored crop that are shown, into planes.
#pragma once

#include "api.h"
#include "common.h"
#include "header.h"

// The MCUs from column first[row - top] to last[row - top], both inclusive, of rows top to bottom - 1.
struct Region {
    int top = 0, bottom = 0;
    int left = 0, right = 0;  // the smallest first, and one past the largest last
    int32_t* first = nullptr;
    int32_t* last = nullptr;
};

// Decoded pixels of a region's bounding rectangle; undefined outside the region.
// luma[y * luma_stride + x]: the pixel in the lower byte, the one below it in the higher.
// chroma[2 * (y * chroma_stride + x)]: Cb, then Cr.
struct Planes {
    uint16_t* luma = nullptr;
    uint8_t* chroma = nullptr;
    int luma_stride = 0, chroma_stride = 0;  // in samples
    int left = 0, top = 0;                   // of the whole image: the rectangle's first pixel, px
    int columns = 0, rows = 0;               // of the rectangle, px; chroma has half of each
    int width = 0, height = 0;               // of the whole image, px
};

// Scratch memory of one thread, and its most recent headers.
struct Decoder {
    static constexpr int HEADERS = 4;
    Header* headers[HEADERS] = {};
    int next = 0;
    Buffer begins, luma, chroma;

    Decoder() = default;
    Decoder(const Decoder&) = delete;
    Decoder& operator=(const Decoder&) = delete;
    ~Decoder() {
        for (Header* header : headers) free(header);
    }
};

// The parsed header of a JPEG, cached for JPEGs with an equal one; null if it is not in the form that a build
// writes, or if memory ran out.
const Header* find_header(Decoder* decoder, const uint8_t* jpeg, int64_t length);

// Decodes the region of a JPEG with this header and size; REFIT_SLACK bytes after it must be readable.
RefitCode decode_region(Decoder* decoder, const Header& header, const uint8_t* jpeg, int64_t length,
                        int height, int width, const Region& region, bool fast, Planes* planes,
                        int64_t* detail);
