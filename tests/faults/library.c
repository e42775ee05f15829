/* A file system that fails: calls of libc on paths below one folder are logged, and made to fail.

Preloaded into a process (LD_PRELOAD), which steers it by three functions:

    faults_watch(folder, log)   log the calls on paths below the folder into a file descriptor
    faults_plant(call, first, times, error)
                                from its first-th call on (1 is the next), fail so many calls of
                                that name (-1: all) with the errno; SHORT, -1, lets a read or a
                                write do half of its bytes, UNKNOWN, -2, hides the types of
                                a folder's entries
    faults_count()              how many calls have failed

Names that differ in the width of an offset, in where a path begins, or in being older are one:
open is also open64, openat and openat64, stat is also statx, newfstatat and __xstat64. */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { SHORT = -1, UNKNOWN = -2 };

static char watched[PATH_MAX];
static size_t watched_length;
static int log_descriptor = -1;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct {
    char call[32];
    long first, times, failed;
    int error;
} fault;

void faults_watch(const char *folder, int log)
{
    snprintf(watched, sizeof watched, "%s", folder);
    watched_length = strlen(watched);
    log_descriptor = log;
}

void faults_plant(const char *call, long first, long times, int error)
{
    snprintf(fault.call, sizeof fault.call, "%s", call);
    fault.first = first;
    fault.times = times;
    fault.error = error;
    fault.failed = 0;
}

long faults_count(void)
{
    return fault.failed;
}

static int is_watched(const char *path)
{
    return watched_length && strncmp(path, watched, watched_length) == 0 &&
           (path[watched_length] == '/' || path[watched_length] == 0);
}

/* The path of an open file or folder, "" where there is none. */
static void path_of(int descriptor, char *path)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, (size_t)(PATH_MAX - 1));
    path[length > 0 ? length : 0] = 0;
}

static void absolute(int folder, const char *name, char *path)
{
    char base[PATH_MAX] = "";
    if (name == NULL || name[0] == 0) {
        path_of(folder, path);
        return;
    }
    if (name[0] != '/') {
        if (folder == AT_FDCWD)
            syscall(SYS_getcwd, base, sizeof base);
        else
            path_of(folder, base);
    }
    if (snprintf(path, PATH_MAX, "%s%s%s", base, base[0] ? "/" : "", name) >= PATH_MAX)
        path[0] = 0;
}

/* What a call on a path comes to: 0, an errno, SHORT or UNKNOWN. */
static int look(const char *call, const char *path)
{
    if (!is_watched(path))
        return 0;
    int before = errno, error = 0;
    pthread_mutex_lock(&mutex);
    if (strcmp(call, fault.call) == 0 && --fault.first <= 0 && fault.times != 0) {
        error = fault.error;
        fault.failed++;
        if (fault.times > 0)
            fault.times--;
    }
    pthread_mutex_unlock(&mutex);
    if (log_descriptor >= 0) {
        char line[PATH_MAX + 64];
        int length = snprintf(line, sizeof line, "%s %s\n", call, path + watched_length);
        syscall(SYS_write, log_descriptor, line, (size_t)length);
    }
    errno = error > 0 ? error : before;
    return error;
}

static int look_at(const char *call, int folder, const char *name)
{
    char path[PATH_MAX];
    if (!watched_length)
        return 0;
    absolute(folder, name, path);
    return look(call, path);
}

static int look_in(const char *call, int descriptor)
{
    return look_at(call, descriptor, NULL);
}

#define REAL(result, name, ...)                                                                   \
    static result (*real)(__VA_ARGS__);                                                           \
    if (!real)                                                                                    \
        real = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

#define WITH_MODE(flags)                                                                          \
    mode_t mode = 0;                                                                              \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {                                                      \
        va_list rest;                                                                             \
        va_start(rest, flags);                                                                    \
        mode = va_arg(rest, mode_t);                                                              \
        va_end(rest);                                                                             \
    }

#define OPEN(name)                                                                                \
    int name(const char *path, int flags, ...)                                                    \
    {                                                                                             \
        WITH_MODE(flags)                                                                          \
        REAL(int, name, const char *, int, ...);                                                  \
        return look_at("open", AT_FDCWD, path) > 0 ? -1 : real(path, flags, mode);                \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                              \
    int name(int folder, const char *path, int flags, ...)                                        \
    {                                                                                             \
        WITH_MODE(flags)                                                                          \
        REAL(int, name, int, const char *, int, ...);                                             \
        return look_at("open", folder, path) > 0 ? -1 : real(folder, path, flags, mode);          \
    }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name)                                                                               \
    FILE *name(const char *path, const char *how)                                                 \
    {                                                                                             \
        REAL(FILE *, name, const char *, const char *);                                           \
        return look_at("open", AT_FDCWD, path) > 0 ? NULL : real(path, how);                      \
    }
FOPEN(fopen)
FOPEN(fopen64)

/* Calls on a descriptor or a path that have nothing of their own; `failing` is what they return. */
#define PLAIN(result, name, where, failing, types, names)                                   \
    result name types                                                                             \
    {                                                                                             \
        static result(*real) types;                                                               \
        if (!real)                                                                                \
            real = (result(*) types)dlsym(RTLD_NEXT, #name);                                      \
        return where > 0 ? (result)failing : real names;                                          \
    }
#define ON(call, descriptor) look_in(call, descriptor)
#define AT(call, folder, path) look_at(call, folder, path)
#define HERE(call, path) look_at(call, AT_FDCWD, path)

PLAIN(int, fsync, ON("fsync", fd), -1, (int fd), (fd))
PLAIN(int, fdatasync, ON("fsync", fd), -1, (int fd), (fd))
PLAIN(int, flock, ON("flock", fd), -1, (int fd, int how), (fd, how))
PLAIN(int, ftruncate, ON("ftruncate", fd), -1, (int fd, off_t size), (fd, size))
PLAIN(int, ftruncate64, ON("ftruncate", fd), -1, (int fd, off64_t size), (fd, size))
PLAIN(int, truncate, HERE("ftruncate", path), -1, (const char *path, off_t size), (path, size))
PLAIN(int, fallocate, ON("fallocate", fd), -1, (int fd, int how, off_t at, off_t size),
      (fd, how, at, size))
PLAIN(int, posix_fallocate, ON("fallocate", fd), errno, (int fd, off_t at, off_t size),
      (fd, at, size))
PLAIN(int, posix_fadvise, ON("fadvise", fd), errno, (int fd, off_t at, off_t size, int how),
      (fd, at, size, how))
PLAIN(int, posix_fadvise64, ON("fadvise", fd), errno, (int fd, off64_t at, off64_t size, int how),
      (fd, at, size, how))
PLAIN(int, fchmod, ON("chmod", fd), -1, (int fd, mode_t mode), (fd, mode))
PLAIN(int, chmod, HERE("chmod", path), -1, (const char *path, mode_t mode), (path, mode))
PLAIN(int, futimens, ON("utimens", fd), -1, (int fd, const struct timespec times[2]), (fd, times))
PLAIN(int, utimensat, AT("utimens", fd, path), -1,
      (int fd, const char *path, const struct timespec times[2], int how), (fd, path, times, how))
PLAIN(int, access, HERE("access", path), -1, (const char *path, int how), (path, how))
PLAIN(int, faccessat, AT("access", fd, path), -1, (int fd, const char *path, int how, int flags),
      (fd, path, how, flags))
PLAIN(int, unlink, HERE("unlink", path), -1, (const char *path), (path))
PLAIN(int, unlinkat, AT("unlink", fd, path), -1, (int fd, const char *path, int how),
      (fd, path, how))
PLAIN(int, remove, HERE("unlink", path), -1, (const char *path), (path))
PLAIN(int, rmdir, HERE("rmdir", path), -1, (const char *path), (path))
PLAIN(int, mkdir, HERE("mkdir", path), -1, (const char *path, mode_t mode), (path, mode))
PLAIN(int, mkdirat, AT("mkdir", fd, path), -1, (int fd, const char *path, mode_t mode),
      (fd, path, mode))
PLAIN(int, rename, HERE("rename", to), -1, (const char *from, const char *to), (from, to))
PLAIN(int, renameat, AT("rename", there, to), -1,
      (int here, const char *from, int there, const char *to), (here, from, there, to))
PLAIN(int, renameat2, AT("rename", there, to), -1,
      (int here, const char *from, int there, const char *to, unsigned how),
      (here, from, there, to, how))
PLAIN(int, link, HERE("link", to), -1, (const char *from, const char *to), (from, to))
PLAIN(int, symlink, HERE("symlink", to), -1, (const char *from, const char *to), (from, to))
PLAIN(ssize_t, readlink, HERE("readlink", path), -1, (const char *path, char *to, size_t size),
      (path, to, size))
PLAIN(DIR *, opendir, HERE("opendir", path), NULL, (const char *path), (path))
PLAIN(DIR *, fdopendir, ON("opendir", fd), NULL, (int fd), (fd))
PLAIN(off_t, lseek, (how == SEEK_END ? ON("lseek", fd) : 0), -1, (int fd, off_t at, int how),
      (fd, at, how))
PLAIN(off64_t, lseek64, (how == SEEK_END ? ON("lseek", fd) : 0), -1,
      (int fd, off64_t at, int how), (fd, at, how))
PLAIN(void *, mmap, (fd < 0 ? 0 : ON("mmap", fd)), MAP_FAILED,
      (void *at, size_t size, int how, int flags, int fd, off_t begin),
      (at, size, how, flags, fd, begin))
PLAIN(void *, mmap64, (fd < 0 ? 0 : ON("mmap", fd)), MAP_FAILED,
      (void *at, size_t size, int how, int flags, int fd, off64_t begin),
      (at, size, how, flags, fd, begin))
PLAIN(ssize_t, sendfile, ON("sendfile", to), -1, (int to, int from, off_t *at, size_t size),
      (to, from, at, size))
PLAIN(ssize_t, copy_file_range, ON("copy_file_range", to), -1,
      (int from, off64_t *begin, int to, off64_t *at, size_t size, unsigned how),
      (from, begin, to, at, size, how))
PLAIN(ssize_t, writev, ON("write", fd), -1, (int fd, const struct iovec *parts, int count),
      (fd, parts, count))
#define VECTORS(suffix)                                                                           \
    PLAIN(ssize_t, preadv##suffix, ON("read", fd), -1,                                            \
          (int fd, const struct iovec *parts, int count, off64_t at), (fd, parts, count, at))     \
    PLAIN(ssize_t, pwritev##suffix, ON("write", fd), -1,                                          \
          (int fd, const struct iovec *parts, int count, off64_t at), (fd, parts, count, at))
VECTORS()
VECTORS(64)
PLAIN(ssize_t, preadv2, ON("read", fd), -1,
      (int fd, const struct iovec *parts, int count, off64_t at, int how),
      (fd, parts, count, at, how))
PLAIN(ssize_t, preadv64v2, ON("read", fd), -1,
      (int fd, const struct iovec *parts, int count, off64_t at, int how),
      (fd, parts, count, at, how))
PLAIN(ssize_t, readv, ON("read", fd), -1, (int fd, const struct iovec *parts, int count),
      (fd, parts, count))

#define STATS(suffix)                                                                             \
    PLAIN(int, stat##suffix, HERE("stat", path), -1, (const char *path, struct stat##suffix *to), \
          (path, to))                                                                             \
    PLAIN(int, lstat##suffix, HERE("stat", path), -1,                                           \
          (const char *path, struct stat##suffix *to), (path, to))                                \
    PLAIN(int, fstat##suffix, ON("fstat", fd), -1, (int fd, struct stat##suffix *to), (fd, to)) \
    PLAIN(int, fstatat##suffix, AT("stat", fd, path), -1,                                       \
          (int fd, const char *path, struct stat##suffix *to, int how), (fd, path, to, how))      \
    PLAIN(int, __xstat##suffix, HERE("stat", path), -1,                                         \
          (int version, const char *path, struct stat##suffix *to), (version, path, to))          \
    PLAIN(int, __lxstat##suffix, HERE("stat", path), -1,                                        \
          (int version, const char *path, struct stat##suffix *to), (version, path, to))          \
    PLAIN(int, __fxstat##suffix, ON("fstat", fd), -1,                                           \
          (int version, int fd, struct stat##suffix *to), (version, fd, to))                      \
    PLAIN(int, __fxstatat##suffix, AT("stat", fd, path), -1,                                    \
          (int version, int fd, const char *path, struct stat##suffix *to, int how),              \
          (version, fd, path, to, how))
STATS()
STATS(64)
PLAIN(int, statx, AT("stat", fd, path), -1,
      (int fd, const char *path, int how, unsigned mask, struct statx *to),
      (fd, path, how, mask, to))

/* Calls that may do less than they were asked to. */
#define MOVING(name, call, types, names)                                                          \
    ssize_t name types                                                                            \
    {                                                                                             \
        static ssize_t(*real) types;                                                              \
        if (!real)                                                                                \
            real = (ssize_t(*) types)dlsym(RTLD_NEXT, #name);                                     \
        int found = look_in(call, fd);                                                            \
        if (found > 0)                                                                            \
            return -1;                                                                            \
        if (found == SHORT && size > 1)                                                           \
            size /= 2;                                                                            \
        return real names;                                                                        \
    }
MOVING(read, "read", (int fd, void *to, size_t size), (fd, to, size))
MOVING(pread, "read", (int fd, void *to, size_t size, off_t at), (fd, to, size, at))
MOVING(pread64, "read", (int fd, void *to, size_t size, off64_t at), (fd, to, size, at))
MOVING(write, "write", (int fd, const void *from, size_t size), (fd, from, size))
MOVING(pwrite, "write", (int fd, const void *from, size_t size, off_t at), (fd, from, size, at))
MOVING(pwrite64, "write", (int fd, const void *from, size_t size, off64_t at),
       (fd, from, size, at))

/* As Linux does: the descriptor is closed whatever is returned. */
int close(int fd)
{
    REAL(int, close, int);
    int found = look_in("close", fd), closed = real(fd);
    if (found > 0)
        errno = found;
    return found > 0 ? -1 : closed;
}

#define READDIR(name, entry)                                                                      \
    struct entry *name(DIR *folder)                                                               \
    {                                                                                             \
        REAL(struct entry *, name, DIR *);                                                        \
        int found = look_in("readdir", dirfd(folder));                                            \
        if (found > 0)                                                                            \
            return NULL;                                                                          \
        struct entry *next = real(folder);                                                        \
        if (found == UNKNOWN && next)                                                             \
            next->d_type = DT_UNKNOWN;                                                            \
        return next;                                                                              \
    }
READDIR(readdir, dirent)
READDIR(readdir64, dirent64)

/* Locks alone: what else fcntl does, every file system does. */
#define FCNTL(name)                                                                               \
    int name(int fd, int what, ...)                                                               \
    {                                                                                             \
        va_list rest;                                                                             \
        va_start(rest, what);                                                                     \
        void *with = va_arg(rest, void *);                                                        \
        va_end(rest);                                                                             \
        REAL(int, name, int, int, ...);                                                           \
        int locks = what == F_SETLK || what == F_SETLKW || what == F_OFD_SETLK;                   \
        return locks && look_in("fcntl", fd) > 0 ? -1 : real(fd, what, with);                     \
    }
FCNTL(fcntl)
FCNTL(fcntl64)
