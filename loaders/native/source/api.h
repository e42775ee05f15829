// The C interface of the library: one call reads a batch, another draws it. Python fills in arrays of
// these structs (loaders/native/interface.py has the same fields in the same order).
//
// Every pointer must be valid for the bytes stated beside it; what those bytes hold is not trusted.
#pragma once

#include <cstdint>

#define REFIT_EXPORT extern "C" __attribute__((visibility("default")))

enum RefitCode : int32_t {
    REFIT_OK = 0,
    REFIT_NOT_OURS = 1,      // a JPEG of another form than a build writes: the caller decodes it
    REFIT_READ_FAILED = 2,   // detail: errno
    REFIT_CUT_SHORT = 3,     // the file ends early; detail: number of bytes read
    REFIT_NO_LABELS = 4,     // the .npy header is not found after the JPEG
    REFIT_LABELS_CRC = 5,    // the record's CRC-32C is wrong
    REFIT_JPEG_CRC = 6,      // the JPEG's CRC-32C is not the one that the record states
    REFIT_OTHER_SIZE = 7,    // the JPEG's header states another size; detail: width << 16 | height
    REFIT_TOO_LARGE = 8,     // more pixels than a stored crop may have
    REFIT_MARKERS = 9,       // restart markers are missing or out of order; detail: good MCUs
    REFIT_DAMAGED = 10,      // an MCU's data are damaged; detail: its number
    REFIT_BAD_MAP = 11,      // the map from output to stored pixels is not valid
    REFIT_NO_MEMORY = 12,
    REFIT_BAD_CALL = 13,     // an argument is out of its bounds
};

enum RefitImage : int32_t {
    REFIT_UINT8 = 0,     // (res, res, 3) uint8 RGB, before the channel factors
    REFIT_FLOAT32 = 1,   // (3, res, res) float32: times factors, truncated, normalised
    REFIT_BFLOAT16 = 2,  // the same, rounded to the nearest bfloat16
};

// Number of bytes, of any value, that must be readable and writable after each JPEG.
constexpr int64_t REFIT_SLACK = 2048;

// Bytes of a record that are copied into a row.
struct RefitSpan {
    int64_t begin, to, length;  // first byte in the record, first byte in the row, count
};

// One sample to be read: `jpeg_length` bytes of JPEG, padding to 512 bytes, a tar header of 512, the
// .npy header, the record.
struct RefitRead {
    uint8_t* data;          // where the bytes go: `length` + REFIT_SLACK
    int64_t offset;         // in the file
    int64_t length;         // of all of it
    int64_t jpeg_length;
    const uint8_t* header;  // of the .npy, `header_length` bytes
    int64_t header_length;
    int64_t record_length;
    uint8_t* row;           // where the record's spans go, `row_length` bytes
    int64_t row_length;
    const RefitSpan* spans;
    int64_t span_count;
    int64_t jpeg_crc_at;    // offset of the JPEG's CRC in the record
    int32_t descriptor;     // of the file; -1: the bytes are in `data` already
    int32_t code;           // out
    int64_t detail;         // out
};

// Effects on an image after its occluders are pasted, in this order.
struct RefitEffects {
    int32_t cells;       // side after scaling down, before scaling up again; `res`: no scaling
    uint16_t blur[16];   // 256ths: weight of a pixel at distance k; {256, 0, …}: no blur
    int32_t gray;        // not 0: gray
    int32_t contrast;    // 256ths, 0 to 1024: factor on the difference from 127.5
    int32_t brightness;  // 256ths of a pixel value, -65280 to 65280: added
};

// One image to draw. `map`, from output to stored pixels: x = m0 u + m1 v + m2, y = m3 u + m4 v + m5.
struct RefitSample {
    const uint8_t* jpeg;    // `jpeg_length` bytes and REFIT_SLACK; unused where `rgb` is given
    int64_t jpeg_length;
    const uint8_t* rgb;     // null, or the decoded image (height, width, 3)
    void* out;              // the image, as RefitBatch.image says
    const RefitEffects* effects;  // null: none
    double map[6];
    int32_t height, width;  // of the stored crop
    float factors[3];       // of R, G and B
    int32_t pastes;         // number of occluders, from `first_paste` on
    int64_t first_paste;
    int32_t code;           // out
    int32_t unused;
    int64_t detail;         // out
};

// An RGBA cut-out, (height, width, 4), and its halves: level l is (height >> l, width >> l, 4).
struct RefitCutOut {
    const uint8_t* level[3];
    int32_t height, width;
    int32_t levels;
    int32_t unused;
};

// A cut-out to blend, scaled by `size`, with its centre at (x, y) output pixels.
struct RefitPaste {
    double x, y, size;
    int64_t cut_out;
};

struct RefitBatch {
    RefitSample* samples;
    int64_t count;
    const RefitCutOut* cut_outs;
    int64_t cut_out_count;
    const RefitPaste* pastes;
    int64_t paste_count;
    float scale[3], shift[3];  // normalisation: value = level * scale - shift
    int32_t res;               // side of the output
    int32_t image;             // RefitImage
    int32_t portable;          // not 0: without AVX2
    int32_t unused;
};

// Memory and parsed headers of up to `threads` threads, for one call at a time; null: no memory.
REFIT_EXPORT void* refit_open(int32_t threads);
REFIT_EXPORT void refit_close(void* workspace);

// Reads and checks the samples; each has its own code. The caller reads alone until one read has
// taken `patience` microseconds; then `threads` threads read what is left, the caller among them.
REFIT_EXPORT void refit_read(RefitRead* reads, int64_t count, int32_t threads, int64_t patience);

// Draws the images with the workspace's threads; each has its own code.
REFIT_EXPORT void refit_draw(void* workspace, const RefitBatch* batch);

// A whole JPEG's planes: luma (height, width), chroma Cb and Cr ((height + 1) / 2, (width + 1) / 2,
// 2). For tests. The code; `detail` may not be null.
REFIT_EXPORT int32_t refit_planes(void* workspace, const uint8_t* jpeg, int64_t length,
                                  int32_t height, int32_t width, int32_t portable, uint8_t* luma,
                                  uint8_t* chroma, int64_t* detail);

REFIT_EXPORT uint32_t refit_crc32c(const uint8_t* data, int64_t length, int32_t portable);

// Bytes of RefitRead, RefitSample, RefitCutOut, RefitPaste, RefitBatch, RefitSpan, RefitEffects (0 to
// 6), and REFIT_SLACK (7).
REFIT_EXPORT int64_t refit_size(int32_t which);

// 1 if this processor has the instructions of the AVX2 code.
REFIT_EXPORT int32_t refit_has_avx2();
