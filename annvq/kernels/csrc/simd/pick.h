// How a family of kernels finds those of the SIMD level in use.
//
// A family is a folder. Its kernels.h has a struct of functions, which a level fills in a file of its name
// (encode/avx2.cpp: annvq::avx2::kEncodeKernels); its kernels.cpp picks. CMakeLists.txt compiles these files,
// each with its level's instructions, and lists them (simd/built_levels.h).
//
// What such a file compiles must be seen by no other: the linker keeps one copy of an inline function or a
// template, which may be the one that the oldest machines cannot run. So all code that is compiled once per
// level (in *_core.h) is in unnamed namespaces, works on pointers, and uses nothing of the standard library
// but its constants and types; and the kernels are constants, as code that fills them would run wherever the
// library is loaded.
#pragma once
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <vector>

#include "simd/built_levels.h"
#include "simd/levels.h"

// For the lists of built_levels.h.
#define ANNVQ_DECLARE_KERNELS(level, Kernels) \
    namespace level {                         \
    extern const Kernels k##Kernels;          \
    }
#define ANNVQ_OWN_KERNELS(level, Kernels) {#level, &level::k##Kernels},

namespace annvq {

template <class Kernels>
struct OwnKernels {
    const char* level;
    const Kernels* kernels;
};

// The kernels of one family for the level in use, its own or else those of the level it falls back to;
// nullptr where there are none. `own` is the same at every call.
template <class Kernels>
const Kernels* pick(std::initializer_list<OwnKernels<Kernels>> own) {
    static const std::vector<const Kernels*> by_level = [&] {
        std::vector<const Kernels*> of_level(level_count(), nullptr);
        for (const auto& o : own) {
            const int level = level_number(o.level);
            if (level < 0)
                throw std::logic_error(std::string("no SIMD level '") + o.level + "' in simd/levels.cpp");
            of_level[level] = o.kernels;
        }
        std::vector<const Kernels*> out;
        for (int level = 0; level < level_count(); level++) {
            int from = level;
            while (from >= 0 && !of_level[from]) from = fallback_of(from);
            out.push_back(from < 0 ? nullptr : of_level[from]);
        }
        return out;
    }();
    return by_level[simd_level()];
}

}  // namespace annvq
