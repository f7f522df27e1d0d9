#include "encode/encode.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <new>

#include "common/centre.h"
#include "common/parallel.h"
#include "encode/norm_search.h"
#include "simd/levels.h"

namespace annvq {

const EncodeKernels& encode_kernels() {
#if defined(__x86_64__)
    if (simd_level() >= SimdLevel::avx512) return kEncodeAvx512;
    if (simd_level() >= SimdLevel::avx2) return kEncodeAvx2;
#endif
    return kEncodeGeneric;
}

namespace {

constexpr int64_t kChunk = 192;           // vectors per unit of work
constexpr int64_t kVectorsTogether = 24;  // vectors whose products are formed together

const EncodeKernels& kernels() { return encode_kernels(); }

// Scratch memory on a 64-byte boundary.
struct Scratch {
    explicit Scratch(int64_t floats)
        : data(static_cast<float*>(
              ::operator new(std::max<int64_t>(floats, 1) * sizeof(float), std::align_val_t{64}))) {}
    ~Scratch() { ::operator delete(data, std::align_val_t{64}); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    float* data;
};

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
    parallel_for((b.padded + kVectorsTogether - 1) / kVectorsTogether, threads, [&](int64_t block) {
        const int64_t from = block * kVectorsTogether, rows = std::min(kVectorsTogether, b.padded - from);
        float* out = b.gram.data() + from * b.padded;
        kernels().products(b, 0, b.panel_from[b.M], b.entries.data() + from * b.width, b.width, rows, false,
                           out, b.padded);
        for (int64_t i = 0; i < rows * b.padded; i++) out[i] += out[i];
    });
    for (int m = 0; m < b.M; m++)
        for (int64_t e = b.first[m]; e < b.first[m + 1]; e++)
            std::fill(b.gram.begin() + e * b.padded + b.first[m],
                      b.gram.begin() + e * b.padded + b.first[m + 1], 0.f);
}

// Runs fn(shifted vectors, first row, rows) over blocks; one scratch per unit of work.
template <class Fn>
void for_blocks(const EncoderBooks& b, const float* x, int64_t n, int64_t scratch_floats, int threads,
                Fn&& fn) {
    parallel_for((n + kChunk - 1) / kChunk, threads, [&](int64_t chunk) {
        Scratch scratch(scratch_floats);
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

void* large_pages(size_t bytes) {
    constexpr size_t kLargePage = 1 << 21;
    const size_t boundary = bytes >= kLargePage ? kLargePage : 64;
    const size_t rounded = (std::max<size_t>(bytes, 1) + boundary - 1) / boundary * boundary;
    void* p = std::aligned_alloc(boundary, rounded);
    if (p == nullptr) throw std::bad_alloc();
#if defined(__linux__)
    if (boundary == kLargePage) madvise(p, rounded, MADV_HUGEPAGE);
#endif
    return p;
}

void free_large_pages(void* p) { std::free(p); }

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

void encode_product(const EncoderBooks& b, const int32_t* offsets, const float* x, int64_t n, int64_t dim,
                    uint16_t* codes, int threads) {
    int64_t widest = 0;
    for (int m = 0; m < b.M; m++) widest = std::max(widest, b.first[m + 1] - b.first[m]);
    const int64_t block = std::clamp<int64_t>((1 << 18) / widest, 6, 48);
    parallel_for((n + kChunk - 1) / kChunk, threads, [&](int64_t chunk) {
        Scratch scratch(block * widest);
        const int64_t end = std::min(n, (chunk + 1) * kChunk);
        for (int64_t i = chunk * kChunk; i < end; i += block) {
            const int64_t rows = std::min(block, end - i);
            for (int m = 0; m < b.M; m++) {
                const int64_t padded = b.first[m + 1] - b.first[m];
                kernels().products(b, b.panel_from[m], b.panel_from[m + 1], x + i * dim + offsets[m], dim,
                                   rows, true, scratch.data, padded);
                for (int64_t r = 0; r < rows; r++) {
                    float* row = scratch.data + r * padded;
                    std::fill(row + b.sizes[m], row + padded, std::numeric_limits<float>::infinity());
                    codes[(i + r) * b.M + m] = static_cast<uint16_t>(kernels().argmin(row, padded));
                }
            }
        }
    });
}

void encode_beam(const EncoderBooks& b, const float* x, int64_t n, int32_t beam, bool any_order, int32_t keep,
                 uint16_t* codes, int threads) {
    const EncodeKernels& k = kernels();
    for_blocks(b, x, n, k.beam_scratch(b, kVectorsTogether, beam, any_order), threads,
               [&](const float* block, int64_t i, int64_t rows, float* scratch) {
                   k.beam(b, block, rows, beam, any_order, keep, codes + i * keep * b.M, scratch);
               });
}

void encode_local_search(const EncoderBooks& b, const float* x, int64_t n, const int32_t* schedule,
                         int32_t rounds, int32_t open, int32_t width, uint16_t* codes, int threads) {
    const EncodeKernels& k = kernels();
    for_blocks(b, x, n, k.local_search_scratch(b, kVectorsTogether, open, width), threads,
               [&](const float* block, int64_t i, int64_t rows, float* scratch) {
                   k.local_search(b, block, rows, schedule, rounds, open, width, codes + i * b.M, scratch);
               });
}

void encode_norm_search(const EncoderBooks& b, const NormModel& model, const float* x, const float* centres,
                        int64_t n, const int32_t* pairs, int32_t rounds, uint16_t* codes, int threads) {
    const EncodeKernels& k = kernels();
    for_blocks(b, x, n, k.norm_search_scratch(b, kVectorsTogether), threads,
               [&](const float* block, int64_t i, int64_t rows, float* scratch) {
                   k.norm_search(b, model, block, centres ? centres + i * b.width : nullptr, rows, pairs,
                                 rounds, codes + i * b.M, scratch);
               });
}

namespace {

constexpr int64_t kInStep = 512;  // vectors that go through iterated local search together, at most

// The largest score of a single entry for vectors that the codebooks themselves can make.
float score_range(const EncoderBooks& b) {
    constexpr int kDraws = 48;
    std::vector<float> made(static_cast<size_t>(kDraws) * b.width, 0.f), out(kDraws * b.padded);
    uint64_t state = 0x9E3779B97F4A7C15ull;
    for (int i = 0; i < kDraws; i++)
        for (int m = 0; m < b.M; m++) {
            state = state * 6364136223846793005ull + 1442695040888963407ull;
            const int64_t e = b.first[m] + static_cast<int64_t>((state >> 33) % b.sizes[m]);
            for (int j = 0; j < b.width; j++) made[i * b.width + j] += b.entries[e * b.width + j];
        }
    kernels().products(b, 0, b.panel_from[b.M], made.data(), b.width, kDraws, false, out.data(), b.padded);
    float range = 0;
    for (int i = 0; i < kDraws; i++)
        for (int m = 0; m < b.M; m++)
            for (int64_t e = b.first[m]; e < b.first[m] + b.sizes[m]; e++)
                range = std::max(range, std::abs(b.norms[e] - 2 * out[i * b.padded + e]));
    return range;
}

// Largest power of two that leaves a factor of 1.5 to 3 between scores seen and the 16-bit limit.
float power_of_two_scale(float range) {
    if (!(range > 0) || !std::isfinite(range)) return 1.f;
    return std::ldexp(1.f, static_cast<int>(std::floor(std::log2(32767.0 / (1.5 * range)))));
}

inline int16_t to_short(float v) {
    v = v < 32767.f ? v : 32767.f;  // also where v is not a number
    v = v > -32768.f ? v : -32768.f;
    return static_cast<int16_t>(std::lrint(v));
}

// Scores of single entries of vectors from `row` on, float (rows, padded), to int16, strip after strip of
// (vectors, width); padding gets the upper limit.
void to_shorts(const EncoderBooks& b, const PairTables& t, const float* products, int64_t row, int64_t rows,
               int64_t vectors, int16_t* out) {
    for (int64_t r = row; r < row + rows; r++, products += b.padded)
        for (int m = 0; m < b.M; m++) {
            const float* ips = products + b.first[m];
            const float* norms = &b.norms[b.first[m]];
            const int64_t padded = t.first[m + 1] - t.first[m], known = b.first[m + 1] - b.first[m];
            for (int64_t from = 0; from < padded;) {
                const int64_t width = t.strip_width(m, from), count = std::min(width, known - from);
                int16_t* o = out + vectors * (t.first[m] + from) + r * width;
                kernels().products_to_shorts(ips + from, norms + from, count, t.scale, o);
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

constexpr double kPairRange = 8;    // of bytes of pairs, in root mean squares of pairs
constexpr double kByteGrading = 2;  // most energy of a codebook over the least, where bytes are fine enough

// Whether pairs are kept as bytes: where codebooks are large, so that memory counts, and of about equal
// energy, so that one unit suits them all.
bool bytes_suit(const EncoderBooks& b) {
    double least = std::numeric_limits<double>::infinity(), most = 0;
    for (int m = 0; m < b.M; m++) {
        if (b.sizes[m] % kStripEntries) return false;
        double energy = 0;
        for (int64_t e = b.first[m]; e < b.first[m + 1]; e++) energy += b.norms[e];
        least = std::min(least, energy / b.sizes[m]);
        most = std::max(most, energy / b.sizes[m]);
    }
    return b.M > 1 && most <= kByteGrading * least;
}

// Root mean square of the Gram matrix outside of codebooks.
double pair_size(const EncoderBooks& b) {
    double sum = 0, count = 0;
    for (int m = 0; m < b.M; m++) count += static_cast<double>(b.sizes[m]) * (b.padded - b.sizes[m]);
    for (const float pair : b.gram) sum += static_cast<double>(pair) * pair;
    return std::sqrt(sum / count);
}

void set_byte_scale(const EncoderBooks& b, PairTables& t) {
    // So many units of scores that a sum of pairs still fits 16 bits.
    t.shift = static_cast<int>(std::floor(std::log2(32767.0 / (127 * (b.M - 1)))));
    const double scale = std::ldexp(127 / (kPairRange * pair_size(b)), t.shift);
    t.scale = static_cast<float>(std::isfinite(scale) ? std::min(scale, 1e30) : 1);
}

// A row of a strip in bytes. Sixty-four entries take 64 bytes, read as 16-bit words: the first thirty-two are
// the low bytes, plus 128, and the others the high ones, so that words are summed and their high bytes apart.
void byte_row(const float* gram, float scale, int8_t* out) {
    const auto rounded = [&](float v) {
        return static_cast<int>(std::lrint(std::min(std::max(v * scale, -127.f), 127.f)));
    };
    for (int64_t from = 0; from < kStripEntries; from += 64)
        for (int64_t k = 0; k < 32; k++) {
            out[from + 2 * k] = static_cast<int8_t>(static_cast<uint8_t>(rounded(gram[from + k]) + 128));
            out[from + 2 * k + 1] = static_cast<int8_t>(rounded(gram[from + 32 + k]));
        }
}

}  // namespace

PairTables pair_tables(const EncoderBooks& b) {
    PairTables t;
    t.M = b.M;
    t.sizes = b.sizes;
    t.first.assign(1, 0);
    for (int m = 0; m < b.M; m++) t.first.push_back(t.first[m] + (b.sizes[m] + 31) / 32 * 32);
    int64_t at = 0;
    for (int m = 0; m < b.M; m++) {
        t.table.push_back(at);
        at += t.first[b.M] * (t.first[m + 1] - t.first[m]);
    }
    const bool bytes = bytes_suit(b);
    if (bytes) {
        set_byte_scale(b, t);
        t.bytes.resize(at);
    } else {
        t.scale = power_of_two_scale(score_range(b));
        t.shorts.resize(at);
    }
    const float unit = std::ldexp(t.scale, -t.shift);
    for (int o = 0; o < b.M; o++)
        for (int64_t a = 0; a < b.sizes[o]; a++)
            for (int m = 0; m < b.M; m++) {
                const float* gram = &b.gram[(b.first[o] + a) * b.padded + b.first[m]];
                for (int64_t from = 0; from < b.sizes[m];) {
                    const int64_t width = t.strip_width(m, from), row = t.row(m, t.first[o] + a, from, width);
                    if (bytes)
                        byte_row(gram + from, unit, t.bytes.data() + row);
                    else
                        for (int64_t k = 0; k < std::min(width, b.sizes[m] - from); k++)
                            t.shorts[row + k] = to_short(gram[from + k] * t.scale);
                    from += width;
                }
            }
    return t;
}

void encode_iterated(const EncoderBooks& b, const PairTables& t, const float* x, int64_t n,
                     const IteratedPlan& plan, uint16_t* codes, int threads) {
    const int64_t share = n / std::max(threads, 1), in_step = std::min(kInStep, std::max<int64_t>(share, 64));
    parallel_for((n + in_step - 1) / in_step, threads, [&](int64_t chunk) {
        const int64_t from = chunk * in_step, rows = std::min(in_step, n - from);
        Scratch products(kVectorsTogether * b.padded), state(rows * (36 + 8 * b.M) / 4 + 1);
        LargeShorts unary(rows * t.first[t.M]);
        std::vector<float> shifted(rows * b.width), residual(b.width);
        for (int64_t r = 0; r < rows; r++)
            for (int j = 0; j < b.width; j++)
                shifted[r * b.width + j] = x[(from + r) * b.width + j] - b.shift[j];
        for (int64_t r = 0; r < rows; r += kVectorsTogether) {
            const int64_t some = std::min(kVectorsTogether, rows - r);
            kernels().products(b, 0, b.panel_from[b.M], &shifted[r * b.width], b.width, some, false,
                               products.data, b.padded);
            to_shorts(b, t, products.data, r, some, rows, unary.data());
        }
        std::vector<int32_t> energy(rows);
        for (int64_t r = 0; r < rows; r++) {
            const float* v = &shifted[r * b.width];
            float sum = 0;
            for (int j = 0; j < b.width; j++) sum += v[j] * v[j];
            energy[r] = static_cast<int32_t>(std::min(sum * t.scale, 1e9f));
        }
        std::vector<uint16_t> found(codes + from * b.M, codes + (from + rows) * b.M);
        kernels().iterated(b, t, unary.data(), energy.data(), rows, plan, found.data(),
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
