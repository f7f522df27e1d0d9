#include "scan.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "parallel.h"

namespace annvq {
namespace {

using Hit = std::pair<float, int64_t>;  // ordered by (distance, id)

template <class Code>
float score(const float* luts, int64_t K, const Code* code, int M) {
    float sum = luts[code[0]];
    for (int m = 1; m < M; m++) sum += luts[m * K + code[m]];
    return sum;
}

template <class Code>
void scan_one(const CodesView& v, const float* luts, int64_t K, float bias, int64_t k,
              std::vector<Hit>& heap) {
    const Code* codes = static_cast<const Code*>(v.codes);
    for (int64_t i = 0; i < v.n; i++) {
        if (v.keep && !v.keep[i]) continue;
        float d = score(luts, K, codes + i * v.M, v.M);
        if (v.norms) d += v.norms[i];
        d += bias;
        if (!(d < std::numeric_limits<float>::infinity())) continue;
        const Hit hit{d, v.ids ? v.ids[i] : i};
        if (static_cast<int64_t>(heap.size()) < k) {
            heap.push_back(hit);
            std::push_heap(heap.begin(), heap.end());
        } else if (hit < heap.front()) {
            std::pop_heap(heap.begin(), heap.end());
            heap.back() = hit;
            std::push_heap(heap.begin(), heap.end());
        }
    }
    std::sort_heap(heap.begin(), heap.end());
}

}  // namespace

void scan_topk(const CodesView& v, const float* luts, int64_t K, const float* bias, int64_t nq, int64_t k,
               float* distances, int64_t* ids, int threads) {
    parallel_for(nq, threads, [&](int64_t q) {
        std::vector<Hit> heap;
        const float* l = luts + q * v.M * K;
        if (v.wide)
            scan_one<uint16_t>(v, l, K, bias[q], k, heap);
        else
            scan_one<uint8_t>(v, l, K, bias[q], k, heap);
        for (int64_t r = 0; r < k; r++) {
            const bool found = r < static_cast<int64_t>(heap.size());
            distances[q * k + r] = found ? heap[r].first : std::numeric_limits<float>::infinity();
            ids[q * k + r] = found ? heap[r].second : -1;
        }
    });
}

}  // namespace annvq
