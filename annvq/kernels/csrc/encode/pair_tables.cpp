#include "encode/pair_tables.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace annvq {
namespace {

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
    encode_kernels().products(b.view(), 0, b.panel_from[b.M], made.data(), b.width, kDraws, false, out.data(),
                              b.padded);
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

PairsView PairTables::view() const {
    return {M,
            scale,
            shift,
            sizes.data(),
            first.data(),
            table.data(),
            shorts.empty() ? nullptr : shorts.data(),
            bytes.empty() ? nullptr : bytes.data()};
}

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
    const PairsView view = t.view();
    for (int o = 0; o < b.M; o++)
        for (int64_t a = 0; a < b.sizes[o]; a++)
            for (int m = 0; m < b.M; m++) {
                const float* gram = &b.gram[(b.first[o] + a) * b.padded + b.first[m]];
                for (int64_t from = 0; from < b.sizes[m];) {
                    const int64_t width = strip_width(view, m, from),
                                  row = row_of(view, m, t.first[o] + a, from, width);
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

}  // namespace annvq
