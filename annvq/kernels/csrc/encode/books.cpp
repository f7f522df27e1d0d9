#include "encode/books.h"

#include <algorithm>
#include <limits>

#include "common/centre.h"
#include "common/parallel.h"

namespace annvq {
namespace {

constexpr int64_t kRowsTogether = 24;  // of the Gram matrix

// Takes each codebook's centre off its entries; returns the centres' sum.
std::vector<float> centre(std::vector<float>& entries, const EncoderBooks& b) {
    std::vector<double> total(b.width, 0.0);
    std::vector<float> own(b.width);
    for (int m = 0; m < b.M; m++) {
        float* book = entries.data() + b.first[m] * b.width;
        book_centre(book, b.sizes[m], b.width, own.data());
        for (int64_t k = 0; k < b.sizes[m]; k++, book += b.width)
            for (int j = 0; j < b.width; j++) book[j] = book[j] - own[j];
        for (int j = 0; j < b.width; j++) total[j] += own[j];
    }
    return std::vector<float>(total.begin(), total.end());
}

void number_entries(EncoderBooks& b, const float* entries) {
    b.first.assign(1, 0);
    for (int m = 0; m < b.M; m++) b.first.push_back(b.first[m] + (b.sizes[m] + kLanes - 1) / kLanes * kLanes);
    b.padded = b.first[b.M];
    b.entries.assign(b.padded * b.width, 0.f);
    for (int m = 0; m < b.M; m++) {
        const int64_t count = static_cast<int64_t>(b.sizes[m]) * b.width;
        std::copy_n(entries, count, b.entries.begin() + b.first[m] * b.width);
        entries += count;
    }
}

void pack(EncoderBooks& b) {
    b.packed.resize(b.padded * b.width);
    b.norms.assign(b.padded, std::numeric_limits<float>::infinity());
    b.panel_from.assign(1, 0);
    int64_t data = 0;
    for (int m = 0; m < b.M; m++) {
        for (int64_t e = b.first[m]; e < b.first[m + 1]; e += 4 * kLanes) {
            const int32_t groups = static_cast<int32_t>(std::min<int64_t>(4, (b.first[m + 1] - e) / kLanes));
            b.panels.push_back({e, data, groups});
            for (int j = 0; j < b.width; j++)
                for (int64_t l = 0; l < groups * kLanes; l++)
                    b.packed[data++] = b.entries[(e + l) * b.width + j];
        }
        b.panel_from.push_back(static_cast<int64_t>(b.panels.size()));
        for (int64_t e = b.first[m]; e < b.first[m] + b.sizes[m]; e++) {
            double sum = 0;
            for (int j = 0; j < b.width; j++)
                sum += static_cast<double>(b.entries[e * b.width + j]) * b.entries[e * b.width + j];
            b.norms[e] = static_cast<float>(sum);
        }
    }
}

void make_gram(EncoderBooks& b, int threads) {
    b.gram.resize(b.padded * b.padded);
    const BooksView view = b.view();
    parallel_for((b.padded + kRowsTogether - 1) / kRowsTogether, threads, [&](int64_t block) {
        const int64_t from = block * kRowsTogether, rows = std::min(kRowsTogether, b.padded - from);
        float* out = b.gram.data() + from * b.padded;
        encode_kernels().products(view, 0, b.panel_from[b.M], b.entries.data() + from * b.width, b.width,
                                  rows, false, out, b.padded);
        for (int64_t i = 0; i < rows * b.padded; i++) out[i] += out[i];
    });
    for (int m = 0; m < b.M; m++)
        for (int64_t e = b.first[m]; e < b.first[m + 1]; e++)
            std::fill(b.gram.begin() + e * b.padded + b.first[m],
                      b.gram.begin() + e * b.padded + b.first[m + 1], 0.f);
}

}  // namespace

BooksView EncoderBooks::view() const {
    return {M,
            width,
            padded,
            first.data(),
            panel_from.data(),
            panels.data(),
            packed.data(),
            entries.data(),
            norms.data(),
            shift.data(),
            gram.empty() ? nullptr : gram.data()};
}

EncoderBooks product_books(const float* entries, const int32_t* sizes, int32_t M, int32_t width) {
    EncoderBooks b;
    b.M = M;
    b.width = width;
    b.sizes.assign(sizes, sizes + M);
    b.shift.assign(width, 0.f);
    number_entries(b, entries);
    pack(b);
    return b;
}

EncoderBooks additive_books(const float* entries, const int32_t* sizes, int32_t M, int32_t width,
                            int64_t gram_limit, int threads) {
    EncoderBooks b;
    b.M = M;
    b.width = width;
    b.sizes.assign(sizes, sizes + M);
    number_entries(b, entries);
    b.shift = centre(b.entries, b);
    pack(b);
    if (b.padded * b.padded * static_cast<int64_t>(sizeof(float)) <= gram_limit) make_gram(b, threads);
    return b;
}

}  // namespace annvq
