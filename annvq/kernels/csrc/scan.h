// Exact ADC over codes: the k lowest ((luts[0] + luts[1]) + ... + luts[M-1]) + norm + bias, ties by lower id.
#pragma once
#include <cstdint>

namespace annvq {

struct CodesView {
    const void* codes;  // (n, M) row-major, uint8 or uint16
    int64_t n;
    int32_t M;
    bool wide;            // uint16
    const float* norms;   // (n,) or nullptr
    const int64_t* ids;   // (n,) or nullptr: row numbers
    const uint8_t* keep;  // (n,) 0 = skip, or nullptr: all rows
};

// distances, ids: (nq, k), padded with +inf, -1. Scores of +inf are never returned.
void scan_topk(const CodesView& view, const float* luts, int64_t K, const float* bias, int64_t nq, int64_t k,
               float* distances, int64_t* ids, int threads);

}  // namespace annvq
