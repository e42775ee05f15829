#include "warp.h"

namespace {

constexpr int CHROMA_BITS = 4;  // fractional bits that chroma keeps
constexpr int COLOUR_BITS = 14;
constexpr int16_t RED_CR = 22970, GREEN_CB = -5638, GREEN_CR = -11700, BLUE_CB = 29032;
constexpr int ALL_BITS = COLOUR_BITS + CHROMA_BITS, LUMA_SHIFT = ALL_BITS - 2 * WEIGHT_BITS;

// A map to pixel coordinates of the planes; half a step of the weights is added, for rounding.
struct Local {
    int64_t xu, xv, x0, yu, yv, y0;
    int bits;
    int64_t chroma;  // added to a luma coordinate to get the chroma coordinate, with one more fractional bit
};

Local local_map(const Map& map, int left, int top) {
    const int64_t half = int64_t{1} << (map.bits - WEIGHT_BITS - 1);
    Local to{map.xu, map.xv, map.x0, map.yu, map.yv, map.y0, map.bits, 0};
    to.x0 += half - (int64_t{left} << map.bits);
    to.y0 += half - (int64_t{top} << map.bits);
    to.chroma = half - (int64_t{1} << (map.bits - 1));  // 2 * half - half - 0.5 px
    return to;
}

// Along one axis: the two samples around a coordinate, and the second one's weight in 64ths.
struct Axis {
    int first, second, weight;
};

Axis axis_of(int64_t place, int bits) {
    const int first = static_cast<int>(place >> bits);
    return {first, first + 1, static_cast<int>(place >> (bits - WEIGHT_BITS)) & (WEIGHT - 1)};
}

// The weights of the two samples, in 64ths; samples outside `low` to `high` get 0.
struct Weights {
    int first, second;
};

Weights weights_of(const Axis& axis, int low, int high) {
    return {axis.first >= low && axis.first <= high ? WEIGHT - axis.weight : 0,
            axis.second >= low && axis.second <= high ? axis.weight : 0};
}

Pixel coloured(int32_t luma, int cb, int cr) {
    const int32_t rounded = (luma << LUMA_SHIFT) + (1 << (ALL_BITS - 1));
    const int red = (rounded + cr * RED_CR) >> ALL_BITS;
    const int green = (rounded + cb * GREEN_CB + cr * GREEN_CR) >> ALL_BITS;
    const int blue = (rounded + cb * BLUE_CB) >> ALL_BITS;
    return static_cast<Pixel>(clamped(red, 0, 255) | clamped(green, 0, 255) << 8 |
                              clamped(blue, 0, 255) << 16);
}

// One pixel; its coordinates, as in Local, may be up to a pixel outside the crop.
Pixel pixel_at(const Planes& planes, const Local& map, int64_t px, int64_t py) {
    const Axis x = axis_of(px, map.bits), y = axis_of(py, map.bits);
    const int right = planes.width - planes.left, bottom = planes.height - planes.top;
    const Weights wx = weights_of(x, -planes.left, right - 1);
    const Weights wy = weights_of(y, -planes.top, bottom - 1);
    // A sample with a weight above 0 was decoded, if the region is right.
    const auto luma = [&](int column, int row) {
        return static_cast<int>(planes.luma[int64_t{clamped(row, 0, planes.rows - 1)} *
                                                planes.luma_stride +
                                            clamped(column, 0, planes.columns - 1)] &
                                0xFF);
    };
    const int32_t level =
        wy.first * (wx.first * luma(x.first, y.first) + wx.second * luma(x.second, y.first)) +
        wy.second * (wx.first * luma(x.first, y.second) + wx.second * luma(x.second, y.second));
    const Axis cx = axis_of(px + map.chroma, map.bits + 1);
    const Axis cy = axis_of(py + map.chroma, map.bits + 1);
    const int last_column = clamped((right + 1) / 2, 1, planes.columns / 2) - 1;
    const int last_row = clamped((bottom + 1) / 2, 1, planes.rows / 2) - 1;
    const int covered = (wx.first + wx.second) * (wy.first + wy.second);
    int colour[2];
    for (int which = 0; which < 2; ++which) {
        const auto along = [&](int row) {
            const uint8_t* line =
                planes.chroma + 2 * int64_t{clamped(row, 0, last_row)} * planes.chroma_stride + which;
            const int sum = (WEIGHT - cx.weight) * line[2 * clamped(cx.first, 0, last_column)] +
                            cx.weight * line[2 * clamped(cx.second, 0, last_column)];
            return (sum + 2) >> 2;
        };
        const int above = along(cy.first), below = along(cy.second);
        const int mean = above + (((below - above) * cy.weight + WEIGHT / 2) >> WEIGHT_BITS);
        const int faded = (mean - (128 << CHROMA_BITS)) * covered;
        colour[which] = (faded + WEIGHT * WEIGHT / 2) >> 2 * WEIGHT_BITS;
    }
    return coloured(level, colour[0], colour[1]);
}

#if REFIT_X86

// The numbers 64 - weight and weight in one integer, the second shifted left by `by` bits.
FAST INLINE __m256i pair_of(__m256i weight, int by) {
    const __m256i high = _mm256_slli_epi32(weight, by);
    return _mm256_sub_epi32(_mm256_add_epi32(_mm256_set1_epi32(WEIGHT), high), weight);
}

FAST INLINE __m256i byte_weights(__m256i weight) {
    const __m256i pair = pair_of(weight, 8);
    return _mm256_or_si256(pair, _mm256_slli_epi32(pair, 16));
}

// Cb and Cr of one chroma row at eight coordinates, with 4 fractional bits.
FAST INLINE __m256i chroma_along(const int* row, __m256i at, __m256i weights) {
    const __m256i order = _mm256_broadcastsi128_si256(  // Cb, Cb, Cr, Cr of each coordinate
        _mm_setr_epi8(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15));
    const __m256i samples = _mm256_shuffle_epi8(_mm256_i32gather_epi32(row, at, 2), order);
    const __m256i sum = _mm256_maddubs_epi16(samples, weights);
    return _mm256_srli_epi16(_mm256_add_epi16(sum, _mm256_set1_epi16(2)), 2);
}

FAST INLINE __m256i channel(__m256i luma, __m256i colour, int16_t cb, int16_t cr) {
    const __m256i factors = _mm256_set1_epi32(packed(cb, cr));
    return _mm256_srai_epi32(_mm256_add_epi32(luma, _mm256_madd_epi16(colour, factors)), ALL_BITS);
}

struct Fast {
    __m128i bits, weight_bits, chroma_bits, chroma_weight_bits;
    __m256i chroma, luma_stride, chroma_stride;
};

// pixel_at() for eight pixels whose neighbours are all inside the planes.
FAST INLINE void eight(const Planes& planes, const Fast& fast, __m256i x, __m256i y, Pixel* out) {
    const __m256i low6 = _mm256_set1_epi32(WEIGHT - 1);
    const __m256i wx = _mm256_and_si256(_mm256_srl_epi32(x, fast.weight_bits), low6);
    const __m256i wy = _mm256_and_si256(_mm256_srl_epi32(y, fast.weight_bits), low6);
    const __m256i at = _mm256_add_epi32(
        _mm256_mullo_epi32(_mm256_srl_epi32(y, fast.bits), fast.luma_stride),
        _mm256_srl_epi32(x, fast.bits));
    // (x, y), (x, y + 1), (x + 1, y), (x + 1, y + 1)
    const __m256i four = _mm256_i32gather_epi32(reinterpret_cast<const int*>(planes.luma), at, 2);
    const __m256i columns = _mm256_maddubs_epi16(four, byte_weights(wy));
    const __m256i luma = _mm256_madd_epi16(columns, pair_of(wx, 16));

    const __m256i cx = _mm256_add_epi32(x, fast.chroma), cy = _mm256_add_epi32(y, fast.chroma);
    const __m256i cwx = _mm256_and_si256(_mm256_srl_epi32(cx, fast.chroma_weight_bits), low6);
    const __m256i cwy = _mm256_and_si256(_mm256_srl_epi32(cy, fast.chroma_weight_bits), low6);
    const __m256i cat = _mm256_add_epi32(
        _mm256_mullo_epi32(_mm256_srl_epi32(cy, fast.chroma_bits), fast.chroma_stride),
        _mm256_srl_epi32(cx, fast.chroma_bits));
    const auto* first = reinterpret_cast<const int*>(planes.chroma);
    const auto* second = reinterpret_cast<const int*>(planes.chroma + 2 * planes.chroma_stride);
    const __m256i above = chroma_along(first, cat, byte_weights(cwx));
    const __m256i below = chroma_along(second, cat, byte_weights(cwx));
    // (difference * 512 weight + 2^14) >> 15 is (difference * weight + 32) >> 6.
    const __m256i by = _mm256_slli_epi16(_mm256_or_si256(cwy, _mm256_slli_epi32(cwy, 16)), 9);
    const __m256i mean =
        _mm256_add_epi16(above, _mm256_mulhrs_epi16(_mm256_sub_epi16(below, above), by));
    const __m256i colour = _mm256_sub_epi16(mean, _mm256_set1_epi16(128 << CHROMA_BITS));

    const __m256i rounded = _mm256_add_epi32(_mm256_slli_epi32(luma, LUMA_SHIFT),
                                             _mm256_set1_epi32(1 << (ALL_BITS - 1)));
    const __m256i red = channel(rounded, colour, 0, RED_CR);
    const __m256i green = channel(rounded, colour, GREEN_CB, GREEN_CR);
    const __m256i blue = channel(rounded, colour, BLUE_CB, 0);
    const __m256i bytes = _mm256_packus_epi16(_mm256_packs_epi32(red, green),
                                              _mm256_packs_epi32(blue, _mm256_setzero_si256()));
    const __m256i interleave = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_shuffle_epi8(bytes, interleave));
}

// Pixels `first` to `end` - 1, at least 8; the last eight may be computed twice.
FAST void warp_inside(const Planes& planes, const Local& map, int64_t px, int64_t py, int first,
                      int end, Pixel* out) {
    const Fast fast{_mm_cvtsi32_si128(map.bits),
                    _mm_cvtsi32_si128(map.bits - WEIGHT_BITS),
                    _mm_cvtsi32_si128(map.bits + 1),
                    _mm_cvtsi32_si128(map.bits + 1 - WEIGHT_BITS),
                    _mm256_set1_epi32(static_cast<int>(map.chroma)),
                    _mm256_set1_epi32(planes.luma_stride),
                    _mm256_set1_epi32(planes.chroma_stride)};
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const auto xu = static_cast<int>(map.xu), yu = static_cast<int>(map.yu);
    const __m256i dx = _mm256_mullo_epi32(lanes, _mm256_set1_epi32(xu));
    const __m256i dy = _mm256_mullo_epi32(lanes, _mm256_set1_epi32(yu));
    for (int u = first; u < end; u += 8) {
        if (u > end - 8) u = end - 8;
        const __m256i x = _mm256_add_epi32(_mm256_set1_epi32(static_cast<int>(px + map.xu * u)), dx);
        const __m256i y = _mm256_add_epi32(_mm256_set1_epi32(static_cast<int>(py + map.yu * u)), dy);
        eight(planes, fast, x, y, out + u);
    }
}

#endif

// The range of pixels whose luma and chroma neighbours are all inside the plane and the crop.
void clip_inside(const Local& map, int64_t begin, int64_t step, int size, int* first, int* end) {
    const int64_t high_luma = int64_t{size - 1} << map.bits;
    const int64_t high_chroma = (int64_t{(size + 1) / 2 - 1} << (map.bits + 1)) - map.chroma;
    const int64_t low = map.chroma < 0 ? -map.chroma : 0;
    clip(begin, step, low, high_luma < high_chroma ? high_luma : high_chroma, first, end);
}

int least(int a, int b) { return a < b ? a : b; }

}  // namespace

void warp_row(const Planes& planes, const Map& whole, int res, int v, bool fast, Pixel* out) {
    const Local map = local_map(whole, planes.left, planes.top);
    const int64_t px = map.xv * v + map.x0, py = map.yv * v + map.y0;
    const int64_t one = int64_t{1} << map.bits;
    const int right = planes.width - planes.left, bottom = planes.height - planes.top;
    int first = 0, end = res;  // the pixels that show the crop
    clip(px, map.xu, -one - planes.left * one, right * one, &first, &end);
    clip(py, map.yu, -one - planes.top * one, bottom * one, &first, &end);
    int from = first, to = end;  // the pixels whose neighbours are all inside
#if REFIT_X86
    if (fast) {
        clip_inside(map, px, map.xu, least(right, planes.columns), &from, &to);
        clip_inside(map, py, map.yu, least(bottom, planes.rows), &from, &to);
        if (to - from < 8) to = from;
        else warp_inside(planes, map, px, py, from, to, out);
    } else
#endif
        to = from;
    memset(out, 0, sizeof(Pixel) * static_cast<size_t>(first));
    for (int u = first; u < from; ++u) out[u] = pixel_at(planes, map, px + map.xu * u, py + map.yu * u);
    for (int u = to; u < end; ++u) out[u] = pixel_at(planes, map, px + map.xu * u, py + map.yu * u);
    memset(out + end, 0, sizeof(Pixel) * static_cast<size_t>(res - end));
    (void)fast;
}

void warp_row_rgb(const uint8_t* rgb, int height, int width, const Map& whole, int res, int v,
                  Pixel* out) {
    const Local map = local_map(whole, 0, 0);
    const int64_t px = map.xv * v + map.x0, py = map.yv * v + map.y0;
    const int64_t one = int64_t{1} << map.bits;
    int first = 0, end = res;
    clip(px, map.xu, -one, width * one, &first, &end);
    clip(py, map.yu, -one, height * one, &first, &end);
    memset(out, 0, sizeof(Pixel) * static_cast<size_t>(res));
    for (int u = first; u < end; ++u) {
        const Axis x = axis_of(px + map.xu * u, map.bits), y = axis_of(py + map.yu * u, map.bits);
        const Weights wx = weights_of(x, 0, width - 1), wy = weights_of(y, 0, height - 1);
        const auto line = [&](int row) {
            return rgb + int64_t{clamped(row, 0, height - 1)} * width * 3;
        };
        const uint8_t *above = line(y.first), *below = line(y.second);
        const int left = 3 * clamped(x.first, 0, width - 1);
        const int right = 3 * clamped(x.second, 0, width - 1);
        for (int c = 0; c < 3; ++c) {
            const int sum = wy.first * (wx.first * above[left + c] + wx.second * above[right + c]) +
                            wy.second * (wx.first * below[left + c] + wx.second * below[right + c]);
            const int level = (sum + WEIGHT * WEIGHT / 2) >> 2 * WEIGHT_BITS;
            out[u] |= static_cast<Pixel>(level) << 8 * c;
        }
    }
}
