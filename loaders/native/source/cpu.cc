// The features of this processor, from cpuid, because __builtin_cpu_supports always returns false if
// zig's runtime is linked.
#include "common.h"

#if REFIT_X86
#include <cpuid.h>
#endif

namespace {

bool find_avx2() {
#if REFIT_X86
    constexpr unsigned SSE42_POPCNT_OSXSAVE_AVX = 1u << 20 | 1u << 23 | 1u << 27 | 1u << 28;
    constexpr unsigned BMI_AVX2_BMI2 = 1u << 3 | 1u << 5 | 1u << 8, LZCNT = 1u << 5, YMM = 6;
    unsigned a, b, c, d, saved, upper;
    const auto has = [](unsigned bits, unsigned all) { return (bits & all) == all; };
    if (!__get_cpuid(1, &a, &b, &c, &d) || !has(c, SSE42_POPCNT_OSXSAVE_AVX)) return false;
    __asm__("xgetbv" : "=a"(saved), "=d"(upper) : "c"(0));  // what the system saves
    return has(saved, YMM) && __get_cpuid_count(7, 0, &a, &b, &c, &d) && has(b, BMI_AVX2_BMI2) &&
           __get_cpuid(0x80000001, &a, &b, &c, &d) && has(c, LZCNT);
#else
    return false;
#endif
}

// Computed once, when the library is loaded, because cpuid is slow on a virtual machine. A static in
// a function or a header would need a guard from the C++ runtime.
const bool HAS_AVX2 = find_avx2();

}  // namespace

bool has_avx2() { return HAS_AVX2; }
