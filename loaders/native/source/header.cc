#include "header.h"

const uint8_t ZIGZAG[80] = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33,
    40, 48, 41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36,
    29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63};

namespace {

constexpr uint8_t FRAME[] = {3, 1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1};
constexpr uint8_t SCAN[] = {3, 1, 0x00, 2, 0x11, 3, 0x11, 0, 63, 0};
constexpr int DQT = 0xDB, SOF0 = 0xC0, DHT = 0xC4, SOS = 0xDA, DRI = 0xDD;
constexpr int APP0 = 0xE0, APP13 = 0xED, COMMENT = 0xFE;

// Parts of a header seen so far: frame, restart interval, 2 quantisation and 4 Huffman tables.
enum Seen { A_FRAME = 1, AN_INTERVAL = 2, QUANT = 4, DC = 16, AC = 64, ALL = 255 };

bool is_symbol(int symbol, bool ac) {
    const int run = symbol >> 4, size = symbol & 15;
    return ac ? size <= 10 && (size > 0 || run == 0 || run == 15) : symbol <= 11;
}

// Reads a table of 16 counts and its symbols; returns the bytes read, or -1.
int64_t read_huffman(const uint8_t* data, int64_t count, bool ac, Huffman* table) {
    int64_t total = 0;
    if (count < 16) return -1;
    for (int length = 0; length < 16; ++length) total += data[length];
    if (total > 256 || count < 16 + total) return -1;
    memset(table, 0, sizeof *table);
    uint32_t code = 0;
    int32_t index = 0;
    for (int length = 1; length <= 16; ++length, code <<= 1) {
        table->first[length] = index - static_cast<int32_t>(code);
        for (int one = 0; one < data[length - 1]; ++one, ++code, ++index) {
            const int symbol = data[16 + index];
            if (code >= 1u << length || !is_symbol(symbol, ac)) return -1;
            table->symbols[index] = static_cast<uint8_t>(symbol);
            for (int rest = LOOKUP_BITS - length, at = 0; rest >= 0 && at < 1 << rest; ++at)
                table->lookup[(code << rest) + at] = huffman_entry(length, symbol);
        }
        table->limit[length] = code << (16 - length);
    }
    return 16 + total;
}

bool read_quants(const uint8_t* data, int64_t count, Header* header, int* seen) {
    for (; count > 0; data += 65, count -= 65) {
        if (count < 65 || data[0] > 1) return false;
        int16_t* quant = header->quant[data[0]];
        memset(quant, 0, sizeof header->quant[0]);
        for (int k = 0; k < 64; ++k) quant[k] = data[1 + k];
        *seen |= QUANT << data[0];
    }
    return true;
}

bool read_huffmans(const uint8_t* data, int64_t count, Header* header, int* seen) {
    while (count > 0) {
        const bool ac = data[0] >> 4 == 1;
        const int which = data[0] & 15;
        if (data[0] >> 4 > 1 || which > 1) return false;
        const int64_t used =
            read_huffman(data + 1, count - 1, ac, ac ? &header->ac[which] : &header->dc[which]);
        if (used < 0) return false;
        *seen |= (ac ? AC : DC) << which;
        data += 1 + used;
        count -= 1 + used;
    }
    return true;
}

bool read_segment(int kind, const uint8_t* data, int64_t count, Header* header, int* seen) {
    switch (kind) {
    case DQT: return read_quants(data, count, header, seen);
    case DHT: return read_huffmans(data, count, header, seen);
    case SOF0:
        if (*seen & A_FRAME || count != 15 || data[0] != 8) return false;
        *seen |= A_FRAME;
        return memcmp(data + 5, FRAME, sizeof FRAME) == 0;
    case DRI:
        *seen |= AN_INTERVAL;
        return count == 2 && data[0] == 0 && data[1] == 1;
    case SOS: return *seen == ALL && count == sizeof SCAN && memcmp(data, SCAN, count) == 0;
    default: return (kind >= APP0 && kind <= APP13) || kind == COMMENT;
    }
}

}  // namespace

bool parse_header(const uint8_t* data, int64_t count, Header* header) {
    int seen = 0;
    if (count > MAX_HEADER) count = MAX_HEADER;
    if (count < 2 || data[0] != 0xFF || data[1] != 0xD8) return false;
    for (int64_t at = 2; at + 4 <= count && data[at] == 0xFF;) {
        const int kind = data[at + 1];
        const int64_t length = data[at + 2] << 8 | data[at + 3];
        if (length < 2 || at + 2 + length > count) return false;
        if (!read_segment(kind, data + at + 4, length - 2, header, &seen)) return false;
        if (kind == SOF0) header->size_at = at + 5;
        at += 2 + length;
        if (kind == SOS) {
            header->length = at;
            memcpy(header->bytes, data, at);
            return true;
        }
    }
    return false;
}
