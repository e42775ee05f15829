#include "effects.h"

namespace {

constexpr int CHANNELS = 4;  // of a pixel; the last is unused
constexpr int UNIT_BITS = 8, UNIT = 1 << UNIT_BITS;  // shares, weights and factors are in units of 1 / UNIT
constexpr int MOST_RADIUS = 15;
constexpr int MOST_CONTRAST = 4 * UNIT, MOST_BRIGHTNESS = 255 * UNIT;

// The pixels first to end - 1 that overlap a cell of a row.
struct Cell {
    int first, end;
};

// The cells of a row of `res` pixels; shares[p + k] is pixel p's share in cell k.
void make_cells(int res, int cells, Cell* made, uint16_t* shares) {
    for (int k = 0; k < cells; ++k) {
        made[k] = {k * res / cells, ((k + 1) * res + cells - 1) / cells};
        int before = 0;
        for (int p = made[k].first; p < made[k].end; ++p) {
            const int reached = clamped((p + 1) * cells - k * res, 0, res);
            const int until = (2 * reached * UNIT + res) / (2 * res);
            shares[p + k] = static_cast<uint16_t>(until - before);
            before = until;
        }
    }
}

// Converts a pixel's four channels to 16 bits each, and back.
INLINE uint64_t apart(Pixel pixel) {
    uint64_t made = pixel;
    made = (made | made << 16) & 0x0000FFFF0000FFFF;
    return (made | made << 8) & 0x00FF00FF00FF00FF;
}
INLINE Pixel together(uint64_t channels) {
    channels = (channels | channels >> 8) & 0x0000FFFF0000FFFF;
    return static_cast<Pixel>(channels | channels >> 16);
}

constexpr uint64_t LEVELS = 0x00FF00FF00FF00FF, ONES = 0x0001000100010001;

INLINE void scale_down(const uint8_t* image, int res, int cells, const Cell* cell,
                       const uint16_t* shares, uint16_t* sums, Pixel* row, Pixel* small) {
    const int64_t width = CHANNELS * res;
    auto* bytes = reinterpret_cast<uint8_t*>(row);
    for (int v = 0; v < cells; ++v) {
        for (int j = 0; j < width; ++j) sums[j] = UNIT / 2;
        for (int p = cell[v].first; p < cell[v].end; ++p) {
            const uint16_t share = shares[p + v];
            const uint8_t* line = image + p * width;
            for (int j = 0; j < width; ++j) sums[j] = static_cast<uint16_t>(sums[j] + share * line[j]);
        }
        for (int j = 0; j < width; ++j) bytes[j] = static_cast<uint8_t>(sums[j] >> UNIT_BITS);
        for (int k = 0; k < cells; ++k) {
            uint64_t level = ONES * (UNIT / 2);
            for (int p = cell[k].first; p < cell[k].end; ++p) level += apart(row[p]) * shares[p + k];
            *small++ = together(level >> UNIT_BITS & LEVELS);
        }
    }
}

// Interpolates all channels between two pixels with weights that sum to 64, and rounds.
INLINE uint64_t between(uint64_t first, uint64_t second, int weight) {
    const uint64_t sum = first * static_cast<uint64_t>(WEIGHT - weight) +
                         second * static_cast<uint64_t>(weight) + ONES * (WEIGHT / 2);
    return sum >> WEIGHT_BITS & LEVELS;
}

INLINE void scale_up(const Pixel* small, int cells, int res, const int32_t* places, uint64_t* line,
                     Pixel* image) {
    for (int v = 0; v < res; ++v) {
        const int row = places[v] >> WEIGHT_BITS, weight = places[v] & (WEIGHT - 1);
        const Pixel* above = small + int64_t{row} * cells;
        const Pixel* below = row + 1 < cells ? above + cells : above;
        for (int k = 0; k < cells; ++k) line[k] = between(apart(above[k]), apart(below[k]), weight);
        line[cells] = line[cells - 1];
        for (int u = 0; u < res; ++u) {
            const uint64_t* left = line + (places[u] >> WEIGHT_BITS);
            *image++ = together(between(left[0], left[1], places[u] & (WEIGHT - 1)));
        }
    }
}

// Writes a row of `width` bytes to `to`, the weighted sum of line(-radius) to line(radius).
template <typename Line>
INLINE void weigh(const Line& line, const uint16_t* weights, int radius, int64_t width,
                  uint16_t* sums, uint8_t* to) {
    const uint8_t* middle = line(0);
    for (int j = 0; j < width; ++j)
        sums[j] = static_cast<uint16_t>(weights[0] * middle[j] + UNIT / 2);
    for (int k = 1; k <= radius; ++k) {
        const uint8_t *before = line(-k), *behind = line(k);
        const uint16_t weight = weights[k];
        for (int j = 0; j < width; ++j)
            sums[j] = static_cast<uint16_t>(sums[j] + weight * (before[j] + behind[j]));
    }
    for (int j = 0; j < width; ++j) to[j] = static_cast<uint8_t>(sums[j] >> UNIT_BITS);
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
    return static_cast<Pixel>(
        clamped((contrast * (2 * level - 255) + offset) >> (UNIT_BITS + 1), 0, 255));
}

INLINE void tone(const RefitEffects& wanted, int64_t count, Pixel* image) {
    const int contrast = wanted.contrast, to_gray = wanted.gray ? -1 : 0;
    const int offset = 256 * UNIT + 2 * wanted.brightness;
    for (int64_t u = 0; u < count; ++u) {
        int red = image[u] & 0xFF, green = image[u] >> 8 & 0xFF, blue = image[u] >> 16 & 0xFF;
        const int gray = (77 * red + 150 * green + 29 * blue + 128) >> 8;
        red += (gray - red) & to_gray;
        green += (gray - green) & to_gray;
        blue += (gray - blue) & to_gray;
        image[u] = toned(red, contrast, offset) | toned(green, contrast, offset) << 8 |
                   toned(blue, contrast, offset) << 16;
    }
}

bool is_good(const RefitEffects& wanted, int res) {
    int sum = wanted.blur[0];
    for (int k = 1; k <= MOST_RADIUS; ++k) sum += 2 * wanted.blur[k];
    return wanted.cells >= 1 && wanted.cells <= res && sum == UNIT &&
           wanted.contrast >= 0 && wanted.contrast <= MOST_CONTRAST &&
           wanted.brightness >= -MOST_BRIGHTNESS && wanted.brightness <= MOST_BRIGHTNESS;
}

INLINE void apply(Effects* memory, const RefitEffects& wanted, int radius, int res, Pixel* image) {
    auto* bytes = reinterpret_cast<uint8_t*>(image);
    auto* spare = memory->spare.of<Pixel>(0);
    if (wanted.cells < res) {
        scale_down(bytes, res, wanted.cells, memory->cells.of<Cell>(0), memory->shares.of<uint16_t>(0),
                   memory->sums.of<uint16_t>(0), memory->line.of<Pixel>(0), spare);
        scale_up(spare, wanted.cells, res, memory->places.of<int32_t>(0), memory->line.of<uint64_t>(0),
                 image);
    }
    if (radius > 0)
        blur(wanted.blur, radius, res, memory->sums.of<uint16_t>(0), memory->line.of<uint8_t>(0),
             reinterpret_cast<uint8_t*>(spare), bytes);
    if (wanted.gray || wanted.contrast != UNIT || wanted.brightness != 0)
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
    auto* cells = memory->cells.of<Cell>(res);
    auto* shares = memory->shares.of<uint16_t>(2 * res);
    auto* places = memory->places.of<int32_t>(res);
    if (cells == nullptr || shares == nullptr || places == nullptr ||
        memory->sums.of<uint16_t>(CHANNELS * res) == nullptr ||
        memory->line.of<uint64_t>(res + 2 * MOST_RADIUS) == nullptr ||
        memory->spare.of<Pixel>(int64_t{res} * res) == nullptr)
        return REFIT_NO_MEMORY;
    if (wanted.cells < res) {
        make_cells(res, wanted.cells, cells, shares);
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
