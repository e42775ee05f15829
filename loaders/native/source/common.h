// Shared by all files: inlining, processor features, growing memory.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#define REFIT_X86 1
// Attribute of the fast functions, which are called only if the processor has these features.
#if defined(__clang__)
#define FAST __attribute__((target("avx2,bmi,bmi2,lzcnt,sse4.2,popcnt,crc32")))
#else
#define FAST __attribute__((target("avx2,bmi,bmi2,lzcnt,sse4.2,popcnt")))
#endif
#else
#define REFIT_X86 0
#define FAST
#endif

#define INLINE inline __attribute__((always_inline))

constexpr int MCU = 16;  // px, of both sides
constexpr int64_t MAX_PIXELS = 128 << 20;
constexpr int MAX_SIDE = 65535;

bool has_avx2();  // whether the fast functions may be called

// Two 16-bit numbers in one of 32 bits.
INLINE int32_t packed(int16_t low, int16_t high) {
    return static_cast<int32_t>(static_cast<uint16_t>(low) | static_cast<uint32_t>(high) << 16);
}

INLINE int64_t floor_divided(int64_t a, int64_t b) {  // b > 0
    return a / b - (a % b < 0);
}

INLINE int clamped(int value, int low, int high) {
    return value < low ? low : value > high ? high : value;
}

// Weights of neighbours are 64ths.
constexpr int WEIGHT_BITS = 6, WEIGHT = 1 << WEIGHT_BITS;

// Position of the centre of pixel `u` of `size` pixels in an image of `source` pixels at level `level`
// (halved `level` times), in 64ths of the level's pixels, rounded and clamped to its `count` pixels.
INLINE int32_t place_of(int64_t u, int64_t size, int64_t source, int level, int count) {
    const int64_t across = size << level;
    const int64_t at =
        floor_divided((2 * u + 1) * source * WEIGHT + across, 2 * across) - WEIGHT / 2;
    const int64_t last = int64_t{count - 1} * WEIGHT;
    return static_cast<int32_t>(at < 0 ? 0 : at > last ? last : at);
}

// Reusable memory that grows if necessary; growing loses its content.
class Buffer {
  public:
    Buffer() = default;
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() { free(memory_); }

    // Room for at least `count` values, aligned to 64 bytes; null if out of memory.
    template <typename T> T* of(int64_t count) {
        const size_t size = (static_cast<size_t>(count) * sizeof(T) + 127) & ~size_t{63};
        if (size > size_) {
            release();
            memory_ = aligned_alloc(64, size);
            if (memory_ == nullptr) return nullptr;
            memset(memory_, 0, size);  // so that no result can depend on old content
            size_ = size;
        }
        return static_cast<T*>(memory_);
    }

    void release() {
        free(memory_);
        memory_ = nullptr;
        size_ = 0;
    }

    // Frees the memory if an unusually large image has made it grow.
    void shrink() {
        if (size_ > size_t{64} << 20) release();
    }

  private:
    void* memory_ = nullptr;
    size_t size_ = 0;
};
