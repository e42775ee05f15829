#include "finish.h"

#include <cmath>

namespace {

void write_bytes(const Pixel* row, int res, uint8_t* out) {
    for (int u = 0; u < res; ++u)
        for (int c = 0; c < 3; ++c) out[3 * u + c] = static_cast<uint8_t>(row[u] >> 8 * c);
}

float value_of(int level, float factor, float scale, float shift) {
    float whole = static_cast<float>(level) * factor;
    whole = std::floor(whole < 255.0f ? whole : 255.0f);
    whole *= scale;
    return whole - shift;
}

// The nearest bfloat16; of two equally near ones the even one.
uint16_t to_bfloat16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

#if REFIT_X86

FAST void write_bytes_fast(const Pixel* row, int res, uint8_t* out) {
    const __m256i order = _mm256_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1, 0,
                                           1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1);
    const __m256i together = _mm256_setr_epi32(0, 1, 2, 4, 5, 6, 3, 7);
    int u = 0;
    for (; u + 8 <= res; u += 8) {
        __m256i pixels = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + u));
        pixels = _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(pixels, order), together);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 3 * u), _mm256_castsi256_si128(pixels));
        _mm_storel_epi64(reinterpret_cast<__m128i*>(out + 3 * u + 16),
                         _mm256_extracti128_si256(pixels, 1));
    }
    write_bytes(row + u, res - u, out + 3 * u);
}

FAST INLINE __m256 values_of(__m256i pixels, int channel, __m256 factor, __m256 scale, __m256 shift) {
    const __m256i level = _mm256_and_si256(_mm256_srl_epi32(pixels, _mm_cvtsi32_si128(8 * channel)),
                                           _mm256_set1_epi32(0xFF));
    __m256 whole = _mm256_mul_ps(_mm256_cvtepi32_ps(level), factor);
    whole = _mm256_floor_ps(_mm256_min_ps(whole, _mm256_set1_ps(255.0f)));
    return _mm256_sub_ps(_mm256_mul_ps(whole, scale), shift);
}

FAST INLINE __m128i to_bfloat16_fast(__m256 values) {
    const __m256i bits = _mm256_castps_si256(values);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_srli_epi32(
        _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7FFF)), odd), 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
}

// Writes the pixels of all complete groups of eight; returns how many pixels.
FAST int write_plane_fast(const Pixel* row, int res, int channel, float factor, float scale,
                          float shift, float* floats, uint16_t* halves) {
    const __m256 by = _mm256_set1_ps(factor), scales = _mm256_set1_ps(scale);
    const __m256 shifts = _mm256_set1_ps(shift);
    int u = 0;
    for (; u + 8 <= res; u += 8) {
        const __m256i pixels = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + u));
        const __m256 values = values_of(pixels, channel, by, scales, shifts);
        if (floats != nullptr) _mm256_storeu_ps(floats + u, values);
        else _mm_storeu_si128(reinterpret_cast<__m128i*>(halves + u), to_bfloat16_fast(values));
    }
    return u;
}

#endif

void write_plane(const RefitBatch& batch, const RefitSample& sample, int v, int channel, bool fast,
                 const Pixel* row) {
    const int64_t at = (int64_t{channel} * batch.res + v) * batch.res;
    float* floats = batch.image == REFIT_FLOAT32 ? static_cast<float*>(sample.out) + at : nullptr;
    uint16_t* halves =
        batch.image == REFIT_BFLOAT16 ? static_cast<uint16_t*>(sample.out) + at : nullptr;
    const float factor = sample.factors[channel], scale = batch.scale[channel],
                shift = batch.shift[channel];
    int u = 0;
#if REFIT_X86
    if (fast) u = write_plane_fast(row, batch.res, channel, factor, scale, shift, floats, halves);
#endif
    (void)fast;
    for (; u < batch.res; ++u) {
        const float value = value_of(row[u] >> 8 * channel & 0xFF, factor, scale, shift);
        if (floats != nullptr) floats[u] = value;
        else halves[u] = to_bfloat16(value);
    }
}

}  // namespace

void write_row(const RefitBatch& batch, const RefitSample& sample, int v, bool fast,
               const Pixel* row) {
    if (batch.image != REFIT_UINT8) {
        for (int c = 0; c < 3; ++c) write_plane(batch, sample, v, c, fast, row);
        return;
    }
    uint8_t* out = static_cast<uint8_t*>(sample.out) + int64_t{v} * batch.res * 3;
#if REFIT_X86
    if (fast) return write_bytes_fast(row, batch.res, out);
#endif
    write_bytes(row, batch.res, out);
}
