// Storage with latency: each pread of a file first waits LATE_MICROSECONDS.
//
// Preloaded into a process (LD_PRELOAD). Only the stream's reads of samples use pread.
// late_most() returns the largest number of reads that waited at the same time.
#include <atomic>
#include <cstdlib>
#include <ctime>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static std::atomic<int> waiting{0}, most{0};

extern "C" int late_most() { return most; }

static ssize_t late_pread(int descriptor, void* to, size_t count, off_t at) {
    const char* text = getenv("LATE_MICROSECONDS");
    const long wait = text == nullptr ? 0 : atol(text);
    const timespec pause{wait / 1000000, wait % 1000000 * 1000};
    const int now = ++waiting;
    for (int before = most; before < now && !most.compare_exchange_weak(before, now);) {
    }
    if (wait > 0) nanosleep(&pause, nullptr);
    --waiting;
    return syscall(SYS_pread64, descriptor, to, count, at);
}

extern "C" ssize_t pread(int descriptor, void* to, size_t count, off_t at) {
    return late_pread(descriptor, to, count, at);
}

extern "C" ssize_t pread64(int descriptor, void* to, size_t count, off_t at) {
    return late_pread(descriptor, to, count, at);
}
