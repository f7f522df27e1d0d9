// Iterated local search over 16-bit scores.
//
// The vectors of a block go in step: all of them update the same codebook, a strip of its entries at a time,
// so that the strip's part of the table of pairs stays in the core's own cache; then all turn to the next. A
// codebook is passed over for a vector none of whose other codes has changed since. Every vector goes its own
// way all the same: nothing depends on the block.
#pragma once
#include <cstddef>
#include <cstdint>

#include "encode/kernels.h"
#include "simd/lanes.h"

namespace annvq {
namespace {

constexpr int64_t kAhead = 3;  // vectors whose rows are fetched ahead
constexpr int32_t kSlack = 2;  // units of pairs, beyond which rounding does not lead astray
constexpr int kShorts = 32, kStrip = kStripEntries / kShorts;  // lanes, and groups of lanes of a strip

inline uint64_t mix(uint64_t x) {  // splitmix64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    return x ^ (x >> 31);
}

struct Lowest {
    int16_t value;
    int32_t found;  // where it stands
};

// The lowest of G groups of sums. Without branches: which entry wins is a matter of chance, and a wrong guess
// would cost more than the sums.
template <int G>
inline Lowest lowest_of(const Shorts* sum) {
    Shorts least = sum[0], where = splat(int16_t{0});
    for (int g = 1; g < G; g++) keep_lower(least, where, sum[g], splat(static_cast<int16_t>(g)));
    const int16_t value = lowest(least);
    int16_t groups[kShorts];
    store(groups, where);
    const int lane = __builtin_ctz(equal(least, value));
    return {value, groups[lane] * kShorts + lane};
}

// The lowest of the sums of `unary` and `rows` over G groups of lanes.
template <int G>
inline Lowest lowest_sum(const int16_t* unary, const int16_t* const* rows, int count, int) {
    Shorts sum[G];
    for (int g = 0; g < G; g++) sum[g] = load(unary + g * kShorts);
#pragma GCC unroll 4
    for (int r = 0; r < count; r++)
        for (int g = 0; g < G; g++) sum[g] = add(sum[g], load(rows[r] + g * kShorts));
    return lowest_of<G>(sum);
}

// The same with rows of bytes, in units of 2^shift, laid out as in byte_row: the sum of words, without the
// sum of their high bytes, is that of the low ones.
template <int G>
inline Lowest lowest_sum(const int16_t* unary, const int8_t* const* rows, int count, int shift) {
    static_assert(G % 2 == 0, "strips of bytes hold entries in pairs of groups");
    Shorts words[G / 2], high[G / 2], sum[G];
    for (int g = 0; g < G / 2; g++) words[g] = high[g] = splat(int16_t{0});
#pragma GCC unroll 4
    for (int r = 0; r < count; r++)
        for (int g = 0; g < G / 2; g++) {
            const Shorts row = load(reinterpret_cast<const int16_t*>(rows[r]) + g * kShorts);
            words[g] = plus(words[g], row);
            high[g] = plus(high[g], high_bytes(row));
        }
    const Shorts bias = splat(static_cast<int16_t>(128 * count));
    for (int g = 0; g < G / 2; g++) {
        const Shorts low = minus(minus(words[g], times_256(high[g])), bias);
        sum[2 * g] = add(load(unary + 2 * g * kShorts), shifted(low, shift));
        sum[2 * g + 1] = add(load(unary + (2 * g + 1) * kShorts), shifted(high[g], shift));
    }
    return lowest_of<G>(sum);
}

// What is known of a vector's update of a codebook, strip by strip.
struct Update {
    int32_t vector, found;
    int16_t lowest;
};

template <class Pair>
struct IteratedSearch {
    const BooksView& books;
    const PairsView& tables;
    const Pair* const pairs;
    const int16_t* const unary;
    const int32_t* const energy;  // what brings a score to the squared error
    const int64_t vectors;
    int32_t* best;    // score of the codes kept, up to a constant of the vector
    int32_t* here;    // and of the codes gone on from
    int32_t* parts;   // (vectors, M): the score of a code alone, and with its pairs, when it was last updated
    uint64_t* stale;  // bit m: codebook m has not been updated since another code changed
    uint64_t* salt;   // makes the vectors' perturbations differ
    uint16_t* trial;  // (vectors, M)
    uint16_t* walk;   // (vectors, M), the codes gone on from

    Update* updates;  // (vectors,)

    int64_t padded(int m) const { return tables.first[m + 1] - tables.first[m]; }
    // Scores of a strip of codebook m's entries, `width` of them from `from` on.
    const int16_t* unary_of(int64_t v, int m, int64_t from, int64_t width) const {
        return unary + vectors * (tables.first[m] + from) + v * width;
    }
    int16_t unary_at(int64_t v, int m, int64_t k) const {
        const int64_t from = strip_of(tables, m, k);
        return unary_of(v, m, from, strip_width(tables, m, from))[k - from];
    }

    // Score of codes, up to a constant of the vector.
    int32_t total(int64_t v, const uint16_t* codes) const {
        int32_t sum = 0;
        float products = 0;
        for (int m = 0; m < tables.M; m++) {
            sum += unary_at(v, m, codes[m]);
            const float* row = &books.gram[(books.first[m] + codes[m]) * books.padded];
            for (int o = 0; o < m; o++) products += row[books.first[o] + codes[o]];
        }
        products *= tables.scale;
        products = products < 1e9f ? products : 1e9f;  // also where it is not a number
        products = products > -1e9f ? products : -1e9f;
        return sum + static_cast<int32_t>(__builtin_lrintf(products));
    }

    // The same of the codes just swept where it is below `limit`, else something that is not. Where no
    // codebook is left stale, every part is up to date, and together they count everything twice, but for
    // rounding: most codes need not be looked at any closer.
    int32_t total_below(int64_t v, int64_t limit) const {
        if (!stale[v]) {
            int32_t sum = 0;
            for (int m = 0; m < tables.M; m++) sum += parts[v * tables.M + m];
            if (sum / 2 - (kSlack << tables.shift) >= limit) return sum / 2;
        }
        return total(v, trial + v * tables.M);
    }

    // Updates codebook m, its entries from `from` on, for `count` vectors.
    template <int G>
    void strip(int m, int64_t from, int64_t count) {
        constexpr int64_t width = G * kShorts;
        const Pair* bases[kMaxIteratedCodebooks];
        int others[kMaxIteratedCodebooks];
        const int M = tables.M;
        for (int o = 0, r = 0; o < M; o++) {
            if (o == m) continue;
            others[r] = o;
            bases[r++] = pairs + row_of(tables, m, tables.first[o], from, width);
        }
        const int16_t* unaries = unary_of(0, m, from, width);
        const Pair* rows[kAhead][kMaxIteratedCodebooks];
        const auto fetch = [&](int64_t i) {
            const uint16_t* codes = trial + updates[i].vector * M;
            for (int r = 0; r < M - 1; r++) {
                const Pair* row = bases[r] + codes[others[r]] * width;
                rows[i % kAhead][r] = row;
                for (size_t at = 0; at < width; at += 64 / sizeof(Pair)) __builtin_prefetch(row + at);
            }
        };
        for (int64_t i = 0; i < kAhead && i < count; i++) fetch(i);
        for (int64_t i = 0; i < count; i++) {
            Update& u = updates[i];
            const Lowest least =
                lowest_sum<G>(unaries + u.vector * width, rows[i % kAhead], M - 1, tables.shift);
            if (i + kAhead < count) fetch(i + kAhead);
            const bool better = least.value < u.lowest;
            u.lowest = better ? least.value : u.lowest;
            u.found = better ? static_cast<int32_t>(from) + least.found : u.found;
        }
    }

    // Updates codebook m of all vectors for which it is stale.
    void update(int m) {
        int64_t count = 0;
        const uint64_t bit = uint64_t{1} << m;
        for (int64_t v = 0; v < vectors; v++) {
            updates[count] = {static_cast<int32_t>(v), 0, 32767};
            count += (stale[v] & bit) != 0;
        }
        for (int64_t from = 0; from < padded(m);) {
            const int64_t width = strip_width(tables, m, from);
            if constexpr (sizeof(Pair) == 1)  // bytes come in whole strips
                strip<kStrip>(m, from, count);
            else if (width == kStripEntries)
                strip<kStrip>(m, from, count);
            else
                strip<1>(m, from, count);
            from += width;
        }
        for (int64_t i = 0; i < count; i++) {
            const Update& u = updates[i];
            uint16_t& code = trial[u.vector * tables.M + m];
            stale[u.vector] = (code == u.found ? stale[u.vector] : all()) & ~bit;
            code = static_cast<uint16_t>(u.found);
            parts[u.vector * tables.M + m] = u.lowest + unary_at(u.vector, m, code);
        }
    }

    uint64_t all() const { return ~uint64_t{0} >> (64 - tables.M); }

    void sweep(const int32_t* order, int32_t sweeps) {
        for (int32_t s = 0; s < sweeps; s++)
            for (int i = 0; i < tables.M; i++) update(order[i]);
    }

    void start(uint16_t* codes) {
        for (int64_t v = 0; v < vectors; v++) {
            stale[v] = all();
            salt[v] = 0;
            for (int m = 0; m < tables.M; m++) {
                trial[v * tables.M + m] = codes[v * tables.M + m];
                salt[v] = mix(salt[v] + codes[v * tables.M + m] + 0x9E3779B97F4A7C15ull);
            }
            best[v] = total(v, trial + v * tables.M);
        }
    }

    bool differ(const uint16_t* a, const uint16_t* b) const {
        for (int m = 0; m < tables.M; m++)
            if (a[m] != b[m]) return true;
        return false;
    }

    void take(uint16_t* to, const uint16_t* from) const {
        for (int m = 0; m < tables.M; m++) to[m] = from[m];
    }

    void keep_better(uint16_t* codes) {
        for (int64_t v = 0; v < vectors; v++) {
            uint16_t *kept = codes + v * tables.M, *found = trial + v * tables.M;
            if (!differ(kept, found)) continue;
            const int32_t value = total_below(v, best[v]);
            if (value >= best[v]) continue;
            best[v] = value;
            take(kept, found);
        }
    }

    // Goes on from the codes found where they are better, or less than a random share of `heat` / 2^16 of the
    // error worse.
    void step(uint16_t* codes, uint64_t draw, int64_t heat) {
        for (int64_t v = 0; v < vectors; v++) {
            uint16_t *from = walk + v * tables.M, *found = trial + v * tables.M;
            if (!differ(from, found)) continue;
            const int64_t distance = int64_t{best[v]} + energy[v], error = distance > 0 ? distance : 0;
            const auto random = static_cast<int64_t>(mix(salt[v] + draw) >> 48);
            const int64_t limit = here[v] + (((error * heat) >> 16) * random >> 16);
            const int32_t value = total_below(v, limit);
            if (value >= limit) continue;
            here[v] = value;
            take(from, found);
            if (value >= best[v]) continue;
            best[v] = value;
            take(codes + v * tables.M, found);
        }
    }

    // Replaces the codes of the first codebooks in `order`.
    void perturb(const int32_t* order, int32_t count, uint64_t draw) {
        for (int64_t v = 0; v < vectors; v++) {
            uint16_t* codes = trial + v * tables.M;
            take(codes, walk + v * tables.M);
            stale[v] = all();
            for (int32_t i = 0; i < count; i++) {
                const int m = order[i];
                const uint64_t random = mix(salt[v] + mix(draw + i));
                codes[m] = static_cast<uint16_t>((random >> 32) * tables.sizes[m] >> 32);
            }
        }
    }

    void shuffle(int32_t* order, uint64_t draw) const {
        const int32_t M = tables.M;
        for (int i = 0; i < M; i++) {
            const int j = i + static_cast<int>(mix(draw + 1000 + i) % static_cast<uint64_t>(M - i));
            const int32_t swapped = order[i];
            order[i] = order[j];
            order[j] = swapped;
        }
    }

    void run(const IteratedPlan& plan, uint16_t* codes) {
        int32_t order[kMaxIteratedCodebooks], turned[kMaxIteratedCodebooks];
        const int32_t M = tables.M, count = plan.perturbed < M ? plan.perturbed : M - 1;
        const int32_t iterations = count > 0 ? plan.iterations : 0;
        for (int m = 0; m < M; m++) order[m] = m;
        start(codes);
        sweep(order, plan.sweeps);
        keep_better(codes);
        for (int64_t v = 0; v < vectors; v++) {
            here[v] = best[v];
            take(walk + v * M, codes + v * M);
        }
        for (int32_t t = 0; t < iterations; t++) {
            const uint64_t draw = mix(plan.seed + 0x9E3779B97F4A7C15ull * static_cast<uint64_t>(t + 1));
            shuffle(order, draw);
            // The perturbed codebooks come last, or they would only be repaired.
            for (int i = 0; i < M; i++) turned[i] = order[(i + count) % M];
            perturb(order, count, draw);
            sweep(turned, plan.sweeps);
            step(codes, draw, static_cast<int64_t>(plan.heat * 65536.f) * (iterations - 1 - t) / iterations);
        }
    }
};

template <class Pair>
void iterated_search(const BooksView& books, const PairsView& tables, const Pair* pairs, const int16_t* unary,
                     const int32_t* energy, int64_t vectors, const IteratedPlan& plan, uint16_t* codes,
                     unsigned char* scratch) {
    auto* stale = reinterpret_cast<uint64_t*>(scratch);
    auto* updates = reinterpret_cast<Update*>(stale + 2 * vectors);
    auto* best = reinterpret_cast<int32_t*>(updates + vectors);
    auto* parts = best + 2 * vectors;
    auto* trial = reinterpret_cast<uint16_t*>(parts + vectors * tables.M);
    IteratedSearch<Pair> search{books,
                                tables,
                                pairs,
                                unary,
                                energy,
                                vectors,
                                best,
                                best + vectors,
                                parts,
                                stale,
                                stale + vectors,
                                trial,
                                trial + vectors * tables.M,
                                updates};
    search.run(plan, codes);
}

void iterated_block(const BooksView& books, const PairsView& tables, const int16_t* unary,
                    const int32_t* energy, int64_t vectors, const IteratedPlan& plan, uint16_t* codes,
                    unsigned char* scratch) {
    if (!tables.bytes)
        iterated_search(books, tables, tables.shorts, unary, energy, vectors, plan, codes, scratch);
    else
        iterated_search(books, tables, tables.bytes, unary, energy, vectors, plan, codes, scratch);
}

}  // namespace
}  // namespace annvq
