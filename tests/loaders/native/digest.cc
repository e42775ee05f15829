// Reads and draws the batch of a file that digest.py wrote; writes the images to stdout, and the path
// that was taken to stderr:
//
//     digest FILE IMAGE PORTABLE THREADS
//
// A pointer in the file is a place in it, counted from its beginning.
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>

#include "api.h"

namespace {

// What the file begins with; digest.py has the same fields in the same order.
struct Work {
    int64_t bytes;  // of the file
    int64_t reads, samples, count;
    int64_t cut_outs, cut_out_count, pastes, paste_count;
    float scale[3], shift[3];
    int32_t res, unused;
};

uint8_t* load(FILE* file, int64_t bytes) {
    auto* memory = static_cast<uint8_t*>(malloc(static_cast<size_t>(bytes)));
    rewind(file);
    if (memory == nullptr || fread(memory, 1, static_cast<size_t>(bytes), file) != static_cast<size_t>(bytes))
        exit(2);
    return memory;
}

// Turns a place in the file into a pointer; 0 is none.
template <typename T> void point(uint8_t* memory, T** place) {
    const auto at = reinterpret_cast<uintptr_t>(*place);
    *place = at == 0 ? nullptr : reinterpret_cast<T*>(memory + at);
}

void expect(int32_t code, const char* what, int64_t item) {
    if (code == REFIT_OK) return;
    fprintf(stderr, "%s %lld: code %d\n", what, static_cast<long long>(item), code);
    exit(1);
}

}  // namespace

int main(int count, char** words) {
    if (count != 5) return 2;
    FILE* file = fopen(words[1], "rb");
    Work work;
    if (file == nullptr || fread(&work, sizeof work, 1, file) != 1) return 2;
    const int32_t image = atoi(words[2]), portable = atoi(words[3]), threads = atoi(words[4]);
    uint8_t* memory = load(file, work.bytes);
    auto* reads = reinterpret_cast<RefitRead*>(memory + work.reads);
    auto* samples = reinterpret_cast<RefitSample*>(memory + work.samples);
    auto* cut_outs = reinterpret_cast<RefitCutOut*>(memory + work.cut_outs);
    const int64_t one = int64_t{work.res} * work.res * 3 *
                        (image == REFIT_FLOAT32 ? 4 : image == REFIT_BFLOAT16 ? 2 : 1);
    auto* images = static_cast<uint8_t*>(malloc(static_cast<size_t>(work.count * one)));
    for (int64_t k = 0; k < work.count; ++k) {
        point(memory, &reads[k].data);
        point(memory, &reads[k].header);
        reads[k].descriptor = fileno(file);
        point(memory, &samples[k].rgb);
        point(memory, &samples[k].effects);
        samples[k].jpeg = reads[k].data;
        samples[k].out = images + k * one;
    }
    for (int64_t k = 0; k < work.cut_out_count; ++k)
        for (const uint8_t*& level : cut_outs[k].level) point(memory, &level);
    refit_read(reads, work.count, threads, 0);
    RefitBatch batch{samples, work.count, cut_outs, work.cut_out_count,
                     reinterpret_cast<RefitPaste*>(memory + work.pastes), work.paste_count,
                     {work.scale[0], work.scale[1], work.scale[2]},
                     {work.shift[0], work.shift[1], work.shift[2]}, work.res, image, portable, 0};
    void* space = refit_open(threads);
    refit_draw(space, &batch);
    refit_close(space);
    for (int64_t k = 0; k < work.count; ++k) {
        expect(reads[k].code, "read", k);
        expect(samples[k].code, "draw", k);
    }
    fputs(portable == 0 && refit_has_avx2() ? "AVX2" : "portable", stderr);
    fwrite(images, 1, static_cast<size_t>(work.count * one), stdout);
    return fflush(stdout) == 0 ? 0 : 2;
}
