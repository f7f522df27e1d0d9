// Beam search: the best partial sums of entries after each step.
#pragma once
#include <cfloat>
#include <cstdint>

#include "encode/kernels.h"
#include "encode/products_core.h"
#include "simd/lanes.h"

namespace annvq {
namespace {

// The lowest candidates seen so far, sorted by (score, origin); with `unique`, one per set of entries.
struct BestSums {
    float* score;
    int64_t* origin;  // parent << 32 | padded entry
    uint64_t* set;    // hash of the set of entries, the same in any order
    int32_t capacity, size = 0;

    float limit() const { return size == capacity ? score[size - 1] : FLT_MAX; }
    bool before(int32_t i, float s, int64_t o) const {
        return score[i] < s || (score[i] == s && origin[i] < o);
    }
    void move(int32_t from, int32_t to) {
        score[to] = score[from];
        origin[to] = origin[from];
        set[to] = set[from];
    }
    void offer(float s, int64_t o, uint64_t h, bool unique) {
        if (size == capacity && before(size - 1, s, o)) return;
        int32_t hole = size;
        if (unique) {
            int32_t twin = 0;
            while (twin < size && set[twin] != h) twin++;
            if (twin < size && before(twin, s, o)) return;
            hole = twin;
        }
        if (hole == size) {
            if (size == capacity)
                hole--;
            else
                size++;
        }
        for (; hole > 0 && !before(hole - 1, s, o); hole--) move(hole - 1, hole);
        score[hole] = s;
        origin[hole] = o;
        set[hole] = h;
    }
};

inline uint64_t entry_hash(uint64_t e) {  // splitmix64
    e = (e + 1) * 0x9E3779B97F4A7C15ull;
    e = (e ^ (e >> 30)) * 0xBF58476D1CE4E5B9ull;
    e = (e ^ (e >> 27)) * 0x94D049BB133111EBull;
    return e ^ (e >> 31);
}

// One generation of partial sums.
struct Generation {
    float* score;
    uint64_t* set;
    int64_t words;
    uint64_t* used;   // (beam, words), bit m: codebook m has its entry
    uint16_t* codes;  // (beam, M)
    float* state;  // (beam, state_size) scores of single entries given this sum; or its residual ("direct")
    int32_t count;

    Generation(Bump& bump, int64_t beam, int M, int64_t state_size)
        : score(bump.take<float>(beam)),
          set(bump.take<uint64_t>(beam)),
          words((M + 63) / 64),
          used(bump.take<uint64_t>(beam * words)),
          codes(bump.take<uint16_t>(beam * M)),
          state(bump.take<float>(beam * state_size)),
          count(0) {}

    bool has(int64_t sum, int m) const { return used[sum * words + m / 64] >> m % 64 & 1; }
    // Sum `own` has what `parent` of another generation has, and codebook m.
    void extend_used(int64_t own, const Generation& of, int64_t parent, int m) {
        for (int64_t w = 0; w < words; w++) used[own * words + w] = of.used[parent * words + w];
        used[own * words + m / 64] |= uint64_t{1} << m % 64;
    }
};

struct BeamSearch {
    const BooksView& books;
    const int32_t beam;
    const bool any_order, direct;
    const int64_t state_size;
    Generation now, next;
    BestSums best;
    float* rows;                   // direct: (beam, widest) products of the residuals with one codebook
    float* unary;                  // Gram: (vectors, padded) scores of single entries
    const float* start = nullptr;  // those of the vector at hand, or the vector

    BeamSearch(Bump& bump, const BooksView& b, int64_t vectors, int32_t beam_, bool any_order_)
        : books(b),
          beam(beam_),
          any_order(any_order_),
          direct(!b.gram),
          state_size(direct       ? b.width
                     : any_order_ ? b.padded
                                  : 0),
          now(bump, beam_, b.M, state_size),
          next(bump, beam_, b.M, state_size),
          best{bump.take<float>(beam_), bump.take<int64_t>(beam_), bump.take<uint64_t>(beam_), beam_},
          rows(bump.take<float>(direct ? beam_ * widest(b) : 0)),
          unary(bump.take<float>(direct ? 0 : vectors * b.padded)) {}

    // Offer every entry of codebook m as a continuation of partial sum `parent`: scores are those in `row`,
    // plus `count` rows.
    template <bool Direct>
    void scan(int32_t parent, int m, const float* row, const float* const* rows, int count) {
        const int64_t first = books.first[m], groups = codebook_padded(books, m) / kLanes;
        const float* norms = &books.norms[first];
        const Lanes base = splat(now.score[parent]);
        Lanes limit = splat(best.limit());
        for (int64_t g = 0; g < groups; g++) {
            Lanes v = load(row + g * kLanes);
            if (Direct) v = load(norms + g * kLanes) - (v + v);
            for (int r = 0; r < count; r++) v = v + load(rows[r] + g * kLanes);
            v = base + v;
            uint32_t hits = bits(v <= limit);
            if (!hits) continue;
            float values[kLanes];
            store(values, v);
            for (; hits; hits &= hits - 1) {
                const int lane = __builtin_ctz(hits);
                const int64_t e = first + g * kLanes + lane;
                best.offer(values[lane], static_cast<int64_t>(parent) << 32 | e,
                           now.set[parent] + (any_order ? entry_hash(e) : 0), any_order);
            }
            limit = splat(best.limit());
        }
    }

    // In codebook order no state is kept: the Gram rows of the entries so far are added as they are needed.
    void scan_in_order(int32_t parent, int m) {
        const float* pairs[kMaxAdditiveCodebooks];
        for (int o = 0; o < m; o++)
            pairs[o] = &books.gram[(books.first[o] + now.codes[parent * books.M + o]) * books.padded +
                                   books.first[m]];
        scan<false>(parent, m, start + books.first[m], pairs, m);
    }

    bool is_open(int32_t b, int m, int step) const { return any_order ? !now.has(b, m) : m == step; }

    void candidates(int step) {
        best.size = 0;
        for (int m = any_order ? 0 : step; m < (any_order ? books.M : step + 1); m++) {
            if (direct)
                products(books, books.panel_from[m], books.panel_from[m + 1], now.state, state_size,
                         now.count, false, rows, codebook_padded(books, m));
            for (int32_t b = 0; b < now.count; b++) {
                if (!is_open(b, m, step)) continue;
                if (direct)
                    scan<true>(b, m, rows + b * codebook_padded(books, m), nullptr, 0);
                else if (!any_order)
                    scan_in_order(b, m);
                else
                    scan<false>(b, m, now.state + b * state_size + books.first[m], nullptr, 0);
            }
        }
        if (best.size > 0) return;
        // Only overflow gets here (scores infinite or not a number): any code is as good as another.
        int m = 0;
        while (!is_open(0, m, step)) m++;
        best.offer(FLT_MAX, books.first[m], 0, false);
    }

    void extend_state(int32_t child, int32_t parent, int64_t e) {
        const float* from = now.state + parent * state_size;
        float* to = next.state + child * state_size;
        if (direct) {
            const float* entry = &books.entries[e * books.width];
            for (int j = 0; j < books.width; j++) to[j] = from[j] - entry[j];
            return;
        }
        if (!any_order) return;
        const float* gram = &books.gram[e * books.padded];
        for (int o = 0; o < books.M; o++) {
            if (next.has(child, o)) continue;
            for (int64_t i = books.first[o]; i < books.first[o + 1]; i += kLanes)
                store(to + i, load(from + i) + load(gram + i));
        }
    }

    void advance(bool last) {
        next.count = best.size;
        for (int32_t c = 0; c < best.size; c++) {
            const int32_t parent = static_cast<int32_t>(best.origin[c] >> 32);
            const int64_t e = best.origin[c] & 0xFFFFFFFF;
            int m = 0;
            while (books.first[m + 1] <= e) m++;
            next.score[c] = best.score[c];
            next.set[c] = best.set[c];
            next.extend_used(c, now, parent, m);
            for (int o = 0; o < books.M; o++) next.codes[c * books.M + o] = now.codes[parent * books.M + o];
            next.codes[c * books.M + m] = static_cast<uint16_t>(e - books.first[m]);
            if (!last) extend_state(c, parent, e);
        }
        const Generation swapped = now;
        now = next;
        next = swapped;
    }

    // Writes the `keep` best codes, best first; the best again where there are fewer.
    void one(const float* given, int32_t keep, uint16_t* codes) {
        start = given;
        now.count = 1;
        now.score[0] = 0;
        now.set[0] = 0;
        for (int64_t w = 0; w < now.words; w++) now.used[w] = 0;
        for (int m = 0; m < books.M; m++) now.codes[m] = 0;
        for (int64_t i = 0; i < state_size; i++) now.state[i] = start[i];
        for (int step = 0; step < books.M; step++) {
            best.capacity = step == books.M - 1 ? keep : beam;  // nothing goes on from the last ones
            candidates(step);
            advance(step == books.M - 1);
        }
        for (int32_t i = 0; i < keep; i++)
            for (int m = 0; m < books.M; m++)
                codes[i * books.M + m] = now.codes[(i < now.count ? i : 0) * books.M + m];
    }

    void run(const float* x, int64_t vectors, int32_t keep, uint16_t* codes) {
        if (!direct) {
            products(books, 0, books.panel_from[books.M], x, books.width, vectors, false, unary,
                     books.padded);
            for (int64_t v = 0; v < vectors; v++)
                products_to_scores(books.norms, books.padded, unary + v * books.padded);
        }
        for (int64_t v = 0; v < vectors; v++)
            one(direct ? x + v * books.width : unary + v * books.padded, keep, codes + v * keep * books.M);
    }
};

int64_t beam_scratch(const BooksView& books, int64_t vectors, int32_t beam, bool any_order) {
    Bump bump{nullptr};
    BeamSearch search(bump, books, vectors, beam, any_order);
    return bump.used;
}

void beam_block(const BooksView& books, const float* x, int64_t vectors, int32_t beam, bool any_order,
                int32_t keep, uint16_t* codes, float* scratch) {
    Bump bump{scratch};
    BeamSearch search(bump, books, vectors, beam, any_order);
    search.run(x, vectors, keep, codes);
}

}  // namespace
}  // namespace annvq
