#include "encode/encode.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "common/aligned.h"
#include "common/parallel.h"
#include "encode/norm_search.h"

namespace annvq {
namespace {

constexpr int64_t kChunk = 192;           // vectors per unit of work
constexpr int64_t kVectorsTogether = 24;  // whose products are formed together

// Runs fn(shifted vectors, first row, rows) over blocks; one scratch per unit of work.
template <class Fn>
void for_blocks(const EncoderBooks& b, const float* x, int64_t n, int64_t scratch_floats, int threads,
                Fn&& fn) {
    parallel_for((n + kChunk - 1) / kChunk, threads, [&](int64_t chunk) {
        AlignedFloats scratch(scratch_floats);
        std::vector<float> shifted(kVectorsTogether * b.width);
        const int64_t end = std::min(n, (chunk + 1) * kChunk);
        for (int64_t i = chunk * kChunk; i < end; i += kVectorsTogether) {
            const int64_t rows = std::min(kVectorsTogether, end - i);
            for (int64_t r = 0; r < rows; r++)
                for (int j = 0; j < b.width; j++)
                    shifted[r * b.width + j] = x[(i + r) * b.width + j] - b.shift[j];
            fn(shifted.data(), i, rows, scratch.data);
        }
    });
}

}  // namespace

void encode_product(const EncoderBooks& b, const int32_t* offsets, const float* x, int64_t n, int64_t dim,
                    uint16_t* codes, int threads) {
    int64_t widest = 0;
    for (int m = 0; m < b.M; m++) widest = std::max(widest, b.first[m + 1] - b.first[m]);
    const EncodeKernels& kernels = encode_kernels();
    const BooksView view = b.view();
    const int64_t block = std::clamp<int64_t>((1 << 18) / widest, 6, 48);
    parallel_for((n + kChunk - 1) / kChunk, threads, [&](int64_t chunk) {
        AlignedFloats scratch(block * widest);
        const int64_t end = std::min(n, (chunk + 1) * kChunk);
        for (int64_t i = chunk * kChunk; i < end; i += block) {
            const int64_t rows = std::min(block, end - i);
            for (int m = 0; m < b.M; m++) {
                const int64_t padded = b.first[m + 1] - b.first[m];
                kernels.products(view, b.panel_from[m], b.panel_from[m + 1], x + i * dim + offsets[m], dim,
                                 rows, true, scratch.data, padded);
                for (int64_t r = 0; r < rows; r++) {
                    float* row = scratch.data + r * padded;
                    std::fill(row + b.sizes[m], row + padded, std::numeric_limits<float>::infinity());
                    codes[(i + r) * b.M + m] = static_cast<uint16_t>(kernels.argmin(row, padded));
                }
            }
        }
    });
}

void encode_beam(const EncoderBooks& b, const float* x, int64_t n, int32_t beam, bool any_order, int32_t keep,
                 uint16_t* codes, int threads) {
    const EncodeKernels& k = encode_kernels();
    const BooksView view = b.view();
    for_blocks(b, x, n, k.beam_scratch(view, kVectorsTogether, beam, any_order), threads,
               [&](const float* block, int64_t i, int64_t rows, float* scratch) {
                   k.beam(view, block, rows, beam, any_order, keep, codes + i * keep * b.M, scratch);
               });
}

void encode_local_search(const EncoderBooks& b, const float* x, int64_t n, const int32_t* schedule,
                         int32_t rounds, int32_t open, int32_t width, uint16_t* codes, int threads) {
    const EncodeKernels& k = encode_kernels();
    const BooksView view = b.view();
    for_blocks(b, x, n, k.local_search_scratch(view, kVectorsTogether, open, width), threads,
               [&](const float* block, int64_t i, int64_t rows, float* scratch) {
                   k.local_search(view, block, rows, schedule, rounds, open, width, codes + i * b.M, scratch);
               });
}

void encode_norm_search(const EncoderBooks& b, const NormModel& model, const float* x, const float* centres,
                        const float* rest, int64_t n, const int32_t* pairs, int32_t rounds, uint16_t* codes,
                        int threads) {
    const EncodeKernels& k = encode_kernels();
    const BooksView view = b.view();
    const NormView norms = model.view();
    for_blocks(b, x, n, k.norm_search_scratch(view, kVectorsTogether), threads,
               [&](const float* block, int64_t i, int64_t rows, float* scratch) {
                   k.norm_search(view, norms, block, centres ? centres + i * b.width : nullptr,
                                 rest ? rest + i : nullptr, rows, pairs, rounds, codes + i * b.M, scratch);
               });
}

}  // namespace annvq
