#include "encode/network.h"

#include <algorithm>

#include "common/aligned.h"
#include "common/parallel.h"

namespace annvq {
namespace {

constexpr int64_t kChunk = 96;            // vectors per unit of work
constexpr int64_t kVectorsTogether = 24;  // that go through the network together

int32_t padded(int32_t count) { return (count + kLanes - 1) / kLanes * kLanes; }

// Runs fn(first row, rows, scratch) over blocks of n rows.
template <class Fn>
void for_rows(int64_t n, int64_t scratch_floats, int threads, Fn&& fn) {
    parallel_for((n + kChunk - 1) / kChunk, threads, [&](int64_t chunk) {
        AlignedFloats scratch(scratch_floats);
        const int64_t end = std::min(n, (chunk + 1) * kChunk);
        for (int64_t i = chunk * kChunk; i < end; i += kVectorsTogether)
            fn(i, std::min(kVectorsTogether, end - i), scratch.data);
    });
}

// The columns of values (rows, columns), each followed by zeros up to `width`.
std::vector<float> transposed(const float* values, int32_t rows, int32_t columns, int32_t width) {
    std::vector<float> out(static_cast<int64_t>(columns) * width);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++) out[j * width + i] = values[i * columns + j];
    return out;
}

}  // namespace

NetworkView Network::view() const {
    return {plain.view(),       outward.view(), inward.view(), outward_back.view(), inward_back.view(),
            plain.sizes.data(), entries.data(), table.data(),  bias.data(),         dim,
            padded(dim),        padded(hidden)};
}

Network make_network(const float* entries, const float* plain, const int32_t* sizes, int32_t M, int32_t dim,
                     const float* inward, const float* bias, const float* outward, int32_t hidden,
                     int threads) {
    const int32_t width = padded(dim), units = padded(hidden);
    std::vector<float> rows(static_cast<int64_t>(dim) * units);
    for (int32_t j = 0; j < dim; j++)
        std::copy_n(outward + static_cast<int64_t>(j) * hidden, hidden,
                    &rows[static_cast<int64_t>(j) * units]);
    Network n{product_books(plain, sizes, M, dim),
              product_books(rows.data(), &dim, 1, units),
              product_books(inward, &hidden, 1, dim),
              product_books(transposed(outward, dim, hidden, dim).data(), &hidden, 1, dim),
              product_books(transposed(inward, hidden, dim, units).data(), &dim, 1, units),
              dim,
              hidden,
              {},
              {},
              {}};
    n.bias.assign(units, 0.f);
    std::copy_n(bias, hidden, n.bias.begin());
    n.entries.assign(n.plain.padded * width, 0.f);
    for (int m = 0; m < M; m++)
        for (int64_t k = 0; k < sizes[m]; k++, entries += dim)
            std::copy_n(entries, dim, &n.entries[(n.plain.first[m] + k) * width]);
    n.table.resize(n.plain.padded * units);
    const BooksView view = n.inward.view();
    parallel_for((n.plain.padded + kVectorsTogether - 1) / kVectorsTogether, threads, [&](int64_t block) {
        const int64_t from = block * kVectorsTogether,
                      some = std::min(kVectorsTogether, n.plain.padded - from);
        encode_kernels().products(view, 0, view.panel_from[1], &n.entries[from * width], width, some, false,
                                  &n.table[from * units], units);
    });
    return n;
}

void network_decode(const Network& network, const uint16_t* codes, int64_t n, const float* weights,
                    float* out, float* told, int threads) {
    const EncodeKernels& k = encode_kernels();
    const NetworkView view = network.view();
    std::vector<float> own(view.hidden, 0.f);
    if (told) std::copy_n(weights, network.hidden, own.begin());
    for_rows(n, k.network_scratch(view, kVectorsTogether, 0), threads,
             [&](int64_t i, int64_t rows, float* scratch) {
                 k.network_decode(view, codes + i * view.plain.M, rows, own.data(), out + i * view.dim,
                                  told ? told + i : nullptr, scratch);
             });
}

void network_hidden(const Network& network, const uint16_t* codes, int64_t n, float* out, int threads) {
    const EncodeKernels& k = encode_kernels();
    const NetworkView view = network.view();
    for_rows(n, kVectorsTogether * view.hidden, threads, [&](int64_t i, int64_t rows, float* scratch) {
        k.network_hidden(view, codes + i * view.plain.M, rows, scratch);
        for (int64_t r = 0; r < rows; r++)
            std::copy_n(scratch + r * view.hidden, network.hidden, out + (i + r) * network.hidden);
    });
}

void network_sweep(const Network& network, const float* x, int64_t n, int32_t candidates, int32_t sweeps,
                   uint16_t* codes, int threads) {
    const EncodeKernels& k = encode_kernels();
    const NetworkView view = network.view();
    for_rows(n, k.network_scratch(view, kVectorsTogether, candidates), threads,
             [&](int64_t i, int64_t rows, float* scratch) {
                 k.network_sweep(view, x + i * view.dim, rows, candidates, sweeps, codes + i * view.plain.M,
                                 scratch);
             });
}

void network_aim(const Network& network, const float* x, int64_t n, const uint16_t* codes, float reach,
                 float* sums, float* errors, int threads) {
    const EncodeKernels& k = encode_kernels();
    const NetworkView view = network.view();
    for_rows(n, k.network_scratch(view, kVectorsTogether, 1), threads,
             [&](int64_t i, int64_t rows, float* scratch) {
                 k.network_aim(view, x + i * view.dim, rows, codes + i * view.plain.M, reach,
                               sums + i * view.dim, errors + i, scratch);
             });
}

}  // namespace annvq
