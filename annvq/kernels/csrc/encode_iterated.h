// Iterated local search over 16-bit scores, compiled once per instruction set (see encode_core.h).
//
// The vectors of a block go in step: all of them update the same codebook, so that its table of pairs (1 MiB
// at 8x8 bits) stays near the core, then all turn to the next. A codebook is passed over for a vector none of
// whose other codes has changed since. Every vector goes its own way all the same: nothing depends on the
// block.
#pragma once
#include <cstdint>

#include "encode.h"
#include "encode_lanes.h"

namespace annvq::ANNVQ_ISA {

constexpr int kShorts = 32, kStrip = 8;  // lanes, and groups of lanes kept in registers

inline uint64_t mix(uint64_t x) {  // splitmix64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    return x ^ (x >> 31);
}

// Adds `rows` to `unary` over G groups; returns the lowest sum and where it is first seen.
template <int G>
inline int16_t lowest_sum(const int16_t* unary, const int16_t* const* rows, int count, int64_t from,
                          int16_t* sums, int32_t& where) {
    Shorts sum[G];
    for (int g = 0; g < G; g++) sum[g] = load(unary + from + g * kShorts);
    for (int r = 0; r < count; r++)
        for (int g = 0; g < G; g++) sum[g] = add(sum[g], load(rows[r] + from + g * kShorts));
    for (int g = 0; g < G; g++) store(sums + g * kShorts, sum[g]);
    Shorts least = sum[0];
    for (int g = 1; g < G; g++) least = lower(least, sum[g]);
    const int16_t value = lowest(least);
    for (int g = 0; g < G; g++) {
        if (const uint32_t hits = equal(sum[g], value)) {
            where = static_cast<int32_t>(from) + g * kShorts + __builtin_ctz(hits);
            break;
        }
    }
    return value;
}

struct IteratedSearch {
    const PairTables& tables;
    const int16_t* const unary;
    const int64_t vectors;
    int32_t* best;    // score of the codes kept, up to a constant of the vector
    uint64_t* stale;  // bit m: codebook m has not been updated since another code changed
    uint64_t* salt;   // makes the vectors' perturbations differ
    uint16_t* trial;  // (vectors, M)

    int64_t padded(int m) const { return tables.first[m + 1] - tables.first[m]; }
    const int16_t* unary_of(int64_t v, int m) const {
        return unary + v * tables.first[tables.M] + tables.first[m];
    }

    // Score of codes, up to a constant of the vector.
    int32_t total(int64_t v, const uint16_t* codes) const {
        int32_t sum = 0;
        for (int m = 0; m < tables.M; m++) {
            sum += unary_of(v, m)[codes[m]];
            for (int o = 0; o < m; o++) sum += tables.row(m, tables.first[o] + codes[o])[codes[m]];
        }
        return sum;
    }

    void update(int64_t v, int m) {
        uint16_t* codes = trial + v * tables.M;
        const int16_t* rows[kMaxAdditiveCodebooks];
        int count = 0;
        for (int o = 0; o < tables.M; o++)
            if (o != m) rows[count++] = tables.row(m, tables.first[o] + codes[o]);
        const int64_t size = padded(m), strip = kStrip * kShorts;
        alignas(64) int16_t sums[kStrip * kShorts];
        int16_t lowest_value = 32767, present = 32767;
        int32_t found = codes[m], where = 0;
        for (int64_t from = 0; from < size;) {
            const bool full = from + strip <= size;
            const int16_t value = full ? lowest_sum<kStrip>(unary_of(v, m), rows, count, from, sums, where)
                                       : lowest_sum<1>(unary_of(v, m), rows, count, from, sums, where);
            const int64_t next = from + (full ? strip : kShorts);
            if (codes[m] >= from && codes[m] < next) present = sums[codes[m] - from];
            if (value < lowest_value) lowest_value = value, found = where;
            from = next;
        }
        stale[v] &= ~(uint64_t{1} << m);
        if (lowest_value >= present) return;
        codes[m] = static_cast<uint16_t>(found);
        stale[v] = all() & ~(uint64_t{1} << m);
    }

    uint64_t all() const { return ~uint64_t{0} >> (64 - tables.M); }

    void sweep(const int32_t* order, int32_t sweeps) {
        for (int32_t s = 0; s < sweeps; s++)
            for (int i = 0; i < tables.M; i++)
                for (int64_t v = 0; v < vectors; v++)
                    if (stale[v] >> order[i] & 1) update(v, order[i]);
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

    void keep_better(uint16_t* codes) {
        for (int64_t v = 0; v < vectors; v++) {
            uint16_t *kept = codes + v * tables.M, *found = trial + v * tables.M;
            if (!differ(kept, found)) continue;
            const int32_t value = total(v, found);
            const bool better = value < best[v];
            if (better) best[v] = value;
            uint16_t *to = better ? kept : found, *from = better ? found : kept;
            for (int m = 0; m < tables.M; m++) to[m] = from[m];
        }
    }

    // Replaces the codes of the first codebooks in `order`.
    void perturb(const int32_t* order, int32_t count, uint64_t draw) {
        for (int64_t v = 0; v < vectors; v++) {
            uint16_t* codes = trial + v * tables.M;
            stale[v] = all();
            for (int32_t i = 0; i < count; i++) {
                const int m = order[i];
                const uint64_t random = mix(salt[v] + mix(draw + i));
                codes[m] = static_cast<uint16_t>((random >> 32) * tables.sizes[m] >> 32);
            }
        }
    }

    void run(const IteratedPlan& plan, uint16_t* codes) {
        int32_t order[kMaxAdditiveCodebooks], turned[kMaxAdditiveCodebooks];
        const int32_t M = tables.M;
        for (int m = 0; m < M; m++) order[m] = m;
        start(codes);
        sweep(order, plan.sweeps);
        keep_better(codes);
        const int32_t count = plan.perturbed < M ? plan.perturbed : M - 1;
        for (int32_t t = 0; t < plan.iterations && count > 0; t++) {
            const uint64_t draw = mix(plan.seed + 0x9E3779B97F4A7C15ull * static_cast<uint64_t>(t + 1));
            for (int i = 0; i < M; i++) {
                const int j = i + static_cast<int>(mix(draw + 1000 + i) % static_cast<uint64_t>(M - i));
                const int32_t swapped = order[i];
                order[i] = order[j];
                order[j] = swapped;
            }
            // The perturbed codebooks come last, or they would only be repaired.
            for (int i = 0; i < M; i++) turned[i] = order[(i + count) % M];
            perturb(order, count, draw);
            sweep(turned, plan.sweeps);
            keep_better(codes);
        }
    }
};

inline void iterated_search(const PairTables& tables, const int16_t* unary, int64_t vectors,
                            const IteratedPlan& plan, uint16_t* codes, unsigned char* scratch) {
    auto* stale = reinterpret_cast<uint64_t*>(scratch);
    auto* best = reinterpret_cast<int32_t*>(stale + 2 * vectors);
    IteratedSearch search{
        tables, unary, vectors, best, stale, stale + vectors, reinterpret_cast<uint16_t*>(best + vectors)};
    search.run(plan, codes);
}

}  // namespace annvq::ANNVQ_ISA
