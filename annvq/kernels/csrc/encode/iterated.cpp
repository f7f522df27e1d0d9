#include "encode/iterated.h"

#include <algorithm>
#include <vector>

#include "common/aligned.h"
#include "common/large_pages.h"
#include "common/parallel.h"

namespace annvq {
namespace {

constexpr int64_t kVectorsTogether = 24;  // whose products are formed together
constexpr int64_t kInStep = 512;          // vectors that go through iterated local search together, at most

// Scores of single entries of vectors from `row` on, float (rows, padded), to int16, strip after strip of
// (vectors, width); padding gets the upper limit.
void to_shorts(const BooksView& b, const PairsView& t, const float* products, int64_t row, int64_t rows,
               int64_t vectors, int16_t* out) {
    for (int64_t r = row; r < row + rows; r++, products += b.padded)
        for (int m = 0; m < b.M; m++) {
            const float* ips = products + b.first[m];
            const float* norms = &b.norms[b.first[m]];
            const int64_t padded = t.first[m + 1] - t.first[m], known = b.first[m + 1] - b.first[m];
            for (int64_t from = 0; from < padded;) {
                const int64_t width = strip_width(t, m, from), count = std::min(width, known - from);
                int16_t* o = out + vectors * (t.first[m] + from) + r * width;
                encode_kernels().products_to_shorts(ips + from, norms + from, count, t.scale, o);
                std::fill(o + count, o + width, int16_t{32767});
                from += width;
            }
        }
}

float squared_error(const EncoderBooks& b, const float* shifted, const uint16_t* codes, float* residual) {
    std::copy_n(shifted, b.width, residual);
    for (int m = 0; m < b.M; m++) {
        const float* c = &b.entries[(b.first[m] + codes[m]) * b.width];
        for (int j = 0; j < b.width; j++) residual[j] -= c[j];
    }
    float sum = 0;
    for (int j = 0; j < b.width; j++) sum += residual[j] * residual[j];
    return sum;
}

}  // namespace

void encode_iterated(const EncoderBooks& b, const PairTables& tables, const float* x, int64_t n,
                     const IteratedPlan& plan, uint16_t* codes, int threads) {
    const EncodeKernels& kernels = encode_kernels();
    const BooksView view = b.view();
    const PairsView t = tables.view();
    const int64_t share = n / std::max(threads, 1), in_step = std::min(kInStep, std::max<int64_t>(share, 64));
    parallel_for((n + in_step - 1) / in_step, threads, [&](int64_t chunk) {
        const int64_t from = chunk * in_step, rows = std::min(in_step, n - from);
        AlignedFloats products(kVectorsTogether * b.padded), state(rows * (36 + 8 * b.M) / 4 + 1);
        LargeVector<int16_t> unary(rows * t.first[t.M]);
        std::vector<float> shifted(rows * b.width), residual(b.width);
        for (int64_t r = 0; r < rows; r++)
            for (int j = 0; j < b.width; j++)
                shifted[r * b.width + j] = x[(from + r) * b.width + j] - b.shift[j];
        for (int64_t r = 0; r < rows; r += kVectorsTogether) {
            const int64_t some = std::min(kVectorsTogether, rows - r);
            kernels.products(view, 0, b.panel_from[b.M], &shifted[r * b.width], b.width, some, false,
                             products.data, b.padded);
            to_shorts(view, t, products.data, r, some, rows, unary.data());
        }
        std::vector<int32_t> energy(rows);
        for (int64_t r = 0; r < rows; r++) {
            const float* v = &shifted[r * b.width];
            float sum = 0;
            for (int j = 0; j < b.width; j++) sum += v[j] * v[j];
            energy[r] = static_cast<int32_t>(std::min(sum * t.scale, 1e9f));
        }
        std::vector<uint16_t> found(codes + from * b.M, codes + (from + rows) * b.M);
        kernels.iterated(view, t, unary.data(), energy.data(), rows, plan, found.data(),
                         reinterpret_cast<unsigned char*>(state.data));
        for (int64_t r = 0; r < rows; r++) {
            uint16_t *given = codes + (from + r) * b.M, *now = &found[r * b.M];
            if (squared_error(b, &shifted[r * b.width], now, residual.data()) <
                squared_error(b, &shifted[r * b.width], given, residual.data()))
                std::copy_n(now, b.M, given);
        }
    });
}

}  // namespace annvq
