// libFuzzer's target for the decoder: decodes any bytes as a JPEG by both paths, which must agree.
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "api.h"

namespace {

constexpr int MOST_SIDE = 512;

struct Decoded {
    int32_t code;
    int64_t detail;
    uint8_t* luma;
    uint8_t* chroma;
};

Decoded decode(const uint8_t* jpeg, int64_t length, int height, int width, int portable) {
    const size_t luma = static_cast<size_t>(height) * width;
    const size_t chroma = static_cast<size_t>((height + 1) / 2) * ((width + 1) / 2) * 2;
    Decoded made{0, 0, static_cast<uint8_t*>(calloc(luma, 1)), static_cast<uint8_t*>(calloc(chroma, 1))};
    void* space = refit_open(1);
    made.code = refit_planes(space, jpeg, length, height, width, portable, made.luma, made.chroma,
                             &made.detail);
    refit_close(space);
    return made;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    // The size that the header states, if any, so that the search gets past the check of the size.
    int height = 80, width = 112;
    for (size_t at = 0; at + 9 < size; ++at) {
        if (data[at] != 0xFF || data[at + 1] != 0xC0) continue;
        height = 1 + ((data[at + 5] << 8 | data[at + 6]) - 1 & (MOST_SIDE - 1));
        width = 1 + ((data[at + 7] << 8 | data[at + 8]) - 1 & (MOST_SIDE - 1));
        break;
    }
    auto* jpeg = static_cast<uint8_t*>(malloc(size + REFIT_SLACK));  // without a spare byte
    memcpy(jpeg, data, size);
    memset(jpeg + size, 0, REFIT_SLACK);
    const Decoded fast = decode(jpeg, static_cast<int64_t>(size), height, width, 0);
    const Decoded slow = decode(jpeg, static_cast<int64_t>(size), height, width, 1);
    if (fast.code != slow.code || fast.detail != slow.detail) abort();
    if (memcmp(fast.luma, slow.luma, static_cast<size_t>(height) * width) != 0) abort();
    const size_t chroma = static_cast<size_t>((height + 1) / 2) * ((width + 1) / 2) * 2;
    if (memcmp(fast.chroma, slow.chroma, chroma) != 0) abort();
    for (uint8_t* one : {fast.luma, fast.chroma, slow.luma, slow.chroma, jpeg}) free(one);
    return 0;
}
