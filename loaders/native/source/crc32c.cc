// CRC-32C (Castagnoli), the checksum in the index and the records.
#include "api.h"
#include "common.h"

namespace {

constexpr uint32_t POLYNOMIAL = 0x82F63B78;

struct Tables {
    uint32_t of[8][256];
    constexpr Tables() : of() {
        for (uint32_t byte = 0; byte < 256; ++byte) {
            uint32_t crc = byte;
            for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
            of[0][byte] = crc;
        }
        for (uint32_t byte = 0; byte < 256; ++byte)
            for (int step = 1; step < 8; ++step)
                of[step][byte] = of[step - 1][byte] >> 8 ^ of[0][of[step - 1][byte] & 0xFF];
    }
};
constexpr Tables TABLES;

uint64_t load64(const uint8_t* data) {  // little-endian
    uint64_t value;
    memcpy(&value, data, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    value = __builtin_bswap64(value);
#endif
    return value;
}

uint32_t portable_crc(const uint8_t* data, int64_t length) {
    uint32_t crc = ~0u;
    for (; length >= 8; data += 8, length -= 8) {
        const uint64_t word = load64(data) ^ crc;
        crc = 0;
        for (int byte = 0; byte < 8; ++byte) crc ^= TABLES.of[7 - byte][word >> 8 * byte & 0xFF];
    }
    for (; length > 0; ++data, --length) crc = crc >> 8 ^ TABLES.of[0][(crc ^ *data) & 0xFF];
    return ~crc;
}

#if REFIT_X86

constexpr int64_t LANE = 1024;  // bytes; three lanes are summed at once, to hide the latency

// Tables: the effect on a CRC's byte of LANE and of 2 LANE following zero bytes.
struct Shifts {
    uint32_t by[2][4][256];
    Shifts() : by() {
        for (int lanes = 1; lanes <= 2; ++lanes) {
            uint32_t bits[32] = {};
            for (int bit = 0; bit < 32; ++bit) {
                uint32_t crc = 1u << bit;
                for (int64_t at = 0; at < lanes * LANE; ++at)
                    crc = crc >> 8 ^ TABLES.of[0][crc & 0xFF];
                bits[bit] = crc;
            }
            for (int byte = 0; byte < 4; ++byte)
                for (int value = 0; value < 256; ++value)
                    for (int bit = 0; bit < 8; ++bit)
                        if (value >> bit & 1) by[lanes - 1][byte][value] ^= bits[8 * byte + bit];
        }
    }
    uint64_t apply(int lanes, uint64_t crc) const {
        const auto& table = by[lanes - 1];
        return table[0][crc & 0xFF] ^ table[1][crc >> 8 & 0xFF] ^ table[2][crc >> 16 & 0xFF] ^
               table[3][crc >> 24];
    }
};
const Shifts SHIFTS;  // made when the library is loaded

FAST uint32_t fast_crc(const uint8_t* data, int64_t length) {
    uint64_t crc = ~0u;
    for (; length >= 3 * LANE; data += 3 * LANE, length -= 3 * LANE) {
        uint64_t second = 0, third = 0;
        for (int64_t at = 0; at < LANE; at += 8) {
            crc = _mm_crc32_u64(crc, load64(data + at));
            second = _mm_crc32_u64(second, load64(data + LANE + at));
            third = _mm_crc32_u64(third, load64(data + 2 * LANE + at));
        }
        crc = SHIFTS.apply(2, crc) ^ SHIFTS.apply(1, second) ^ third;
    }
    for (; length >= 8; data += 8, length -= 8) crc = _mm_crc32_u64(crc, load64(data));
    uint32_t rest = static_cast<uint32_t>(crc);
    for (; length > 0; ++data, --length) rest = _mm_crc32_u8(rest, *data);
    return ~rest;
}

#endif

}  // namespace

uint32_t refit_crc32c(const uint8_t* data, int64_t length, int32_t portable) {
#if REFIT_X86
    if (!portable && has_avx2()) return fast_crc(data, length);
#endif
    (void)portable;
    return portable_crc(data, length);
}
