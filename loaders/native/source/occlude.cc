#include "occlude.h"

#include <cmath>

namespace {

constexpr double MOST_SIDE = 1 << 20;  // the largest side of a cut-out on the output, px
constexpr double FARTHEST = 1 << 30;   // the largest distance of its centre from the output, px

// A cut-out's first column or row on the output, and their number; false if out of bounds.
bool span(double middle, double size, int source, int64_t* begin, int64_t* count) {
    const double sides = std::rint(source * size);
    if (!(sides <= MOST_SIDE) || !(std::fabs(middle) <= FARTHEST)) return false;
    *count = sides < 1 ? 1 : static_cast<int64_t>(sides);
    *begin = static_cast<int64_t>(std::rint(middle - static_cast<double>(*count) / 2));
    return true;
}

int bounded(int64_t value, int high) {
    return value < 0 ? 0 : value > high ? high : static_cast<int>(value);
}

bool place_one(const RefitCutOut& cut_out, const RefitPaste& paste, int res, int32_t* places,
               Placed* to) {
    int64_t left, width;
    if (!span(paste.x, paste.size, cut_out.width, &left, &width)) return false;
    if (!span(paste.y, paste.size, cut_out.height, &to->begin, &to->height)) return false;
    int level = 0;
    while (level + 1 < cut_out.levels && cut_out.width >> (level + 1) >= width &&
           cut_out.height >> (level + 1) >= to->height)
        ++level;
    to->rgba = cut_out.level[level];
    to->columns = cut_out.width >> level;
    to->rows = cut_out.height >> level;
    to->left = bounded(left, res);
    to->right = bounded(left + width, res);
    to->top = bounded(to->begin, res);
    to->bottom = bounded(to->begin + to->height, res);
    to->level = level;
    to->source_height = cut_out.height;
    to->at = places;
    if (to->left >= to->right) to->bottom = to->top;  // it is outside the output
    if (to->top >= to->bottom) return true;
    for (int u = to->left; u < to->right; ++u)
        places[u] = place_of(u - left, width, cut_out.width, level, to->columns);
    to->first = places[to->left] >> WEIGHT_BITS;
    to->end = (places[to->right - 1] >> WEIGHT_BITS) + 2;
    if (to->end > to->columns) to->end = to->columns;
    return true;
}

// Interpolates between the level's two rows nearest to an output row; gives 64 times each channel.
INLINE void mix_rows(const Placed& one, int32_t place, uint16_t* line) {
    const int row = place >> WEIGHT_BITS, weight = place & (WEIGHT - 1);
    const int64_t stride = int64_t{one.columns} * 4;
    const uint8_t* above = one.rgba + row * stride;
    const uint8_t* below = row + 1 < one.rows ? above + stride : above;
    for (int k = 4 * one.first; k < 4 * one.end; ++k)
        line[k] = static_cast<uint16_t>(above[k] * (WEIGHT - weight) + below[k] * weight);
    for (int k = 4 * one.end; k < 4 * one.end + 4; ++k) line[k] = line[k - 4];
}

INLINE Pixel blended(const uint16_t* two, int weight, Pixel under) {
    int level[4];
    for (int c = 0; c < 4; ++c) {
        const int sum = two[c] * (WEIGHT - weight) + two[4 + c] * weight;
        level[c] = (sum + WEIGHT * WEIGHT / 2) >> 2 * WEIGHT_BITS;
    }
    Pixel made = 0;
    for (int c = 0; c < 3; ++c) {
        const int old = under >> 8 * c & 0xFF;
        const int sum = level[c] * level[3] + old * (255 - level[3]) + 128;
        made |= static_cast<Pixel>((sum + (sum >> 8)) >> 8) << 8 * c;
    }
    return made;
}

void blend_portable(const Placed& one, int32_t place, uint16_t* line, Pixel* row) {
    mix_rows(one, place, line);
    for (int u = one.left; u < one.right; ++u) {
        const int at = one.at[u];
        row[u] = blended(line + 4 * (at >> WEIGHT_BITS), at & (WEIGHT - 1), row[u]);
    }
}

#if REFIT_X86
FAST void blend_fast(const Placed& one, int32_t place, uint16_t* line, Pixel* row) {
    mix_rows(one, place, line);
    const __m128i half = _mm_set1_epi32(WEIGHT * WEIGHT / 2), rounding = _mm_set1_epi32(128);
    for (int u = one.left; u < one.right; ++u) {
        const int at = one.at[u], weight = at & (WEIGHT - 1);
        const __m128i two = _mm_loadu_si128(
            reinterpret_cast<const __m128i*>(line + 4 * (at >> WEIGHT_BITS)));
        const __m128i pairs = _mm_unpacklo_epi16(two, _mm_srli_si128(two, 8));
        const __m128i weights = _mm_set1_epi32(WEIGHT - weight + weight * 65536);
        const __m128i level = _mm_srli_epi32(
            _mm_add_epi32(_mm_madd_epi16(pairs, weights), half), 2 * WEIGHT_BITS);
        const __m128i alpha = _mm_shuffle_epi32(level, 0xFF);
        const __m128i rest = _mm_sub_epi32(_mm_set1_epi32(255), alpha);
        const __m128i under = _mm_cvtepu8_epi32(_mm_cvtsi32_si128(static_cast<int>(row[u])));
        const __m128i colours = _mm_or_si128(level, _mm_slli_epi32(under, 16));
        const __m128i shares = _mm_or_si128(alpha, _mm_slli_epi32(rest, 16));
        __m128i sum = _mm_add_epi32(_mm_madd_epi16(colours, shares), rounding);
        sum = _mm_srli_epi32(_mm_add_epi32(sum, _mm_srli_epi32(sum, 8)), 8);
        const __m128i bytes = _mm_packus_epi16(_mm_packs_epi32(sum, sum), sum);
        row[u] = static_cast<Pixel>(_mm_cvtsi128_si32(bytes)) & 0xFFFFFF;
    }
}
#endif

}  // namespace

RefitCode place(Occluder* occluder, const RefitBatch& batch, const RefitSample& sample) {
    occluder->count = 0;
    if (sample.pastes == 0) return REFIT_OK;
    if (sample.pastes < 0 || sample.pastes > MOST_PASTES || sample.first_paste < 0 ||
        sample.first_paste > batch.paste_count - sample.pastes)
        return REFIT_BAD_CALL;
    auto* places = occluder->places.of<int32_t>(int64_t{sample.pastes} * batch.res);
    if (places == nullptr) return REFIT_NO_MEMORY;
    int widest = 0;
    for (int k = 0; k < sample.pastes; ++k, places += batch.res) {
        const RefitPaste& paste = batch.pastes[sample.first_paste + k];
        if (paste.cut_out < 0 || paste.cut_out >= batch.cut_out_count) return REFIT_BAD_CALL;
        Placed& to = occluder->placed[occluder->count];
        if (!place_one(batch.cut_outs[paste.cut_out], paste, batch.res, places, &to))
            return REFIT_BAD_CALL;
        if (to.top >= to.bottom) continue;
        ++occluder->count;
        if (to.columns > widest) widest = to.columns;
    }
    if (occluder->line.of<uint16_t>(4 * int64_t{widest} + 16) == nullptr) return REFIT_NO_MEMORY;
    return REFIT_OK;
}

void blend_row(Occluder* occluder, int v, bool fast, Pixel* row) {
    auto* line = occluder->line.of<uint16_t>(0);
    for (int k = 0; k < occluder->count; ++k) {
        const Placed& one = occluder->placed[k];
        if (v < one.top || v >= one.bottom) continue;
        const int32_t at = place_of(v - one.begin, one.height, one.source_height, one.level, one.rows);
#if REFIT_X86
        if (fast) {
            blend_fast(one, at, line, row);
            continue;
        }
#endif
        (void)fast;
        blend_portable(one, at, line, row);
    }
}
