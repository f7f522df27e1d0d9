#include "scan/blocks.h"

#include <algorithm>
#include <vector>

#include "common/parallel.h"

namespace annvq {
namespace {

std::vector<uint64_t> kept_words(const Blocks& blocks) {
    std::vector<uint64_t> words(superblocks(blocks.segment.n) * 8, 0);
    for (int64_t i = 0; i < blocks.segment.n; i++)
        words[i / 64] |= static_cast<uint64_t>(blocks.keep[i] != 0) << (i % 64);
    return words;
}

}  // namespace

void scan_blocks(const Blocks& blocks, const ScanKernels& kernels, const float* luts, int64_t K,
                 const float* bias, int64_t nq, int64_t k, float* distances, int64_t* ids, int threads) {
    const int64_t count = superblocks(blocks.segment.n);
    std::vector<uint64_t> kept;
    Segment segment = blocks.segment;
    if (blocks.keep) {
        kept = kept_words(blocks);
        segment.live = kept.data();
    }
    const int64_t share = std::max<int64_t>(1, std::min(kGroup, (nq + threads - 1) / threads));
    const int64_t groups = (nq + share - 1) / share;
    // With fewer queries than threads, each query's superblocks are shared out instead.
    const int64_t worth = blocks.layout.bytes(segment.n) / kPartBytes;
    const int64_t parts = groups ? std::max<int64_t>(1, std::min<int64_t>(threads / groups, worth)) : 1;
    std::vector<std::vector<Query>> found(groups * parts);
    parallel_for(groups * parts, threads, [&](int64_t task) {
        const int64_t g = task / parts, part = task % parts, stop = std::min(nq, (g + 1) * share);
        std::vector<Query>& queries = found[task];
        std::vector<Query*> pointers;
        queries.reserve(stop - g * share);
        for (int64_t q = g * share; q < stop; q++)
            queries.emplace_back(
                QueryTables{blocks.layout, luts + q * blocks.layout.M() * K, K, blocks.norm_levels}, kernels,
                k);
        for (Query& query : queries) pointers.push_back(&query);
        scan_together(pointers.data(), bias + g * share, static_cast<int64_t>(queries.size()), segment,
                      count * part / parts, count * (part + 1) / parts);
        if (parts > 1) return;
        for (int64_t q = g * share; q < stop; q++)
            queries[q - g * share].write(distances + q * k, ids + q * k);
        queries.clear();
    });
    for (int64_t g = 0; parts > 1 && g < groups; g++) {
        for (int64_t q = g * share; q < std::min(nq, (g + 1) * share); q++) {
            Query& whole = found[g * parts][q - g * share];
            for (int64_t part = 1; part < parts; part++)
                whole.merge(std::move(found[g * parts + part][q - g * share]));
            whole.write(distances + q * k, ids + q * k);
        }
    }
}

}  // namespace annvq
