#include "scan/filters.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "simd/levels.h"

namespace annvq {
namespace {

struct alignas(64) Line {
    uint8_t bytes[64];
};

FilterCosts measure(const BlockKernels& kernels) {
    constexpr int columns = 8, count = 4, repeats = 12;
    const std::vector<Line> codes(columns * count * kSuperblock / 64);
    std::vector<Line> tables(columns * 256 / 64);
    std::memset(tables.data(), 255, tables.size() * sizeof(Line));  // so that no row gets through
    FilterCosts costs{};
    for (int f = 0; f < kernels.filter_count; f++) {
        double least = 1e9;
        for (int r = 0; r < repeats; r++) {
            FilteredRows found;
            const auto start = std::chrono::steady_clock::now();
            kernels.filters[f].run(codes[0].bytes, 0, count * kSuperblock, columns, tables[0].bytes, 0,
                                   &found);
            const std::chrono::duration<double, std::nano> taken = std::chrono::steady_clock::now() - start;
            least = std::min(least, taken.count());
        }
        costs.column[f] = least / (columns * count);
    }
    return costs;
}

template <const BlockKernels& kernels>
const FilterCosts& costs_of() {
    static const FilterCosts costs = measure(kernels);
    return costs;
}

}  // namespace

const BlockKernels& block_kernels() {
#if defined(__x86_64__)
    if (simd_level() == SimdLevel::avx512vbmi) return kBlocksVbmi;
    if (simd_level() == SimdLevel::avx512) return kBlocksAvx512;
    if (simd_level() == SimdLevel::avx2) return kBlocksAvx2;
#endif
    return kBlocksGeneric;
}

const FilterCosts& filter_costs(const BlockKernels& kernels) {
#if defined(__x86_64__)
    if (&kernels == &kBlocksVbmi) return costs_of<kBlocksVbmi>();
    if (&kernels == &kBlocksAvx512) return costs_of<kBlocksAvx512>();
    if (&kernels == &kBlocksAvx2) return costs_of<kBlocksAvx2>();
#endif
    return costs_of<kBlocksGeneric>();
}

}  // namespace annvq
