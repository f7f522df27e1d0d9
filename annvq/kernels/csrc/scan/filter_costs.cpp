#include "scan/filter_costs.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <map>
#include <vector>

#include "common/mutex.h"
#include "scan/layout.h"

namespace annvq {
namespace {

Mutex measuring;
std::map<const ScanKernels*, FilterCosts> known;

struct alignas(64) Line {
    uint8_t bytes[64];
};

FilterCosts measure(const ScanKernels& kernels) {
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
            kernels.filters[f].run(codes[0].bytes, 0, count * kSuperblock, {tables[0].bytes, columns}, 0,
                                   &found);
            const std::chrono::duration<double, std::nano> taken = std::chrono::steady_clock::now() - start;
            least = std::min(least, taken.count());
        }
        costs.column[f] = least / (columns * count);
    }
    return costs;
}

}  // namespace

const FilterCosts& filter_costs(const ScanKernels& kernels) {
    std::lock_guard<Mutex> lock(measuring);
    const auto found = known.find(&kernels);
    if (found != known.end()) return found->second;
    return known.emplace(&kernels, measure(kernels)).first->second;
}

double lookup_ns() {
    const ScanKernels& kernels = scan_kernels();
    if (!kernels.filter_count) return 0;
    const double* columns = filter_costs(kernels).column;
    return *std::min_element(columns, columns + kernels.filter_count) / kSuperblock;
}

}  // namespace annvq
