// libFuzzer's target for the calls of a batch: two samples are read from memory and drawn, with a
// map, sizes, occluders and effects taken from the input; by both paths and one or three threads.
#include <cstdlib>
#include <cstring>

#include "api.h"

namespace {

constexpr int RECORD = 16, HEADER = 8, CUT_OUT = 12, MOST_PASTES = 4;
constexpr uint8_t NPY[HEADER] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0};

// Reads numbers from the input; returns zeros after its end.
struct Input {
    const uint8_t* data;
    size_t left;
    template <typename T> T take() {
        T value{};
        const size_t count = left < sizeof(T) ? left : sizeof(T);
        memcpy(&value, data, count);
        data += count;
        left -= count;
        return value;
    }
};

void put32(uint8_t* to, uint32_t value) {
    for (int byte = 0; byte < 4; ++byte) to[byte] = static_cast<uint8_t>(value >> 8 * byte);
}

struct Choice {
    int32_t res, image, height, width, pastes;
    double map[6];
    float factors[3];
    RefitPaste paste[MOST_PASTES];
    bool sealed, changed;  // with right checksums; with effects
    RefitEffects effects;
};

double number(Input* input) {
    const int16_t whole = input->take<int16_t>();
    const uint8_t kind = input->take<uint8_t>();
    if (kind == 255) return input->take<double>();  // any value, including infinity
    return whole / static_cast<double>(1 << (kind & 15));
}

// Any numbers; or, if `good`, weights with a valid sum, so that the search gets past their check.
RefitEffects choose_effects(Input* input, bool good) {
    RefitEffects made{};
    made.cells = input->take<int8_t>();
    made.gray = input->take<uint8_t>() & 1;
    made.contrast = input->take<int16_t>();
    made.brightness = input->take<int32_t>();
    int rest = 256;
    for (int k = 1; k < 16; ++k) {
        made.blur[k] = input->take<uint8_t>();
        if (good && 2 * made.blur[k] > rest) made.blur[k] = static_cast<uint16_t>(rest / 2);
        rest -= 2 * made.blur[k];
    }
    made.blur[0] = static_cast<uint16_t>(good ? rest : input->take<uint16_t>());
    return made;
}

Choice choose(Input* input) {
    Choice made{};
    made.res = 1 + input->take<uint8_t>() % 64;
    made.image = input->take<uint8_t>() % 4;  // 3 is not a kind of image
    made.height = input->take<int16_t>();
    made.width = input->take<int16_t>();
    for (double& one : made.map) one = number(input);
    for (float& one : made.factors) one = static_cast<float>(number(input));
    made.pastes = input->take<uint8_t>() % (MOST_PASTES + 1);
    for (RefitPaste& one : made.paste) {
        one = {number(input), number(input), number(input), input->take<int8_t>()};
    }
    const uint8_t flags = input->take<uint8_t>();
    made.sealed = flags & 1;
    made.changed = flags & 2;
    if (made.changed) made.effects = choose_effects(input, flags & 4);
    return made;
}

// Pixels of the two samples, which the caller frees. `codes`: results of reading and drawing each.
uint8_t* draw(const Choice& choice, const RefitRead* reads, const RefitCutOut* cut_out, int threads,
              int portable, size_t* bytes, int32_t codes[2]) {
    const size_t one = static_cast<size_t>(choice.res) * choice.res * 3 *
                       (choice.image == 1 ? 4 : choice.image == 2 ? 2 : 1);
    *bytes = 2 * one;
    auto* out = static_cast<uint8_t*>(calloc(*bytes, 1));
    RefitSample samples[2]{};
    for (int k = 0; k < 2; ++k) {
        RefitSample& sample = samples[k];
        sample.jpeg = reads[k].data;
        sample.jpeg_length = reads[k].jpeg_length;
        sample.out = out + k * one;
        memcpy(sample.map, choice.map, sizeof sample.map);
        if (k == 1) sample.map[0] = -sample.map[0];
        sample.height = choice.height;
        sample.width = choice.width;
        memcpy(sample.factors, choice.factors, sizeof sample.factors);
        sample.pastes = choice.pastes;
        sample.effects = choice.changed ? &choice.effects : nullptr;
    }
    RefitBatch batch{samples,      2, cut_out, 1, choice.paste, MOST_PASTES, {1, 1, 1}, {0, 0, 0},
                     choice.res, choice.image, portable, 0};
    void* space = refit_open(threads);
    refit_draw(space, &batch);
    refit_close(space);
    for (int k = 0; k < 2; ++k) codes[k] = samples[k].code;
    return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    Input input{data, size};
    const Choice choice = choose(&input);
    const auto jpeg_length = static_cast<int64_t>(input.left);
    const int64_t labels = jpeg_length + (512 - jpeg_length % 512) % 512 + 512;
    const RefitSpan whole{0, 0, RECORD};
    RefitRead reads[2]{};
    uint8_t records[2][RECORD];
    for (int k = 0; k < 2; ++k) {
        RefitRead& read = reads[k];
        const int64_t length = labels + HEADER + RECORD;
        auto* memory = static_cast<uint8_t*>(calloc(static_cast<size_t>(length) + REFIT_SLACK, 1));
        if (input.left > 0) memcpy(memory, input.data, input.left);
        memcpy(memory + labels, NPY, HEADER);
        uint8_t* record = memory + labels + HEADER;
        if (choice.sealed) {
            put32(record, refit_crc32c(memory, jpeg_length, 0));
            put32(record + RECORD - 4, refit_crc32c(record, RECORD - 4, 1));
        }
        read = {memory,     0,      length, jpeg_length, NPY, HEADER, RECORD,
                records[k], RECORD, &whole, 1,           0,   -1,     0,      0};
    }
    refit_read(reads, 2, 2, 0);
    if (choice.sealed && (reads[0].code != REFIT_OK || reads[1].code != REFIT_OK)) abort();
    auto* cut_out_pixels = static_cast<uint8_t*>(malloc(CUT_OUT * CUT_OUT * 4));
    auto* half = static_cast<uint8_t*>(malloc(CUT_OUT * CUT_OUT));
    for (int k = 0; k < CUT_OUT * CUT_OUT * 4; ++k) cut_out_pixels[k] = static_cast<uint8_t>(37 * k);
    memcpy(half, cut_out_pixels, CUT_OUT * CUT_OUT);
    const RefitCutOut cut_out{{cut_out_pixels, half, nullptr}, CUT_OUT, CUT_OUT, 2, 0};
    size_t bytes;
    int32_t expected[2], codes[2];
    uint8_t* first = draw(choice, reads, &cut_out, 1, 0, &bytes, expected);
    for (int way = 0; way < 2; ++way) {
        uint8_t* other = draw(choice, reads, &cut_out, way == 0 ? 3 : 1, way, &bytes, codes);
        if (memcmp(expected, codes, sizeof codes) != 0) abort();
        if (memcmp(first, other, bytes) != 0) abort();
        free(other);
    }
    for (const RefitRead& read : reads) free(read.data);
    free(first);
    free(cut_out_pixels);
    free(half);
    return 0;
}
