// Iterated local search over 16-bit scores, compiled once per instruction set (see encode_core.h).
//
// The vectors of a block go in step: all of them update the same codebook, a strip of its entries at a time,
// so that the strip's part of the table of pairs stays in the core's own cache; then all turn to the next. A
// codebook is passed over for a vector none of whose other codes has changed since. Every vector goes its own
// way all the same: nothing depends on the block.
#pragma once
#include <algorithm>
#include <cstdint>

#include "encode.h"
#include "encode_lanes.h"

namespace annvq::ANNVQ_ISA {

constexpr int kShorts = 32, kStrip = kStripEntries / kShorts;  // lanes, and groups of lanes of a strip

inline uint64_t mix(uint64_t x) {  // splitmix64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    return x ^ (x >> 31);
}

// The lowest of the sums of `unary` and `rows` over G groups of lanes, and where it stands: at `own` where that is
// as low as any (beyond the groups: nowhere), else where it first does. Without branches: which entry wins is a
// matter of chance, and a wrong guess would cost more than the sums.
struct Lowest {
    int16_t value;
    int32_t found;
};

template <int G>
inline Lowest lowest_sum(const int16_t* unary, const int16_t* const* rows, int count, uint64_t own) {
    Shorts sum[G];
    for (int g = 0; g < G; g++) sum[g] = load(unary + g * kShorts);
    for (int r = 0; r < count; r++)
        for (int g = 0; g < G; g++) sum[g] = add(sum[g], load(rows[r] + g * kShorts));
    Shorts least = sum[0];
    for (int g = 1; g < G; g++) least = lower(least, sum[g]);
    const int16_t value = lowest(least);
    uint32_t hits[G];
    for (int g = 0; g < G; g++) hits[g] = equal(sum[g], value);
    int32_t found = 0;
    for (int g = G - 1; g >= 0; g--)
        found = hits[g] ? g * kShorts + __builtin_ctz(hits[g]) : found;
    const bool stays = own < G * kShorts && (hits[own / kShorts % G] >> own % kShorts & 1);
    return {value, stays ? static_cast<int32_t>(own) : found};
}

// What is known of a vector's update of a codebook, strip by strip.
struct Update {
    int32_t vector, found;
    int16_t lowest;
};

struct IteratedSearch {
    const PairTables& tables;
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
        const int64_t from = tables.strip_of(m, k);
        return unary_of(v, m, from, tables.strip_width(m, from))[k - from];
    }

    // Score of codes, up to a constant of the vector.
    int32_t total(int64_t v, const uint16_t* codes) const {
        int32_t sum = 0;
        for (int m = 0; m < tables.M; m++) {
            sum += unary_at(v, m, codes[m]);
            for (int o = 0; o < m; o++) sum += tables.at(m, tables.first[o] + codes[o], codes[m]);
        }
        return sum;
    }

    // The same of the codes just swept: where no codebook is left stale, every part is up to date, and
    // together they count everything twice.
    int32_t swept_total(int64_t v) const {
        if (stale[v]) return total(v, trial + v * tables.M);
        int32_t sum = 0;
        for (int m = 0; m < tables.M; m++) sum += parts[v * tables.M + m];
        return sum / 2;
    }

    template <int G>
    void strip(Update& u, int m, int64_t from) {
        const uint16_t* codes = trial + u.vector * tables.M;
        const int16_t* rows[kMaxAdditiveCodebooks];
        int count = 0;
        for (int o = 0; o < tables.M; o++)
            if (o != m) rows[count++] = tables.row(m, tables.first[o] + codes[o], from, G * kShorts);
        const auto own = static_cast<uint64_t>(codes[m] - from);
        const Lowest least = lowest_sum<G>(unary_of(u.vector, m, from, G * kShorts), rows, count, own);
        // Of strips that are equally low, the one with the present code is taken, else the first.
        const bool better = least.value < u.lowest || (least.value == u.lowest && least.found == static_cast<int64_t>(own));
        u.lowest = better ? least.value : u.lowest;
        u.found = better ? static_cast<int32_t>(from) + least.found : u.found;
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
            const int64_t width = tables.strip_width(m, from);
            if (width == kStripEntries)
                for (int64_t i = 0; i < count; i++) strip<kStrip>(updates[i], m, from);
            else
                for (int64_t i = 0; i < count; i++) strip<1>(updates[i], m, from);
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
            const int32_t value = swept_total(v);
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
            const int32_t value = swept_total(v);
            const int64_t error = std::max<int64_t>(int64_t{best[v]} + energy[v], 0);
            const auto random = static_cast<int64_t>(mix(salt[v] + draw) >> 48);
            if (value >= here[v] + (((error * heat) >> 16) * random >> 16)) continue;
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
        int32_t order[kMaxAdditiveCodebooks], turned[kMaxAdditiveCodebooks];
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

inline void iterated_search(const PairTables& tables, const int16_t* unary, const int32_t* energy,
                            int64_t vectors, const IteratedPlan& plan, uint16_t* codes,
                            unsigned char* scratch) {
    auto* stale = reinterpret_cast<uint64_t*>(scratch);
    auto* updates = reinterpret_cast<Update*>(stale + 2 * vectors);
    auto* best = reinterpret_cast<int32_t*>(updates + vectors);
    auto* parts = best + 2 * vectors;
    auto* trial = reinterpret_cast<uint16_t*>(parts + vectors * tables.M);
    IteratedSearch search{tables,
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

}  // namespace annvq::ANNVQ_ISA
