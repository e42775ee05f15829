// Drawing the images of a batch.
#include <new>

#include "api.h"
#include "decode.h"
#include "effects.h"
#include "finish.h"
#include "map.h"
#include "occlude.h"
#include "threads.h"
#include "warp.h"

namespace {

constexpr int MOST_RES = 4096, MOST_THREADS = 256;

// Scratch memory of one thread.
struct Worker {
    Decoder decoder;
    Occluder occluder;
    Effects effects;
    Buffer bounds[2], rows;

    void shrink() {
        Buffer* all[] = {&decoder.begins, &decoder.luma, &decoder.chroma, &bounds[0],
                         &bounds[1],      &rows,         &effects.spare};
        for (Buffer* one : all) one->shrink();
    }
};

struct Workspace {
    int threads;
    Worker* workers;
};

// Decodes the visible part of a sample; the planes are empty if nothing is visible. NOT_OURS: another decoder is
// needed.
RefitCode decode(Worker* worker, const RefitSample& sample, const Map& map, int res, bool fast,
                 Planes* planes, int64_t* detail) {
    const Header* header = find_header(&worker->decoder, sample.jpeg, sample.jpeg_length);
    if (header == nullptr) return REFIT_NOT_OURS;
    Region region;
    if (!find_region(map, res, sample.height, sample.width, worker->bounds, &region))
        return region.first == nullptr ? REFIT_NO_MEMORY : REFIT_OK;
    return decode_region(&worker->decoder, *header, sample.jpeg, sample.jpeg_length, sample.height,
                         sample.width, region, fast, planes, detail);
}

RefitCode draw(Worker* worker, const RefitBatch& batch, RefitSample* sample) {
    const bool fast = !batch.portable && has_avx2();
    const int res = batch.res;
    sample->detail = 0;
    if (sample->height < 1 || sample->width < 1 || sample->height > MAX_SIDE ||
        sample->width > MAX_SIDE || sample->jpeg_length < 0)
        return REFIT_BAD_MAP;
    if (int64_t{sample->height} * sample->width > MAX_PIXELS) return REFIT_TOO_LARGE;
    Map map;
    if (!make_map(sample->map, sample->height, sample->width, &map)) return REFIT_BAD_MAP;
    Planes planes;
    RefitCode code = REFIT_OK;
    if (sample->rgb == nullptr)
        code = decode(worker, *sample, map, res, fast, &planes, &sample->detail);
    if (code == REFIT_OK) code = place(&worker->occluder, batch, *sample);
    // Row by row while it is in the processor's cache; all rows at once if effects change the whole image.
    const RefitEffects* effects = sample->effects;
    auto* rows = worker->rows.of<Pixel>(effects == nullptr ? res : int64_t{res} * res);
    if (rows == nullptr) code = REFIT_NO_MEMORY;
    if (code != REFIT_OK) return code;
    for (int v = 0; v < res; ++v) {
        Pixel* row = effects == nullptr ? rows : rows + int64_t{v} * res;
        if (sample->rgb != nullptr)
            warp_row_rgb(sample->rgb, sample->height, sample->width, map, res, v, row);
        else if (planes.luma != nullptr)
            warp_row(planes, map, res, v, fast, row);
        else
            memset(row, 0, sizeof(Pixel) * static_cast<size_t>(res));
        blend_row(&worker->occluder, v, fast, row);
        if (effects == nullptr) write_row(batch, *sample, v, fast, row);
    }
    if (effects == nullptr) return REFIT_OK;
    code = apply_effects(&worker->effects, *effects, res, fast, rows);
    for (int v = 0; v < res && code == REFIT_OK; ++v)
        write_row(batch, *sample, v, fast, rows + int64_t{v} * res);
    return code;
}

}  // namespace

void* refit_open(int32_t threads) {
    if (threads < 1 || threads > MOST_THREADS) return nullptr;
    auto* space = static_cast<Workspace*>(malloc(sizeof(Workspace)));
    if (space == nullptr) return nullptr;
    *space = {threads, static_cast<Worker*>(malloc(sizeof(Worker) * static_cast<size_t>(threads)))};
    if (space->workers == nullptr) {
        free(space);
        return nullptr;
    }
    for (int k = 0; k < threads; ++k) new (&space->workers[k]) Worker;
    return space;
}

void refit_close(void* workspace) {
    auto* space = static_cast<Workspace*>(workspace);
    for (int k = 0; k < space->threads; ++k) space->workers[k].~Worker();
    free(space->workers);
    free(space);
}

void refit_draw(void* workspace, const RefitBatch* batch) {
    auto& space = *static_cast<Workspace*>(workspace);
    const bool good = batch->res >= 1 && batch->res <= MOST_RES && batch->image >= REFIT_UINT8 &&
                      batch->image <= REFIT_BFLOAT16;
    spread(batch->count, space.threads, [&](int64_t item, int thread) {
        RefitSample& sample = batch->samples[item];
        sample.code = good ? draw(&space.workers[thread], *batch, &sample) : REFIT_BAD_CALL;
        space.workers[thread].shrink();
    });
}

int32_t refit_planes(void* workspace, const uint8_t* jpeg, int64_t length, int32_t height,
                     int32_t width, int32_t portable, uint8_t* luma, uint8_t* chroma,
                     int64_t* detail) {
    Worker& worker = static_cast<Workspace*>(workspace)->workers[0];
    const double all[6] = {1, 0, 0, 0, 1, 0};  // the identity: the whole image
    *detail = 0;
    if (height < 1 || width < 1 || height > MOST_RES || width > MOST_RES) return REFIT_TOO_LARGE;
    const Header* header = find_header(&worker.decoder, jpeg, length);
    if (header == nullptr) return REFIT_NOT_OURS;
    Map map;
    Region region;
    Planes planes;
    make_map(all, height, width, &map);
    if (!find_region(map, height > width ? height : width, height, width, worker.bounds, &region))
        return REFIT_NO_MEMORY;
    const RefitCode code = decode_region(&worker.decoder, *header, jpeg, length, height, width, region,
                                         !portable && has_avx2(), &planes, detail);
    if (code != REFIT_OK) return code;
    for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x)
            luma[int64_t{y} * width + x] =
                static_cast<uint8_t>(planes.luma[int64_t{y} * planes.luma_stride + x]);
    const int columns = (width + 1) / 2;
    for (int y = 0; y < (height + 1) / 2; ++y)
        memcpy(chroma + int64_t{y} * columns * 2, planes.chroma + int64_t{y} * planes.chroma_stride * 2,
               static_cast<size_t>(columns) * 2);
    return REFIT_OK;
}

int64_t refit_size(int32_t which) {
    constexpr int64_t sizes[] = {sizeof(RefitRead),  sizeof(RefitSample), sizeof(RefitCutOut),
                                 sizeof(RefitPaste), sizeof(RefitBatch),  sizeof(RefitSpan),
                                 sizeof(RefitEffects), REFIT_SLACK};
    return which >= 0 && which < 8 ? sizes[which] : -1;
}

int32_t refit_has_avx2() { return has_avx2(); }
