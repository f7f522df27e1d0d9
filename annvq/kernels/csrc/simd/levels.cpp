#include "simd/levels.h"

#include <atomic>
#include <iterator>
#include <stdexcept>

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace annvq {
namespace {

#if defined(__x86_64__)
#define ANNVQ_X86_HAS(feature) (__builtin_cpu_supports(feature) != 0)
#else
#define ANNVQ_X86_HAS(feature) false
#endif
// All of 64-bit ARM has NEON; its products of bytes are an extension.
bool has_neon() {
#if defined(__aarch64__)
    return true;
#else
    return false;
#endif
}
bool has_neon_dot() {
#if defined(__aarch64__) && defined(__linux__)
    return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#elif defined(__aarch64__) && defined(__APPLE__)
    return true;  // all Macs
#else
    return false;
#endif
}

// All levels; of those that a machine can run, the last is the best. CMakeLists.txt says which kernels each
// one has.
constexpr Level kLevels[] = {
    {"generic", [] { return true; }, nullptr},
    {"avx2", [] { return ANNVQ_X86_HAS("avx2") && ANNVQ_X86_HAS("bmi2"); }, "generic"},
    {"avx512",
     [] {
         return ANNVQ_X86_HAS("avx512f") && ANNVQ_X86_HAS("avx512bw") && ANNVQ_X86_HAS("avx512dq") &&
                ANNVQ_X86_HAS("avx512vl");
     },
     "avx2"},
    {"avx512vbmi",
     [] {
         return ANNVQ_X86_HAS("avx512vbmi") && ANNVQ_X86_HAS("avx512vbmi2") && ANNVQ_X86_HAS("avx512vnni");
     },
     "avx512"},
    {"neon", has_neon, "generic"},
    {"neondot", has_neon_dot, "neon"},
};

// Whether this machine has the instructions of a level and of all that it falls back to.
bool is_available(int level) {
    for (; level >= 0; level = fallback_of(level))
        if (!kLevels[level].has_instructions()) return false;
    return true;
}

int best_level() {
    static const int best = [] {
        int level = level_count() - 1;
        while (!is_available(level)) level--;
        return level;
    }();
    return best;
}

std::atomic<int> in_use{-1};  // -1: the best one

}  // namespace

int level_count() { return static_cast<int>(std::size(kLevels)); }

int level_number(const std::string& name) {
    for (int i = 0; i < level_count(); i++)
        if (name == kLevels[i].name) return i;
    return -1;
}

const char* level_name(int level) { return kLevels[level].name; }

int fallback_of(int level) {
    const char* name = kLevels[level].fallback;
    return name ? level_number(name) : -1;
}

std::vector<std::string> available_levels() {
    std::vector<std::string> out;
    for (int i = 0; i < level_count(); i++)
        if (is_available(i)) out.emplace_back(level_name(i));
    return out;
}

int simd_level() {
    const int level = in_use.load(std::memory_order_relaxed);
    return level < 0 ? best_level() : level;
}

void set_simd_level(const std::string& name) {
    const int level = level_number(name);
    if (level < 0) {
        std::string known;
        for (const Level& l : kLevels) known += (known.empty() ? "" : ", ") + std::string(l.name);
        throw std::invalid_argument("unknown SIMD level '" + name + "'; known: " + known);
    }
    if (!is_available(level))
        throw std::invalid_argument("SIMD level '" + name +
                                    "' is not available on this machine; the best is '" +
                                    level_name(best_level()) + "'");
    in_use.store(level, std::memory_order_relaxed);
}

}  // namespace annvq
