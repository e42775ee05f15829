#include "decode.h"

#include "idct.h"

namespace {

constexpr uint32_t STUFFED = 1u << 31;  // flag in an MCU's offset: its bytes have zeros stuffed after 0xFF
constexpr int64_t MAX_JPEG = 1 << 30;
constexpr int BLOCKS = 6;                      // in an MCU
constexpr int64_t MOST_BYTES = BLOCKS * 64 * 4;  // upper bound for an MCU's codes; below REFIT_SLACK
static_assert(MOST_BYTES + 16 < REFIT_SLACK, "a damaged MCU is read no further");

// ---- Where the MCUs are ----

// Finds the offsets of all MCUs, counted from the first, and the offset of the end.
struct Scan {
    const uint8_t* data;
    int64_t length;
    uint32_t* begins;
    int64_t count;
    int64_t found = 0;
    uint32_t stuffed = 0;

    // Handles a 0xFF at `at`; true to go on.
    INLINE bool meet(int64_t at) {
        if (at + 1 >= length) return false;
        const int code = data[at + 1];
        if (code == 0) {
            stuffed = STUFFED;
            return true;
        }
        const bool last = found == count - 1;
        if (code != (last ? 0xD9 : 0xD0 + (found & 7))) return false;
        begins[found++] |= stuffed;
        begins[found] = static_cast<uint32_t>(at + 2);
        stuffed = 0;
        return !last;
    }
};

bool scan_portable(Scan scan, int64_t* found) {
    scan.begins[0] = 0;
    for (int64_t at = 0; at < scan.length; ++at) {
        const void* next = memchr(scan.data + at, 0xFF, static_cast<size_t>(scan.length - at));
        if (next == nullptr) break;
        at = static_cast<const uint8_t*>(next) - scan.data;
        if (!scan.meet(at)) break;
    }
    *found = scan.found;
    return scan.found == scan.count;
}

#if REFIT_X86
FAST bool scan_fast(Scan scan, int64_t* found) {
    const __m256i wanted = _mm256_set1_epi8(static_cast<char>(0xFF));
    scan.begins[0] = 0;
    for (int64_t at = 0; at < scan.length; at += 32) {
        const __m256i bytes =
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(scan.data + at));
        auto mask = static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(bytes, wanted)));
        for (; mask != 0; mask &= mask - 1) {
            if (!scan.meet(at + __builtin_ctz(mask))) {
                *found = scan.found;
                return scan.found == scan.count;
            }
        }
    }
    *found = scan.found;
    return false;
}
#endif

// ---- Entropy decoding ----

// A window of a bit stream; the next bit is the highest.
struct Bits {
    uint64_t window;
    int64_t held;  // number of valid bits in the window
    const uint8_t* next;

    // Afterwards at least 56 bits are valid. Reads 8 bytes.
    INLINE void refill() {
        uint64_t bytes;
        memcpy(&bytes, next, 8);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        bytes = __builtin_bswap64(bytes);
#endif
        window |= bytes >> held;
        next += (63 - held) >> 3;
        held |= 56;
    }
    INLINE void drop(int64_t count) {
        window <<= count;
        held -= count;
    }
    INLINE uint32_t top(int count) const { return static_cast<uint32_t>(window >> (64 - count)); }
};

// The entry of a code that is too long for the look-up table; 0 if there is no such code.
inline uint32_t find_long(const Huffman& table, uint32_t code) {
    int length = LOOKUP_BITS + 1;
    while (length <= 16 && code >= table.limit[length]) ++length;
    if (length > 16) return 0;
    const uint32_t number = (code >> (16 - length)) + static_cast<uint32_t>(table.first[length]);
    return huffman_entry(length, table.symbols[number & 255]);
}

INLINE uint32_t find(const Huffman& table, const Bits& bits) {
    const uint32_t entry = table.lookup[bits.top(LOOKUP_BITS)];
    return __builtin_expect(entry != 0, 1) ? entry : find_long(table, bits.top(16));
}

// Removes a code and the bits of its value from the stream; returns the value.
INLINE int32_t take(Bits* bits, uint32_t entry) {
    const int size = entry >> 8 & 15;
    const uint64_t rest = bits->window << (entry >> 16);
    const auto positive = static_cast<int32_t>(static_cast<int64_t>(rest) >> 63);
    const auto value = static_cast<int32_t>(rest >> 1 >> (63 - size));
    bits->drop(entry & 0xFF);
    return value - (~positive & ((1 << size) - 1));
}

// Decodes a block into `out`, which must be zero; false if damaged. `mean`: DC of the previous block.
INLINE bool read_block(const Huffman& dc, const Huffman& ac, const int16_t* quant, Bits* bits,
                       int32_t* mean, int16_t* out) {
    bits->refill();
    const uint32_t first = find(dc, *bits);
    *mean += take(bits, first);
    out[0] = static_cast<int16_t>(*mean * quant[0]);
    if (first == 0) return false;
    for (int k = 1; k < 64;) {
        bits->refill();  // enough for two symbols of at most 26 bits
        for (int turn = 0; turn < 2 && k < 64; ++turn, ++k) {
            const uint32_t entry = find(ac, *bits);
            const int run = entry >> 12 & 15;
            const int32_t value = take(bits, entry);
            k += run;
            if ((entry & 0xF00) != 0) {
                out[ZIGZAG[k]] = static_cast<int16_t>(value * quant[k]);
            } else if (run == 0) {
                return entry != 0;  // the end of the block
            }
            if (k > 63) return false;
        }
    }
    return true;
}

// Decodes an MCU's six blocks; false unless they take exactly its `length` bytes.
INLINE bool read_mcu(const Header& header, const uint8_t* data, int64_t length, TwoBlocks blocks[3]) {
    Bits bits{0, 0, data};
    int32_t means[3] = {};
    memset(blocks, 0, 3 * sizeof *blocks);
    for (int block = 0; block < BLOCKS; ++block) {
        const int chroma = block >= 4, component = chroma ? block - 3 : 0;
        if (!read_block(header.dc[chroma], header.ac[chroma], header.quant[chroma], &bits,
                        &means[component], blocks[block / 2].of[block % 2]))
            return false;
    }
    const int64_t used = 8 * (bits.next - data) - bits.held;
    return (used + 7) / 8 == length;
}

// Copies an MCU's bytes without the zeros after 0xFF; returns their number, -1 if too many.
int64_t unstuff(const uint8_t* data, int64_t length, uint8_t* out) {
    int64_t made = 0;
    for (int64_t at = 0; at < length; ++at) {
        if (made == MOST_BYTES) return -1;
        out[made++] = data[at];
        if (data[at] == 0xFF) ++at;
    }
    return made;
}

// ---- Planes ----

void store_luma(const TwoTiles& tiles, uint16_t* to, int64_t stride, bool has_above) {
    for (int row = 0; row < 8; ++row) {
        for (int x = 0; x < 16; ++x) {
            const int below = row < 7 ? tiles.row[row + 1][x] : 0;
            to[row * stride + x] = static_cast<uint16_t>(tiles.row[row][x] | below << 8);
        }
    }
    if (!has_above) return;
    for (int x = 0; x < 16; ++x) {
        uint16_t* above = to - stride + x;
        *above = static_cast<uint16_t>((*above & 0xFF) | tiles.row[0][x] << 8);
    }
}

void store_chroma(const TwoTiles& tiles, uint8_t* to, int64_t stride) {
    for (int row = 0; row < 8; ++row)
        for (int x = 0; x < 8; ++x)
            for (int which = 0; which < 2; ++which)
                to[2 * (row * stride + x) + which] = tiles.row[row][8 * which + x];
}

#if REFIT_X86
FAST void store_luma_fast(const TwoTiles& tiles, uint16_t* to, int64_t stride, bool has_above) {
    __m128i rows[9];
    for (int row = 0; row < 8; ++row)
        rows[row] = _mm_load_si128(reinterpret_cast<const __m128i*>(tiles.row[row]));
    rows[8] = _mm_setzero_si128();
    for (int row = 0; row < 8; ++row) {
        auto* at = reinterpret_cast<__m128i*>(to + row * stride);
        _mm_storeu_si128(at, _mm_unpacklo_epi8(rows[row], rows[row + 1]));
        _mm_storeu_si128(at + 1, _mm_unpackhi_epi8(rows[row], rows[row + 1]));
    }
    if (!has_above) return;
    auto* above = reinterpret_cast<__m256i*>(to - stride);
    const __m256i kept = _mm256_and_si256(_mm256_loadu_si256(above), _mm256_set1_epi16(0xFF));
    const __m256i below = _mm256_slli_epi16(_mm256_cvtepu8_epi16(rows[0]), 8);
    _mm256_storeu_si256(above, _mm256_or_si256(kept, below));
}

FAST void store_chroma_fast(const TwoTiles& tiles, uint8_t* to, int64_t stride) {
    for (int row = 0; row < 8; ++row) {
        const __m128i both = _mm_load_si128(reinterpret_cast<const __m128i*>(tiles.row[row]));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 2 * row * stride),
                         _mm_unpacklo_epi8(both, _mm_srli_si128(both, 8)));
    }
}
#endif

// Decodes one MCU into the planes.
template <bool fast>
INLINE bool decode_mcu(const Header& header, const uint8_t* data, int64_t length, bool stuffed,
                       int column, int row, const Planes& planes) {
    uint8_t plain[REFIT_SLACK + 16];
    if (length <= 0) return false;
    if (stuffed) {
        memset(plain, 0, sizeof plain);
        length = unstuff(data, length, plain);
        if (length < 0) return false;
        data = plain;
    }
    TwoBlocks blocks[3];
    TwoTiles tiles;
    if (!read_mcu(header, data, length, blocks)) return false;
    const int64_t stride = planes.luma_stride;
    uint16_t* luma = planes.luma + MCU * (row * stride + column);
    uint8_t* chroma = planes.chroma + MCU * (int64_t{row} * planes.chroma_stride + column);
#if REFIT_X86
    if (fast) {
        idct_fast(blocks[0], &tiles);
        store_luma_fast(tiles, luma, stride, row > 0);
        idct_fast(blocks[1], &tiles);
        store_luma_fast(tiles, luma + 8 * stride, stride, true);
        idct_fast(blocks[2], &tiles);
        store_chroma_fast(tiles, chroma, planes.chroma_stride);
        return true;
    }
#endif
    idct_portable(blocks[0], &tiles);
    store_luma(tiles, luma, stride, row > 0);
    idct_portable(blocks[1], &tiles);
    store_luma(tiles, luma + 8 * stride, stride, true);
    idct_portable(blocks[2], &tiles);
    store_chroma(tiles, chroma, planes.chroma_stride);
    return true;
}

// The index of the first damaged MCU of the region, or -1.
template <bool fast>
INLINE int64_t decode_mcus(const Header& header, const uint8_t* data, const uint32_t* begins,
                           int columns, const Region& region, const Planes& planes) {
    for (int row = region.top; row < region.bottom; ++row) {
        for (int column = region.first[row - region.top]; column <= region.last[row - region.top];
             ++column) {
            const int64_t number = int64_t{row} * columns + column;
            const int64_t begin = begins[number] & ~STUFFED, end = begins[number + 1] & ~STUFFED;
            if (!decode_mcu<fast>(header, data + begin, end - begin - 2, begins[number] & STUFFED,
                                  column - region.left, row - region.top, planes))
                return number;
        }
    }
    return -1;
}

int64_t decode_portable(const Header& header, const uint8_t* data, const uint32_t* begins,
                        int columns, const Region& region, const Planes& planes) {
    return decode_mcus<false>(header, data, begins, columns, region, planes);
}

#if REFIT_X86
FAST int64_t decode_fast(const Header& header, const uint8_t* data, const uint32_t* begins,
                         int columns, const Region& region, const Planes& planes) {
    return decode_mcus<true>(header, data, begins, columns, region, planes);
}
#endif

bool take_planes(Decoder* decoder, int height, int width, const Region& region, Planes* planes) {
    planes->left = MCU * region.left;
    planes->top = MCU * region.top;
    planes->columns = MCU * (region.right - region.left);
    planes->rows = MCU * (region.bottom - region.top);
    planes->width = width;
    planes->height = height;
    planes->luma_stride = planes->columns;
    planes->chroma_stride = planes->columns / 2;
    const int64_t pixels = int64_t{planes->columns} * planes->rows;
    planes->luma = decoder->luma.of<uint16_t>(pixels);
    planes->chroma = decoder->chroma.of<uint8_t>(pixels / 2);
    return planes->luma != nullptr && planes->chroma != nullptr;
}

}  // namespace

const Header* find_header(Decoder* decoder, const uint8_t* jpeg, int64_t length) {
    for (const Header* header : decoder->headers)
        if (header != nullptr && header->starts(jpeg, length)) return header;
    Header*& place = decoder->headers[decoder->next];
    free(place);
    place = static_cast<Header*>(malloc(sizeof(Header)));
    if (place == nullptr) return nullptr;
    if (!parse_header(jpeg, length, place)) {
        free(place);
        place = nullptr;
        return nullptr;
    }
    decoder->next = (decoder->next + 1) % Decoder::HEADERS;
    return place;
}

RefitCode decode_region(Decoder* decoder, const Header& header, const uint8_t* jpeg, int64_t length,
                        int height, int width, const Region& region, bool fast, Planes* planes,
                        int64_t* detail) {
    const uint8_t* size = jpeg + header.size_at;
    const int stated_height = size[0] << 8 | size[1], stated_width = size[2] << 8 | size[3];
    if (stated_height != height || stated_width != width) {
        *detail = int64_t{stated_width} << 16 | stated_height;
        return REFIT_OTHER_SIZE;
    }
    const int rows = (height + MCU - 1) / MCU, columns = (width + MCU - 1) / MCU;
    const int64_t count = int64_t{rows} * columns, coded = length - header.length;
    // Each MCU takes a byte and a marker at least, so memory is bounded by the size of the data.
    if (coded < 3 * count || length > MAX_JPEG) return REFIT_MARKERS;
    auto* begins = decoder->begins.of<uint32_t>(count + 1);
    if (begins == nullptr) return REFIT_NO_MEMORY;
    const uint8_t* data = jpeg + header.length;
    const Scan scan{data, coded, begins, count};
    int64_t damaged = -1;
#if REFIT_X86
    if (!(fast ? scan_fast(scan, detail) : scan_portable(scan, detail))) return REFIT_MARKERS;
    if (!take_planes(decoder, height, width, region, planes)) return REFIT_NO_MEMORY;
    damaged = fast ? decode_fast(header, data, begins, columns, region, *planes)
                   : decode_portable(header, data, begins, columns, region, *planes);
#else
    (void)fast;
    if (!scan_portable(scan, detail)) return REFIT_MARKERS;
    if (!take_planes(decoder, height, width, region, planes)) return REFIT_NO_MEMORY;
    damaged = decode_portable(header, data, begins, columns, region, *planes);
#endif
    *detail = damaged < 0 ? 0 : damaged;
    return damaged < 0 ? REFIT_OK : REFIT_DAMAGED;
}
