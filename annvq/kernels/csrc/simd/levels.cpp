#include "simd/levels.h"

#include <atomic>
#include <stdexcept>

namespace annvq {
namespace {

constexpr const char* kNames[] = {"generic", "avx2", "avx512", "avx512vbmi"};

SimdLevel detect() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    const bool vbmi = avx512 && __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2");
    if (vbmi) return SimdLevel::avx512vbmi;
    if (avx512) return SimdLevel::avx512;
    if (avx2) return SimdLevel::avx2;
#endif
    return SimdLevel::generic;
}

std::atomic<int> g_level{-1};

}  // namespace

const char* simd_name(SimdLevel level) { return kNames[static_cast<int>(level)]; }

SimdLevel best_simd_level() {
    static const SimdLevel best = detect();
    return best;
}

std::vector<std::string> available_levels() {
    std::vector<std::string> out;
    for (int i = 0; i <= static_cast<int>(best_simd_level()); i++) out.emplace_back(kNames[i]);
    return out;
}

SimdLevel simd_level() {
    const int level = g_level.load(std::memory_order_relaxed);
    return level < 0 ? best_simd_level() : static_cast<SimdLevel>(level);
}

void set_simd_level(const std::string& name) {
    for (int i = 0; i < 4; i++) {
        if (name != kNames[i]) continue;
        if (i > static_cast<int>(best_simd_level()))
            throw std::invalid_argument("SIMD level '" + name +
                                        "' is not available on this machine; the best is '" +
                                        simd_name(best_simd_level()) + "'");
        g_level.store(i, std::memory_order_relaxed);
        return;
    }
    throw std::invalid_argument("unknown SIMD level '" + name +
                                "'; known: generic, avx2, avx512, avx512vbmi");
}

}  // namespace annvq
