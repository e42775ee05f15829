#include "effects.h"

namespace {

constexpr int CHANNELS = 4;  // of a pixel; the last has any value
constexpr int SHARE_BITS = 12, SHARE = 1 << SHARE_BITS, BLUR_BITS = 8, TONE_BITS = 8;
constexpr int MOST_RADIUS = 15;
constexpr int MOST_CONTRAST = 4 << TONE_BITS, MOST_BRIGHTNESS = 255 << TONE_BITS;

// The pixels first to end - 1 that lie in cell `k`, wholly or in part.
INLINE int first_of(int k, int res, int cells) { return k * res / cells; }
INLINE int end_of(int k, int res, int cells) { return ((k + 1) * res + cells - 1) / cells; }

// shares[p + k]: what pixel p has of cell k.
void make_shares(int res, int cells, uint16_t* shares) {
    for (int k = 0; k < cells; ++k) {
        int before = 0;
        for (int p = first_of(k, res, cells); p < end_of(k, res, cells); ++p) {
            const int reached = clamped((p + 1) * cells - k * res, 0, res);
            const int until = (2 * reached * SHARE + res) / (2 * res);
            shares[p + k] = static_cast<uint16_t>(until - before);
            before = until;
        }
    }
}

INLINE void scale_down(const uint8_t* image, int res, int cells, const uint16_t* shares,
                       uint32_t* sums, uint8_t* small) {
    const int64_t width = CHANNELS * res;
    for (int row = 0; row < cells; ++row) {
        memset(sums, 0, sizeof(uint32_t) * static_cast<size_t>(width));
        for (int p = first_of(row, res, cells); p < end_of(row, res, cells); ++p) {
            const uint32_t share = shares[p + row];
            const uint8_t* line = image + p * width;
            for (int j = 0; j < width; ++j) sums[j] += share * line[j];
        }
        for (int k = 0; k < cells; ++k, small += CHANNELS) {
            uint32_t level[CHANNELS];
            for (uint32_t& one : level) one = SHARE * SHARE / 2;
            for (int p = first_of(k, res, cells); p < end_of(k, res, cells); ++p)
                for (int c = 0; c < CHANNELS; ++c)
                    level[c] += shares[p + k] * sums[CHANNELS * p + c];
            for (int c = 0; c < CHANNELS; ++c)
                small[c] = static_cast<uint8_t>(level[c] >> 2 * SHARE_BITS);
        }
    }
}

INLINE void scale_up(const uint8_t* small, int cells, int res, const int32_t* places, uint16_t* line,
                     uint8_t* image) {
    const int64_t width = CHANNELS * cells;
    for (int v = 0; v < res; ++v) {
        const int row = places[v] >> WEIGHT_BITS, weight = places[v] & (WEIGHT - 1);
        const uint8_t* above = small + row * width;
        const uint8_t* below = row + 1 < cells ? above + width : above;
        for (int j = 0; j < width; ++j)
            line[j] = static_cast<uint16_t>(above[j] * (WEIGHT - weight) + below[j] * weight);
        for (int c = 0; c < CHANNELS; ++c) line[width + c] = line[width - CHANNELS + c];
        for (int u = 0; u < res; ++u, image += CHANNELS) {
            const uint16_t* left = line + CHANNELS * (places[u] >> WEIGHT_BITS);
            const int by = places[u] & (WEIGHT - 1);
            for (int c = 0; c < CHANNELS; ++c) {
                const int sum = left[c] * (WEIGHT - by) + left[CHANNELS + c] * by;
                image[c] = static_cast<uint8_t>((sum + WEIGHT * WEIGHT / 2) >> 2 * WEIGHT_BITS);
            }
        }
    }
}

// A row of `width` bytes to `to`, weighed from line(-radius) … line(radius).
template <typename Line>
INLINE void weigh(const Line& line, const uint16_t* weights, int radius, int64_t width,
                  uint16_t* sums, uint8_t* to) {
    const uint8_t* middle = line(0);
    for (int j = 0; j < width; ++j)
        sums[j] = static_cast<uint16_t>(weights[0] * middle[j] + (1 << (BLUR_BITS - 1)));
    for (int k = 1; k <= radius; ++k) {
        const uint8_t *before = line(-k), *behind = line(k);
        const uint16_t weight = weights[k];
        for (int j = 0; j < width; ++j)
            sums[j] = static_cast<uint16_t>(sums[j] + weight * (before[j] + behind[j]));
    }
    for (int j = 0; j < width; ++j) to[j] = static_cast<uint8_t>(sums[j] >> BLUR_BITS);
}

INLINE void blur(const uint16_t* weights, int radius, int res, uint16_t* sums, uint8_t* line,
                 uint8_t* spare, uint8_t* image) {
    const int64_t width = CHANNELS * res;
    for (int v = 0; v < res; ++v) {
        const auto below = [&](int k) { return image + clamped(v + k, 0, res - 1) * width; };
        weigh(below, weights, radius, width, sums, spare + v * width);
    }
    for (int v = 0; v < res; ++v) {
        const uint8_t* row = spare + v * width;
        memcpy(line + CHANNELS * radius, row, static_cast<size_t>(width));
        for (int k = 0; k < radius; ++k) {
            memcpy(line + CHANNELS * k, row, CHANNELS);
            memcpy(line + width + CHANNELS * (radius + k), row + width - CHANNELS, CHANNELS);
        }
        const auto beside = [&](int k) { return line + CHANNELS * (radius + k); };
        weigh(beside, weights, radius, width, sums, image + v * width);
    }
}

INLINE Pixel toned(int level, int contrast, int offset) {
    return static_cast<Pixel>(clamped((contrast * (2 * level - 255) + offset) >> (TONE_BITS + 1), 0, 255));
}

INLINE void tone(const RefitEffects& wanted, int64_t count, Pixel* image) {
    const int half = 1 << TONE_BITS, contrast = wanted.contrast;
    const int offset = (255 << TONE_BITS) + 2 * wanted.brightness + half;
    for (int64_t u = 0; u < count; ++u) {
        int red = image[u] & 0xFF, green = image[u] >> 8 & 0xFF, blue = image[u] >> 16 & 0xFF;
        const int gray = (77 * red + 150 * green + 29 * blue + 128) >> 8;
        if (wanted.gray) red = green = blue = gray;
        image[u] = toned(red, contrast, offset) | toned(green, contrast, offset) << 8 |
                   toned(blue, contrast, offset) << 16;
    }
}

bool is_good(const RefitEffects& wanted, int res) {
    int sum = wanted.blur[0];
    for (int k = 1; k <= MOST_RADIUS; ++k) sum += 2 * wanted.blur[k];
    return wanted.cells >= 1 && wanted.cells <= res && sum == 1 << BLUR_BITS &&
           wanted.contrast >= 0 && wanted.contrast <= MOST_CONTRAST &&
           wanted.brightness >= -MOST_BRIGHTNESS && wanted.brightness <= MOST_BRIGHTNESS;
}

INLINE void apply(Effects* memory, const RefitEffects& wanted, int radius, int res, Pixel* image) {
    auto* bytes = reinterpret_cast<uint8_t*>(image);
    auto* spare = memory->spare.of<uint8_t>(0);
    if (wanted.cells < res) {
        scale_down(bytes, res, wanted.cells, memory->shares.of<uint16_t>(0),
                   memory->sums.of<uint32_t>(0), spare);
        scale_up(spare, wanted.cells, res, memory->places.of<int32_t>(0),
                 memory->line.of<uint16_t>(0), bytes);
    }
    if (radius > 0)
        blur(wanted.blur, radius, res, memory->sums.of<uint16_t>(0), memory->line.of<uint8_t>(0), spare,
             bytes);
    if (wanted.gray || wanted.contrast != 1 << TONE_BITS || wanted.brightness != 0)
        tone(wanted, int64_t{res} * res, image);
}

#if REFIT_X86
// The same code, compiled for a processor that has AVX2.
FAST void apply_fast(Effects* memory, const RefitEffects& wanted, int radius, int res, Pixel* image) {
    apply(memory, wanted, radius, res, image);
}
#endif

}  // namespace

RefitCode apply_effects(Effects* memory, const RefitEffects& wanted, int res, bool fast,
                        Pixel* image) {
    if (!is_good(wanted, res)) return REFIT_BAD_CALL;
    int radius = MOST_RADIUS;
    while (radius > 0 && wanted.blur[radius] == 0) --radius;
    auto* shares = memory->shares.of<uint16_t>(2 * res);
    auto* places = memory->places.of<int32_t>(res);
    if (shares == nullptr || places == nullptr || memory->sums.of<uint32_t>(CHANNELS * res) == nullptr ||
        memory->line.of<uint16_t>(CHANNELS * (res + 2 * MOST_RADIUS)) == nullptr ||
        memory->spare.of<uint8_t>(int64_t{CHANNELS} * res * res) == nullptr)
        return REFIT_NO_MEMORY;
    if (wanted.cells < res) {
        make_shares(res, wanted.cells, shares);
        for (int u = 0; u < res; ++u) places[u] = place_of(u, res, wanted.cells, 0, wanted.cells);
    }
#if REFIT_X86
    if (fast) {
        apply_fast(memory, wanted, radius, res, image);
        return REFIT_OK;
    }
#endif
    (void)fast;
    apply(memory, wanted, radius, res, image);
    return REFIT_OK;
}
