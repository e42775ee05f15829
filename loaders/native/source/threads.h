// Distributes work on many items to threads that are started for one call.
#pragma once

#include <pthread.h>

#include "common.h"

// Calls `work(item, thread)` for each item, in `threads` threads; the calling thread is number 0.
// If the system cannot start that many threads, fewer are used.
template <typename Work> void spread(int64_t count, int threads, const Work& work) {
    struct Shared {
        const Work* work;
        int64_t count, next;
    } shared{&work, count, 0};
    struct One {
        Shared* shared;
        int number;
        pthread_t thread;
    };
    const auto run = [](void* given) -> void* {
        const One& one = *static_cast<One*>(given);
        Shared& shared = *one.shared;
        for (;;) {
            const int64_t item = __atomic_fetch_add(&shared.next, 1, __ATOMIC_RELAXED);
            if (item >= shared.count) return nullptr;
            (*shared.work)(item, one.number);
        }
    };
    constexpr int MOST = 256;
    // Small enough that the system's library keeps those of ended threads for the next call.
    constexpr size_t STACK = 1 << 20;
    One ones[MOST];
    if (threads > MOST) threads = MOST;
    if (threads > count) threads = static_cast<int>(count);
    int started = 1;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK);
    for (; started < threads; ++started) {
        ones[started] = {&shared, started, {}};
        if (pthread_create(&ones[started].thread, &attributes, run, &ones[started]) != 0) break;
    }
    pthread_attr_destroy(&attributes);
    ones[0] = {&shared, 0, {}};
    run(&ones[0]);
    for (int k = 1; k < started; ++k) pthread_join(ones[k].thread, nullptr);
}
