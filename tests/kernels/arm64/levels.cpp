// Kernels of 64-bit ARM's SIMD levels against plain loops and the generic level, for machines that can only
// emulate such a processor: tests/kernels/test_arm64.py compiles and runs it. Prints the levels that it ran;
// returns how many checks failed, and says which.
#include "simd/levels.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "coarse/bytes.h"
#include "coarse/kernels.h"
#include "encode/books.h"
#include "encode/encode.h"
#include "encode/iterated.h"
#include "encode/kernels.h"
#include "encode/network.h"
#include "encode/norm_search.h"
#include "encode/pair_tables.h"
#include "rerank/kernels.h"
#include "scan/kernels.h"
#include "store/kernels.h"
#include "tables/kernels.h"

using namespace annvq;

namespace {

int failed = 0;
void require(bool fine, const std::string& what) {
    if (fine) return;
    failed++;
    std::printf("level %s: %s\n", level_name(simd_level()), what.c_str());
}

uint64_t state = 1;
uint64_t draw() {  // splitmix64
    uint64_t x = state += 0x9E3779B97F4A7C15ull;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    return x ^ (x >> 31);
}
int64_t below(int64_t n) { return static_cast<int64_t>(draw() % static_cast<uint64_t>(n)); }
float number() { return static_cast<float>(below(2000001) - 1000000) / 300000.f; }
std::vector<float> numbers(int64_t n) {
    std::vector<float> out(n);
    for (float& v : out) v = number();
    return out;
}
std::vector<uint8_t> bytes(int64_t n, int limit = 256) {
    std::vector<uint8_t> out(n);
    for (uint8_t& b : out) b = static_cast<uint8_t>(below(limit));
    return out;
}
template <class T>
bool same(const std::vector<T>& a, const std::vector<T>& b) {
    return a.size() == b.size() && !std::memcmp(a.data(), b.data(), a.size() * sizeof(T));
}

// What `of` returns at the level in use is what it returns at the generic one.
template <class Of>
void compare(const std::string& what, Of&& of) {
    const uint64_t from = state;
    const auto own = of();
    const std::string level = level_name(simd_level());
    set_simd_level("generic");
    state = from;
    const auto wanted = of();
    set_simd_level(level);
    require(same(own, wanted), what);
}

void tables() {
    for (int64_t size : {1, 16, 17, 33, 100, 256})
        for (int64_t width : {1, 3, 16})
            for (int kind = 0; kind < 4; kind++)
                compare("tables of " + std::to_string(size), [&] {
                    const int64_t padded = (size + 15) / 16 * 16, nq = 1 + below(11);
                    const std::vector<float> values = numbers(padded * width), x = numbers(nq * width),
                                             offsets = numbers(size);
                    std::vector<float> out(nq * size);
                    table_kernels().rows({values.data(), size, padded, width}, x.data(), width, nq, kind & 1,
                                         -2.5f, kind & 2 ? offsets.data() : nullptr, out.data(), size);
                    return out;
                });
}

// Rows whose sums are at most the threshold, by the text of scan/kernels.h.
struct Expected {
    std::vector<int> rows, sums;
};
template <class Entry>
Expected expected(int64_t first, int64_t last, const FilterTables& t, int threshold, Entry entry) {
    Expected out;
    for (int64_t row = first; row < last; row++) {
        std::vector<int> sums(t.groups, 0);
        for (int g = 0, c = 0; g < t.groups; g++)
            for (const int end = t.groups > 1 ? t.ends[g] : t.columns; c < end; c++)
                sums[g] = std::min(255, sums[g] + entry(row, c));
        for (size_t count = sums.size(); count > 1; count /= 2)
            for (size_t i = 0; i < count / 2; i++) sums[i] = (sums[2 * i] + sums[2 * i + 1] + 1) / 2;
        if (sums[0] > threshold) continue;
        out.rows.push_back(static_cast<int>(row));
        out.sums.push_back(sums[0]);
    }
    return out;
}

constexpr int64_t kRows = 3 * kSuperblock;

template <class Entry>
void filter(const std::string& what, Filter run, const std::vector<uint8_t>& codes, FilterTables t,
            Entry entry) {
    for (int trial = 0; trial < 4; trial++) {
        const int64_t first = kFilterStep * below(kRows / kFilterStep),
                      last = first + 1 + below(kRows - first);
        t.ahead = trial % 2 * 64;
        // As few rows as there is room for.
        int threshold = 255;
        Expected wanted;
        do {
            threshold = static_cast<int>(below(threshold + 1));
            wanted = expected(first, last, t, threshold, entry);
        } while (static_cast<int>(wanted.rows.size()) > kRoom - kSuperblock && threshold);
        FilteredRows found;
        const int64_t done = run(codes.data(), first, last, t, static_cast<uint8_t>(threshold), &found);
        bool fine = done == last && found.count == static_cast<int>(wanted.rows.size());
        for (int i = 0; fine && i < found.count; i++)
            fine = found.rows[i] == wanted.rows[i] && found.sums[i] == wanted.sums[i];
        require(fine, what);
    }
}

void scan() {
    const ScanKernels& kernels = scan_kernels();
    require(kernels.filter_count > 0 && kernels.nibbles, "has filters");
    for (int64_t size : {1, 3, 16, 30, 256}) {
        std::vector<float> table = numbers(size);
        table[below(size)] = std::numeric_limits<float>::infinity();
        const float least = *std::min_element(table.begin(), table.end());
        require(kernels.least(table.data(), size) == least, "least");
        std::vector<uint8_t> out(256), wanted(size);
        kernels.quantize(table.data(), size, -4.f, 21.f, out.data());
        for (int64_t j = 0; j < size; j++)
            wanted[j] = static_cast<uint8_t>(std::min(255.f, (table[j] + 4.f) * 21.f));
        out.resize(size);  // what lies beyond may be anything
        require(same(out, wanted), "quantize");
        table[below(size)] = std::numeric_limits<float>::quiet_NaN();
        require(std::isnan(kernels.least(table.data(), size)), "least of what is no number");
    }
    for (int n : {1, 15, 64, 777}) {
        const std::vector<uint8_t> sums = bytes(n);
        int wanted = 0;
        for (uint8_t s : sums) wanted += s <= 99;
        require(kernels.count_at_most(sums.data(), n, 99) == wanted, "count_at_most");
    }
    for (const int columns : {1, 2, 9, 33})
        for (const int groups : {1, 2, 8}) {
            if (groups > columns) continue;
            std::vector<uint16_t> ends(groups);
            for (int g = 0; g < groups; g++) ends[g] = static_cast<uint16_t>((g + 1) * columns / groups);
            const std::vector<uint8_t> codes = bytes(kRows * columns + 64);
            const auto code = [&](int64_t row, int c) {
                return codes[row / kSuperblock * columns * kSuperblock + c * kSuperblock + row % kSuperblock];
            };
            const std::vector<uint8_t> own = bytes(256 * columns, 2 + 500 * groups / columns),
                                       meaning = bytes(256);
            const std::string size = std::to_string(columns) + " columns in " + std::to_string(groups);
            for (int f = 0; f < kernels.filter_count; f++) {
                const int entries = kernels.filters[f].entries;
                std::vector<uint8_t> table(entries * columns), pooled(entries * columns, 255);
                for (int c = 0; c < columns; c++) {
                    const uint8_t* labels = c % 2 ? meaning.data() : nullptr;
                    kernels.arrange(&own[256 * c], labels, entries, &table[entries * c]);
                    for (int b = 0; b < 256; b++) {
                        uint8_t& least = pooled[entries * c + b % entries];
                        least = std::min(least, own[256 * c + (labels ? labels[b] : b)]);
                    }
                }
                filter("filter of " + std::to_string(entries) + ", " + size, kernels.filters[f].run, codes,
                       {table.data(), columns, groups, ends.data()},
                       [&](int64_t row, int c) { return pooled[entries * c + code(row, c) % entries]; });
            }
            for (const bool norm : {false, true}) {
                std::vector<uint8_t> table(32 * columns);
                for (int c = 0; c < columns; c++) std::copy_n(&own[256 * c], 32, &table[32 * c]);
                if (norm) kernels.arrange(&own[256 * (columns - 1)], nullptr, 32, &table[32 * (columns - 1)]);
                filter("filter of nibbles, " + size, norm ? kernels.nibbles_norm : kernels.nibbles, codes,
                       {table.data(), columns, groups, ends.data()}, [&](int64_t row, int c) {
                           const int b = code(row, c);
                           const uint8_t* t = &own[256 * c];
                           if (!norm || c + 1 < columns) return t[b & 15] + t[16 + (b >> 4)];
                           int least = 255;
                           for (int i = b % 32; i < 256; i += 32) least = std::min<int>(least, t[i]);
                           return least;
                       });
            }
        }
}

void store() {
    compare("pack_bits", [] {
        std::vector<uint64_t> out(5);
        store_kernels().pack_bits(bytes(64 * 5, 3).data(), 5, out.data());
        return out;
    });
}

void rerank() {
    for (const RowType type : {RowType::f32, RowType::f16, RowType::bf16, RowType::u8, RowType::i8})
        for (const RowMetric metric : {RowMetric::l2, RowMetric::ip, RowMetric::cosine, RowMetric::unit})
            for (int64_t dim : {1, 7, 16, 31, 128})
                compare("distance", [&] {
                    const int64_t padded = (dim + 15) / 16 * 16;
                    std::vector<float> q = numbers(padded), out(20);
                    std::fill(q.begin() + dim, q.end(), 0.f);
                    for (float& distance : out) {
                        std::vector<uint8_t> row = bytes(dim * row_item(type));
                        for (int64_t j = 0; j < dim; j++) {
                            const float value = number();
                            uint32_t bits;
                            std::memcpy(&bits, &value, 4);
                            const auto half = static_cast<uint16_t>(
                                type == RowType::f16 ? draw() & 0xbbff : bits >> 16);  // all but the largest
                            if (type == RowType::f32) std::memcpy(&row[4 * j], &value, 4);
                            if (row_item(type) == 2) std::memcpy(&row[2 * j], &half, 2);
                        }
                        distance = rerank_kernels().distance(q.data(), row.data(), dim, type, metric);
                    }
                    return out;
                });
    for (int64_t width : {1, 4, 8, 13, 16, 32}) {
        compare("add", [&] {
            std::vector<float> sum = numbers(width);
            rerank_kernels().add(sum.data(), numbers(width).data(), width);
            return sum;
        });
        for (int64_t dim : {width, 3 * width})
            compare("add_all", [&] {
                const std::vector<float> entries = numbers(6 * width);
                const float* from[6];
                int32_t starts[6];
                for (int32_t m = 0; m < 6; m++)
                    from[m] = &entries[m * width],
                    starts[m] = static_cast<int32_t>(m % (dim / width) * width);
                std::vector<float> sum = numbers(dim);
                rerank_kernels().add_all(sum.data(), from, starts, 6, width, dim);
                return sum;
            });
    }
    for (const RowMetric metric : {RowMetric::l2, RowMetric::ip, RowMetric::cosine, RowMetric::unit})
        for (int count : {1, 2})
            compare("product", [&] {
                constexpr int64_t dim = 48;
                const std::vector<float> q = numbers(dim), wide = numbers(256 * dim),
                                         narrow = numbers(256 * dim);
                const std::vector<uint8_t> codes = bytes(dim / 8), more = bytes(dim / 16);
                const ProductPart parts[] = {{narrow.data(), 8, codes.data()},
                                             {wide.data(), 16, more.data()}};
                return std::vector<float>{rerank_kernels().product(q.data(), parts, count, dim, metric)};
            });
}

void coarse() {
    const CoarseKernels& kernels = *coarse_kernels();
    for (const int32_t dim : {1, 6, 16, 33, 100}) {
        constexpr int64_t nlist = 150, rows = 7;
        const std::vector<float> centroids = numbers(nlist * dim), queries = numbers(rows * dim);
        const ByteCentroids made = byte_centroids(centroids.data(), nlist, dim);
        const BytesView b = made.view();
        std::vector<uint8_t> own(rows * 4 * b.quads);
        std::vector<float> steps(rows), lengths(rows), errors(rows), found(rows * b.padded);
        for (int64_t r = 0; r < rows; r++)
            kernels.quantize(b, &queries[r * dim], &own[r * 4 * b.quads], &steps[r], &lengths[r], &errors[r]);
        kernels.scores(b, own.data(), steps.data(), rows, found.data());
        for (int64_t r = 0; r < rows; r++) {
            double length = 0;
            for (int32_t j = 0; j < dim; j++) length += std::pow(queries[r * dim + j] - b.mean[j], 2);
            require(std::fabs(std::sqrt(length) - lengths[r]) < 1e-4 * std::sqrt(length),
                    "lengths of queries");
            const double off =
                2.002 * (errors[r] * made.widest + (lengths[r] + errors[r]) * made.error) + 1e-3;
            bool fine = true;
            for (int64_t i = 0; i < b.padded; i++) {
                const float score = found[r * b.padded + i];
                if (i >= nlist) fine &= std::isinf(score);
                double exact = -length;
                for (int32_t j = 0; i < nlist && j < dim; j++)
                    exact += std::pow(queries[r * dim + j] - centroids[i * dim + j], 2);
                fine &= i >= nlist || std::fabs(score - exact) <= off;
            }
            require(fine, "scores by bytes of " + std::to_string(dim));
        }
        std::vector<int32_t> chosen(b.padded + kByteLanes);
        const float limit = kernels.bound(found.data(), b.padded, 20, 48);
        const int64_t count = kernels.at_most(found.data(), b.padded, limit, chosen.data());
        std::vector<int32_t> wanted;
        for (int32_t i = 0; i < b.padded; i++)
            if (found[i] <= limit) wanted.push_back(i);
        chosen.resize(count);
        require(count >= 20 && count < 75 && same(chosen, wanted), "lists within a bound");
        std::vector<float> exact(count), plain(count);
        kernels.distances(centroids.data(), dim, queries.data(), chosen.data(), count, exact.data());
        for (int64_t i = 0; i < count; i++)
            for (int32_t j = 0; j < dim; j++) {
                const float v = queries[j] - centroids[chosen[i] * dim + j], square = v * v;
                plain[i] = plain[i] + square;
            }
        require(same(exact, plain), "distances of " + std::to_string(dim));
    }
    for (int64_t n : {1, 16, 37, 200}) {
        std::vector<float> values(n);
        for (float& v : values) v = static_cast<float>(below(40));
        std::vector<int32_t> ranks(n + 16), wanted(n);
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < n; j++)
                wanted[i] += values[j] < values[i] || (values[j] == values[i] && j < i);
        kernels.ranks(values.data(), n, ranks.data());
        ranks.resize(n);
        require(same(ranks, wanted), "ranks");
    }
}

void encode() {
    constexpr int64_t n = 25;
    const auto some = [&](const char* what, int64_t M, int64_t most, int32_t width, auto of) {
        // Also with few different values, so that many sums are equal, and large ones, so that integers
        // saturate.
        for (const float scale : {0.f, 1.f, 16.f})
            compare(what, [&] {
                std::vector<int32_t> sizes(M);
                int64_t all = 0;
                for (int32_t& size : sizes) all += size = static_cast<int32_t>(most - below(most / 4));
                std::vector<float> entries = numbers(all * width), x = numbers(n * width * M);
                for (float& v : entries) v = scale > 0 ? std::round(v) : v;
                for (float& v : x) v = scale > 0 ? scale * std::round(v) : v;
                std::vector<uint16_t> codes(n * M);
                for (int64_t i = 0; i < n * M; i++) codes[i] = static_cast<uint16_t>(below(sizes[i % M]));
                of(entries.data(), sizes, x.data(), codes);
                return codes;
            });
    };
    compare("scores in 16 bits", [] {
        std::vector<float> products = numbers(64), norms = numbers(64);
        norms[3] = std::numeric_limits<float>::infinity(),
        products[7] = std::numeric_limits<float>::quiet_NaN();
        products[9] = 1e30f;
        std::vector<int16_t> out(64);
        encode_kernels().products_to_shorts(products.data(), norms.data(), 64, 3000.f, out.data());
        return out;
    });
    compare("decoded by a network", [] {
        const int32_t sizes[] = {3, 18};
        const std::vector<float> entries = numbers(21 * 9), in = numbers(21 * 9), bias = numbers(21),
                                 out = numbers(9 * 21), weights = numbers(21);
        const Network network = make_network(entries.data(), entries.data(), sizes, 2, 9, in.data(),
                                             bias.data(), out.data(), 21, 1);
        std::vector<uint16_t> codes(2 * n);
        for (int64_t i = 0; i < 2 * n; i++) codes[i] = static_cast<uint16_t>(below(sizes[i % 2]));
        std::vector<float> found(31 * n);  // vectors, what is told, hidden units
        network_decode(network, codes.data(), n, weights.data(), found.data(), &found[9 * n], 1);
        network_hidden(network, codes.data(), n, &found[10 * n], 1);
        return found;
    });
    using Sizes = std::vector<int32_t>;
    using Codes = std::vector<uint16_t>;
    for (int64_t most : {5, 40, 256}) {
        some("nearest entries", 3, most, 4,
             [&](const float* entries, const Sizes& sizes, const float* x, Codes& codes) {
                 const int32_t offsets[] = {0, 4, 8};
                 encode_product(product_books(entries, sizes.data(), 3, 4), offsets, x, n, 12, codes.data(),
                                1);
             });
        for (const int64_t limit : {int64_t{0}, int64_t{1} << 30})
            for (const bool any_order : {false, true})
                some("beam and local search", 4, most, 9,
                     [&](const float* entries, const Sizes& sizes, const float* x, Codes& codes) {
                         const EncoderBooks books = additive_books(entries, sizes.data(), 4, 9, limit, 1);
                         encode_beam(books, x, n, 6, any_order, 1, codes.data(), 1);
                         const int32_t schedule[] = {0, 2, 3, 1, 2, 0};
                         encode_local_search(books, x, n, schedule, 3, 2, 8, codes.data(), 1);
                     });
        some("norm search", 4, most, 9,
             [&](const float* entries, const Sizes& sizes, const float* x, Codes& codes) {
                 const EncoderBooks books = additive_books(entries, sizes.data(), 4, 9, int64_t{1} << 30, 1);
                 const std::vector<float> offsets = numbers(std::accumulate(sizes.begin(), sizes.end(), 0));
                 const float levels[] = {0, 3, 5, 9, 14, 30};
                 const int32_t pairs[] = {0, 1, 2, 3, 3, 0};
                 encode_norm_search(books, norm_model(books, offsets.data(), levels, 6, 1, .5f), x, nullptr,
                                    nullptr, n, pairs, 3, codes.data(), 1);
                 encode_norm_search(books, norm_model(books, offsets.data(), nullptr, 0, .3f, 0), x, nullptr,
                                    nullptr, n, pairs, 3, codes.data(), 1);
             });
        some("iterated search", 5, most, 9,
             [&](const float* entries, const Sizes& sizes, const float* x, Codes& codes) {
                 const EncoderBooks books = additive_books(entries, sizes.data(), 5, 9, int64_t{1} << 30, 1);
                 encode_iterated(books, pair_tables(books), x, n, {4, 2, 2, 7, .1f}, codes.data(), 1);
             });
        some("codes of a network", 3, most, 9,
             [&](const float* entries, const Sizes& sizes, const float* x, Codes& codes) {
                 const std::vector<float> in = numbers(21 * 9), bias = numbers(21), out = numbers(9 * 21);
                 const Network network = make_network(entries, entries, sizes.data(), 3, 9, in.data(),
                                                      bias.data(), out.data(), 21, 1);
                 network_sweep(network, x, n, 4, 2, codes.data(), 1);
             });
    }
}

}  // namespace

int main() {
    for (const std::string& level : available_levels()) {
        set_simd_level(level);
        std::printf("%s\n", level.c_str());
        if (level == "neon") tables(), scan(), store(), rerank(), encode();
        if (level != "generic") coarse();
    }
    return failed;
}
