#include "map.h"

#include <cmath>
#include <initializer_list>

namespace {

constexpr double FARTHEST = 1e9;  // px
constexpr int MOST_BITS = 20;
// Stored pixels around a coordinate that its colour depends on: 1 for luma and 1.5 for chroma, whose
// samples are 2 px apart; plus half a pixel for rounding.
constexpr double REACH = 2.0;

struct Point {
    double x, y;
};

// Widens each row's smallest and largest x by the part of an edge inside the row's band.
void add_edge(Point from, Point to, int rows, double* low, double* high) {
    if (from.y > to.y) {
        const Point other = from;
        from = to;
        to = other;
    }
    const double steps = to.y - from.y;
    const double begin = std::floor((from.y - REACH - (MCU - 1)) / MCU);
    const double end = std::floor((to.y + REACH) / MCU);
    const int first = begin < 0 ? 0 : begin > rows ? rows : static_cast<int>(begin);
    const int last = end < -1 ? -1 : end > rows - 1 ? rows - 1 : static_cast<int>(end);
    for (int row = first; row <= last; ++row) {
        const double top = std::fmax(row * MCU - REACH, from.y);
        const double bottom = std::fmin(row * MCU + (MCU - 1) + REACH, to.y);
        if (top > bottom) continue;
        const double begun = steps > 0 ? (top - from.y) / steps : 0.0;
        const double done = steps > 0 ? (bottom - from.y) / steps : 1.0;
        for (const double part : {begun, done}) {
            const double x = from.x + part * (to.x - from.x);
            low[row] = std::fmin(low[row], x);
            high[row] = std::fmax(high[row], x);
        }
    }
}

}  // namespace

bool make_map(const double affine[6], int height, int width, Map* map) {
    for (int k = 0; k < 6; ++k)
        if (!(std::fabs(affine[k]) < FARTHEST)) return false;
    map->bits = MOST_BITS;
    const int side = (height > width ? height : width) + 2 * MCU;
    while (int64_t{side} << map->bits > INT32_MAX) --map->bits;
    const double one = static_cast<double>(int64_t{1} << map->bits);
    map->xu = std::llround(affine[0] * one);
    map->xv = std::llround(affine[1] * one);
    map->x0 = std::llround(affine[2] * one);
    map->yu = std::llround(affine[3] * one);
    map->yv = std::llround(affine[4] * one);
    map->y0 = std::llround(affine[5] * one);
    return true;
}

void clip(int64_t begin, int64_t step, int64_t low, int64_t high, int* first, int* end) {
    const int64_t last = begin + step * (*end - 1), start = begin + step * *first;
    if (start >= low && start < high && last >= low && last < high) return;
    if (step == 0) {
        *end = *first;
        return;
    }
    // The u where the lower bound is reached and the upper bound passed, or the reverse.
    const int64_t from = step > 0 ? -floor_divided(begin - low, step)
                                  : floor_divided(begin - high, -step) + 1;
    const int64_t to = step > 0 ? -floor_divided(begin - high, step)
                                : floor_divided(begin - low, -step) + 1;
    if (from > *first) *first = static_cast<int>(from < *end ? from : *end);
    if (to < *end) *end = static_cast<int>(to > *first ? to : *first);
}

bool find_region(const Map& map, int res, int height, int width, Buffer memory[2], Region* region) {
    const int rows = (height + MCU - 1) / MCU, columns = (width + MCU - 1) / MCU;
    auto* bounds = memory[0].of<double>(2 * rows);
    region->first = memory[1].of<int32_t>(2 * rows);
    if (bounds == nullptr || region->first == nullptr) {
        region->first = nullptr;
        return false;
    }
    double *low = bounds, *high = bounds + rows;
    for (int row = 0; row < rows; ++row) low[row] = 1e300, high[row] = -1e300;
    Point corners[4];
    const double one = static_cast<double>(int64_t{1} << map.bits);
    const int64_t last = res - 1;
    for (int corner = 0; corner < 4; ++corner) {
        const int64_t u = corner == 1 || corner == 2 ? last : 0, v = corner >= 2 ? last : 0;
        corners[corner] = {static_cast<double>(map.xu * u + map.xv * v + map.x0) / one,
                           static_cast<double>(map.yu * u + map.yv * v + map.y0) / one};
    }
    for (int corner = 0; corner < 4; ++corner)
        add_edge(corners[corner], corners[(corner + 1) % 4], rows, low, high);
    region->top = rows;
    region->bottom = 0;
    region->left = columns;
    region->right = 0;
    for (int row = 0; row < rows; ++row) {
        const double first = std::floor((low[row] - REACH) / MCU);
        const double end = std::floor((high[row] + REACH) / MCU);
        if (first > end || end < 0 || first > columns - 1) {
            if (region->top < rows) break;  // the rows of a convex shape are adjacent
            continue;
        }
        if (row < region->top) region->top = row;
        const int from = first < 0 ? 0 : static_cast<int>(first);
        const int to = end > columns - 1 ? columns - 1 : static_cast<int>(end);
        region->first[row - region->top] = from;
        region->first[rows + row - region->top] = to;
        region->bottom = row + 1;
        if (from < region->left) region->left = from;
        if (to >= region->right) region->right = to + 1;
    }
    region->last = region->first + rows;
    return region->bottom > 0;
}
