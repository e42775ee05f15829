// The header of a stored crop, and its tables for decoding.
#pragma once

#include "common.h"

constexpr int LOOKUP_BITS = 10;
constexpr int64_t MAX_HEADER = 4096;

// A Huffman table. `lookup` has an entry for the next LOOKUP_BITS bits, 0 where the code is longer or
// the bits are no code:
//   length of the code << 16 | run << 12 | size << 8 | bits of the code and its value together
struct Huffman {
    uint32_t lookup[1 << LOOKUP_BITS];
    uint32_t limit[17];  // for each code length the first 16-bit value that is too large
    int32_t first[17];   // for each code length what to add to a code to get its symbol's index
    uint8_t symbols[256];
};

INLINE uint32_t huffman_entry(int length, int symbol) {
    return static_cast<uint32_t>(length << 16 | symbol << 8 | (length + (symbol & 15)));
}

struct Header {
    uint8_t bytes[MAX_HEADER];  // as in the file
    int64_t length;             // in bytes; the first MCU follows
    int64_t size_at;            // offset of height and width, 4 bytes
    // By k, the order in the file; entries after the 64th catch runs that lead out of a block.
    int16_t quant[2][80];
    Huffman dc[2], ac[2];

    // True if a JPEG has this header, apart from its height and width.
    bool starts(const uint8_t* data, int64_t count) const {
        return count >= length && memcmp(data, bytes, size_at) == 0 &&
               memcmp(data + size_at + 4, bytes + size_at + 4, length - size_at - 4) == 0;
    }
};

// The position of the k-th coefficient in a block; the 64th and later ones share the last.
extern const uint8_t ZIGZAG[80];

// Reads a header; false unless it is that of a baseline JPEG of YCbCr, 4:2:0, with a restart marker
// after each MCU, in exactly the form that a build writes.
bool parse_header(const uint8_t* data, int64_t count, Header* header);
