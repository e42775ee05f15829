#include "idct.h"

namespace {

// Loeffler, Ligtenberg and Moschytz's algorithm as in jidctint.c, with factors of 2^13. Its sums
// are multiplied out into sums of products of 16-bit numbers; in integers the
// result is the same. Rows of FACTORS: the factors of inputs 0 and 4, 2 and 6, 7 and 1, 3 and 5.
constexpr int BITS = 13, KEPT = 2;
constexpr int16_t EVEN04[2][2] = {{8192, 8192}, {8192, -8192}};
constexpr int16_t EVEN26[2][2] = {{10703, 4433}, {4433, -10704}};
constexpr int16_t ODD71[4][2] = {{-11363, 2260}, {9633, 6437}, {-6436, 9633}, {2260, 11363}};
constexpr int16_t ODD35[4][2] = {{-6436, 9633}, {-11362, 2261}, {-2259, -11362}, {9633, 6437}};

// Sums may wrap around: the coefficients of a damaged image may be of any size.
uint32_t weighed(int16_t a, int16_t b, const int16_t by[2]) {
    return static_cast<uint32_t>(a * by[0]) + static_cast<uint32_t>(b * by[1]);
}

int16_t saturated(int32_t value) {
    return static_cast<int16_t>(value > INT16_MAX ? INT16_MAX : value < INT16_MIN ? INT16_MIN : value);
}

// One-dimensional transform of 8 numbers, `step` apart.
void pass(const int16_t* in, int16_t* out, int step, int shift) {
    const auto at = [&](int k) { return in[k * step]; };
    uint32_t even[4], odd[4];
    for (int i = 0; i < 2; ++i) {
        const uint32_t mean = weighed(at(0), at(4), EVEN04[i]);
        const uint32_t wave = weighed(at(2), at(6), EVEN26[i]);
        even[i] = mean + wave;
        even[3 - i] = mean - wave;
    }
    for (int i = 0; i < 4; ++i) {
        odd[i] = weighed(at(7), at(1), ODD71[i]) + weighed(at(3), at(5), ODD35[i]);
    }
    const uint32_t half = 1u << (shift - 1);
    for (int k = 0; k < 4; ++k) {
        const uint32_t a = even[k] + half, b = odd[3 - k];
        out[k * step] = saturated(static_cast<int32_t>(a + b) >> shift);
        out[(7 - k) * step] = saturated(static_cast<int32_t>(a - b) >> shift);
    }
}

}  // namespace

void idct_portable(const TwoBlocks& blocks, TwoTiles* tiles) {
    for (int which = 0; which < 2; ++which) {
        int16_t work[64];
        for (int column = 0; column < 8; ++column)
            pass(blocks.of[which] + column, work + column, 8, BITS - KEPT);
        for (int row = 0; row < 8; ++row) {
            pass(work + 8 * row, work + 8 * row, 1, BITS + KEPT + 3);
            for (int column = 0; column < 8; ++column) {
                const int level = work[8 * row + column] + 128;
                tiles->row[row][8 * which + column] =
                    static_cast<uint8_t>(level < 0 ? 0 : level > 255 ? 255 : level);
            }
        }
    }
}

#if REFIT_X86

namespace {

FAST INLINE __m256i pair(const int16_t by[2]) {
    return _mm256_set1_epi32(packed(by[0], by[1]));
}

// Half of the columns of pass(), each in 32 bits: `r04` holds rows 0 and 4 interleaved, and so on.
FAST INLINE void half_pass(__m256i r04, __m256i r26, __m256i r71, __m256i r35, int shift,
                           __m256i out[8]) {
    __m256i even[4], odd[4];
    for (int i = 0; i < 2; ++i) {
        const __m256i mean = _mm256_add_epi32(_mm256_madd_epi16(r04, pair(EVEN04[i])),
                                              _mm256_set1_epi32(1 << (shift - 1)));
        const __m256i wave = _mm256_madd_epi16(r26, pair(EVEN26[i]));
        even[i] = _mm256_add_epi32(mean, wave);
        even[3 - i] = _mm256_sub_epi32(mean, wave);
    }
    for (int i = 0; i < 4; ++i) {
        odd[i] = _mm256_add_epi32(_mm256_madd_epi16(r71, pair(ODD71[i])),
                                  _mm256_madd_epi16(r35, pair(ODD35[i])));
    }
    for (int k = 0; k < 4; ++k) {
        out[k] = _mm256_srai_epi32(_mm256_add_epi32(even[k], odd[3 - k]), shift);
        out[7 - k] = _mm256_srai_epi32(_mm256_sub_epi32(even[k], odd[3 - k]), shift);
    }
}

FAST INLINE void fast_pass(__m256i r[8], int shift) {
    __m256i low[8], high[8];
    half_pass(_mm256_unpacklo_epi16(r[0], r[4]), _mm256_unpacklo_epi16(r[2], r[6]),
              _mm256_unpacklo_epi16(r[7], r[1]), _mm256_unpacklo_epi16(r[3], r[5]), shift, low);
    half_pass(_mm256_unpackhi_epi16(r[0], r[4]), _mm256_unpackhi_epi16(r[2], r[6]),
              _mm256_unpackhi_epi16(r[7], r[1]), _mm256_unpackhi_epi16(r[3], r[5]), shift, high);
    for (int k = 0; k < 8; ++k) r[k] = _mm256_packs_epi32(low[k], high[k]);
}

// Transposes each half of the registers.
FAST INLINE void transpose(__m256i r[8]) {
    __m256i a[8], b[8];
    for (int k = 0; k < 4; ++k) {
        a[2 * k] = _mm256_unpacklo_epi16(r[2 * k], r[2 * k + 1]);
        a[2 * k + 1] = _mm256_unpackhi_epi16(r[2 * k], r[2 * k + 1]);
    }
    for (int k = 0; k < 2; ++k) {
        b[4 * k] = _mm256_unpacklo_epi32(a[4 * k], a[4 * k + 2]);
        b[4 * k + 1] = _mm256_unpackhi_epi32(a[4 * k], a[4 * k + 2]);
        b[4 * k + 2] = _mm256_unpacklo_epi32(a[4 * k + 1], a[4 * k + 3]);
        b[4 * k + 3] = _mm256_unpackhi_epi32(a[4 * k + 1], a[4 * k + 3]);
    }
    for (int k = 0; k < 4; ++k) {
        r[2 * k] = _mm256_unpacklo_epi64(b[k], b[k + 4]);
        r[2 * k + 1] = _mm256_unpackhi_epi64(b[k], b[k + 4]);
    }
}

}  // namespace

FAST void idct_fast(const TwoBlocks& blocks, TwoTiles* tiles) {
    __m256i r[8];
    for (int k = 0; k < 8; ++k) {  // the first block in the lower half
        const auto* first = reinterpret_cast<const __m128i*>(blocks.of[0] + 8 * k);
        const auto* second = reinterpret_cast<const __m128i*>(blocks.of[1] + 8 * k);
        r[k] = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_load_si128(first)),
                                       _mm_load_si128(second), 1);
    }
    fast_pass(r, BITS - KEPT);
    transpose(r);
    fast_pass(r, BITS + KEPT + 3);
    transpose(r);
    const __m256i sign = _mm256_set1_epi8(static_cast<char>(0x80));
    for (int k = 0; k < 8; k += 2) {
        __m256i rows = _mm256_packs_epi16(r[k], r[k + 1]);  // 1st's two rows, 2nd's two rows
        rows = _mm256_permute4x64_epi64(_mm256_xor_si256(rows, sign), 0xD8);
        _mm256_store_si256(reinterpret_cast<__m256i*>(tiles->row[k]), rows);
    }
}

#endif
