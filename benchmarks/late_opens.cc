// Storage with latency: each open of a file below LATE_FOLDER first waits LATE_MICROSECONDS.
//
// Preloaded into a process (LD_PRELOAD). A build opens each frame once, so a frame waits once.
#include <cstdarg>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

static int late_open(const char* path, int flags, va_list rest) {
    const char* folder = getenv("LATE_FOLDER");
    const char* text = getenv("LATE_MICROSECONDS");
    const long wait = text == nullptr ? 0 : atol(text);
    if (wait > 0 && folder != nullptr && strncmp(path, folder, strlen(folder)) == 0) {
        const timespec pause{wait / 1000000, wait % 1000000 * 1000};
        nanosleep(&pause, nullptr);
    }
    const bool makes = (flags & (O_CREAT | O_TMPFILE)) != 0;
    return syscall(SYS_openat, AT_FDCWD, path, flags, makes ? va_arg(rest, mode_t) : 0);
}

#define LATE(name)                                        \
    extern "C" int name(const char* path, int flags, ...) { \
        va_list rest;                                     \
        va_start(rest, flags);                            \
        const int file = late_open(path, flags, rest);    \
        va_end(rest);                                     \
        return file;                                      \
    }
LATE(open)
LATE(open64)
