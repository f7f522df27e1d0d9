// The encoders' inner loops, compiled once per instruction set (ANNVQ_ISA names the namespace). Works on
// memory that the caller allocated: nothing from the standard library with a shared symbol may be
// instantiated here, or the linker could hand one instruction set's copy to another.
#pragma once
#include <cfloat>
#include <cmath>
#include <cstdint>

#include "encode/encode.h"
#include "encode/iterated_core.h"
#include "simd/lanes.h"

namespace annvq::ANNVQ_ISA {

// Rows and groups of lanes that one register tile of the product kernel holds.
#if defined(__AVX512F__)
constexpr int kRows = 6, kGroups = 4;
#elif defined(__AVX2__)
constexpr int kRows = 3, kGroups = 2;
#else
constexpr int kRows = 2, kGroups = 1;
#endif

template <int R, int G, bool L2>
void tile(const float* x, int64_t stride, const float* values, int64_t values_stride, int width, float* out,
          int64_t out_stride) {
    Lanes sum[R][G];
    for (int r = 0; r < R; r++)
        for (int g = 0; g < G; g++) sum[r][g] = splat(0.f);
    for (int j = 0; j < width; j++, values += values_stride) {
        Lanes c[G];
        for (int g = 0; g < G; g++) c[g] = load(values + g * kLanes);
        for (int r = 0; r < R; r++) {
            const Lanes q = splat(x[r * stride + j]);
            for (int g = 0; g < G; g++) {
                const Lanes v = L2 ? q - c[g] : q;
                sum[r][g] = sum[r][g] + v * (L2 ? v : c[g]);
            }
        }
    }
    for (int r = 0; r < R; r++)
        for (int g = 0; g < G; g++) store(out + r * out_stride + g * kLanes, sum[r][g]);
}

template <int G, bool L2>
void tile_rows(const float* x, int64_t stride, int64_t rows, const float* values, int64_t values_stride,
               int width, float* out, int64_t out_stride) {
    int64_t r = 0;
    for (; r + kRows <= rows; r += kRows)
        tile<kRows, G, L2>(x + r * stride, stride, values, values_stride, width, out + r * out_stride,
                           out_stride);
    for (; r < rows; r++)
        tile<1, G, L2>(x + r * stride, stride, values, values_stride, width, out + r * out_stride,
                       out_stride);
}

template <bool L2>
void panel_products(const EncoderBooks& books, int64_t from, int64_t to, const float* x, int64_t stride,
                    int64_t rows, float* out, int64_t out_stride) {
    const int64_t first = books.panels[from].first;
    for (int64_t p = from; p < to; p++) {
        const Panel& panel = books.panels[p];
        const float* values = &books.packed[panel.data];
        float* o = out + (panel.first - first);
        const int64_t values_stride = panel.groups * kLanes;
        int g = 0;
        for (; g + kGroups <= panel.groups; g += kGroups)
            tile_rows<kGroups, L2>(x, stride, rows, values + g * kLanes, values_stride, books.width,
                                   o + g * kLanes, out_stride);
        for (; g < panel.groups; g++)
            tile_rows<1, L2>(x, stride, rows, values + g * kLanes, values_stride, books.width, o + g * kLanes,
                             out_stride);
    }
}

void products(const EncoderBooks& books, int64_t from, int64_t to, const float* x, int64_t stride,
              int64_t rows, bool l2, float* out, int64_t out_stride) {
    if (l2)
        panel_products<true>(books, from, to, x, stride, rows, out, out_stride);
    else
        panel_products<false>(books, from, to, x, stride, rows, out, out_stride);
}

// The best value of each lane and where it was seen; the earliest wins ties within a lane.
struct LaneBest {
    Lanes value = splat(FLT_MAX);
    Ints where = splat(int32_t{-1});

    void offer(Lanes v, int32_t index) {
        const Mask better = v < value;
        value = select(better, v, value);
        where = select(better, splat(index), where);
    }
};

int32_t argmin(const float* row, int64_t padded) {
    LaneBest best;
    for (int64_t g = 0; g * kLanes < padded; g++) best.offer(load(row + g * kLanes), static_cast<int32_t>(g));
    float value[kLanes];
    int32_t where[kLanes];
    store(value, best.value);
    store(where, best.where);
    float lowest = FLT_MAX;
    int32_t result = 0;
    for (int l = 0; l < kLanes; l++) {
        if (where[l] < 0) continue;
        const int32_t k = where[l] * kLanes + l;
        if (value[l] < lowest || (value[l] == lowest && k < result)) {
            lowest = value[l];
            result = k;
        }
    }
    return result;
}

// Hands out pieces of one block of memory; with no block it only counts.
struct Bump {
    float* base;
    int64_t used = 0;  // in floats

    template <class T>
    T* take(int64_t count) {
        float* p = base ? base + used : nullptr;
        used += (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * kLanes;
        return reinterpret_cast<T*>(p);
    }
};

inline int64_t codebook_padded(const EncoderBooks& b, int m) { return b.first[m + 1] - b.first[m]; }

inline int64_t widest(const EncoderBooks& b) {
    int64_t most = 0;
    for (int m = 0; m < b.M; m++) most = codebook_padded(b, m) > most ? codebook_padded(b, m) : most;
    return most;
}

// u = ||c||^2 - 2<x, c> in place of <x, c>.
inline void products_to_scores(const float* norms, int64_t count, float* row) {
    for (int64_t e = 0; e < count; e += kLanes) {
        const Lanes ip = load(row + e);
        store(row + e, load(norms + e) - (ip + ip));
    }
}

// The same times `scale`, as 16-bit integers.
inline void products_to_shorts(const float* products, const float* norms, int64_t count, float scale,
                               int16_t* out) {
    const Lanes factor = splat(scale);
    for (int64_t e = 0; e < count; e += kLanes) {
        const Lanes ip = load(products + e);
        store_rounded(out + e, (load(norms + e) - (ip + ip)) * factor);
    }
}

// ---- beam search
// ----------------------------------------------------------------------------------------------

// The lowest candidates seen so far, sorted by (score, origin); with `unique`, one per set of entries.
struct Best {
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
    uint64_t* used;   // bit m: codebook m has its entry
    uint16_t* codes;  // (beam, M)
    float* state;  // (beam, state_size) scores of single entries given this sum; or its residual ("direct")
    int32_t count;

    Generation(Bump& bump, int64_t beam, int M, int64_t state_size)
        : score(bump.take<float>(beam)),
          set(bump.take<uint64_t>(beam)),
          used(bump.take<uint64_t>(beam)),
          codes(bump.take<uint16_t>(beam * M)),
          state(bump.take<float>(beam * state_size)),
          count(0) {}
};

struct BeamSearch {
    const EncoderBooks& books;
    const int32_t beam;
    const bool any_order, direct;
    const int64_t state_size;
    Generation now, next;
    Best best;
    float* rows;                   // direct: (beam, widest) products of the residuals with one codebook
    float* unary;                  // Gram: (vectors, padded) scores of single entries
    const float* start = nullptr;  // those of the vector at hand, or the vector

    BeamSearch(Bump& bump, const EncoderBooks& b, int64_t vectors, int32_t beam_, bool any_order_)
        : books(b),
          beam(beam_),
          any_order(any_order_),
          direct(b.gram.empty()),
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

    bool is_open(int32_t b, int m, int step) const { return any_order ? !(now.used[b] >> m & 1) : m == step; }

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
            if (next.used[child] >> o & 1) continue;
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
            next.used[c] = now.used[parent] | uint64_t{1} << m;
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
        now.set[0] = now.used[0] = 0;
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
                products_to_scores(books.norms.data(), books.padded, unary + v * books.padded);
        }
        for (int64_t v = 0; v < vectors; v++)
            one(direct ? x + v * books.width : unary + v * books.padded, keep, codes + v * keep * books.M);
    }
};

int64_t beam_scratch(const EncoderBooks& books, int64_t vectors, int32_t beam, bool any_order) {
    Bump bump{nullptr};
    BeamSearch search(bump, books, vectors, beam, any_order);
    return bump.used;
}

void encode_beam(const EncoderBooks& books, const float* x, int64_t vectors, int32_t beam, bool any_order,
                 int32_t keep, uint16_t* codes, float* scratch) {
    Bump bump{scratch};
    BeamSearch search(bump, books, vectors, beam, any_order);
    search.run(x, vectors, keep, codes);
}

// ---- local search
// ---------------------------------------------------------------------------------------------

// Re-codes a few open codebooks at a time. The partial sums of one round are kept one per lane: the best of
// all (partial sum, entry) whose entry falls on that lane, which costs no sorting and keeps the sums diverse.
struct LocalSearch {
    const EncoderBooks& books;
    const int32_t open, width;
    const bool direct;
    const int64_t row_size;
    float* base;      // (open, row_size) scores of the open codebooks' entries given the codes that stay
    float* rows;      // direct: (lanes, row_size) 2<chosen so far, c>
    float* chosen;    // direct: (lanes, dim) sums of the entries chosen in this round; or one residual
    float* unary;     // (vectors, padded), Gram only
    int32_t* picked;  // (lanes, open) padded entries, this stage
    int32_t* before;  // (lanes, open) the stage before
    float value[kLanes];
    int32_t count = 0;

    LocalSearch(Bump& bump, const EncoderBooks& b, int64_t vectors, int32_t open_, int32_t width_)
        : books(b),
          open(open_),
          width(width_),
          direct(b.gram.empty()),
          row_size(widest(b)),
          base(bump.take<float>(open_ * row_size)),
          rows(bump.take<float>(direct ? kLanes * row_size : 0)),
          chosen(bump.take<float>(direct ? kLanes * b.width : 0)),
          unary(bump.take<float>(direct ? 0 : vectors * b.padded)),
          picked(bump.take<int32_t>(kLanes * open_)),
          before(bump.take<int32_t>(kLanes * open_)) {}

    const float* gram_row(int64_t e, int m) const { return &books.gram[e * books.padded + books.first[m]]; }
    int64_t entry(const uint16_t* codes, int m) const { return books.first[m] + codes[m]; }

    static bool contains(const int32_t* round, int32_t open, int m) {
        for (int s = 0; s < open; s++)
            if (round[s] == m) return true;
        return false;
    }

    void make_base(const float* x, const float* u, const int32_t* round, const uint16_t* codes) {
        if (direct) {
            for (int j = 0; j < books.width; j++) chosen[j] = x[j];
            for (int o = 0; o < books.M; o++) {
                if (contains(round, open, o)) continue;
                const float* c = &books.entries[entry(codes, o) * books.width];
                for (int j = 0; j < books.width; j++) chosen[j] -= c[j];
            }
        }
        for (int s = 0; s < open; s++) {
            const int m = round[s];
            const int64_t padded = codebook_padded(books, m);
            float* row = base + s * row_size;
            if (direct) {
                products(books, books.panel_from[m], books.panel_from[m + 1], chosen, books.width, 1, false,
                         row, padded);
                products_to_scores(&books.norms[books.first[m]], padded, row);
                continue;
            }
            const float* kept[kMaxAdditiveCodebooks];
            int nkept = 0;
            for (int o = 0; o < books.M; o++)
                if (!contains(round, open, o)) kept[nkept++] = gram_row(entry(codes, o), m);
            for (int64_t i = 0; i < padded; i += kLanes) {
                Lanes v = load(u + books.first[m] + i);
                for (int o = 0; o < nkept; o++) v = v + load(kept[o] + i);
                store(row + i, v);
            }
        }
    }

    // Score of the open codebooks' present codes, summed as lane_stage sums it.
    float present_score(const int32_t* round, const uint16_t* codes) const {
        float score = 0;
        for (int s = 0; s < open; s++) {
            const int64_t e = entry(codes, round[s]);
            float v = base[s * row_size + codes[round[s]]];
            if (direct && s > 0)
                v = v + direct_pair(round, codes, s, e);
            else
                for (int q = 0; q < s; q++) v = v + books.gram[entry(codes, round[q]) * books.padded + e];
            score = v + score;
        }
        return score;
    }

    float direct_pair(const int32_t* round, const uint16_t* codes, int s, int64_t e) const {
        float sum = 0;
        for (int j = 0; j < books.width; j++) {
            float c = 0;
            for (int q = 0; q < s; q++) c += books.entries[entry(codes, round[q]) * books.width + j];
            sum += c * books.entries[e * books.width + j];
        }
        return sum + sum;
    }

    template <int Rows>  // -1: as many as nrows says
    static void add_rows(const float* base, const float* const* rows, int nrows, float before, int64_t groups,
                         int32_t tag, LaneBest& best) {
        const Lanes carried = splat(before);
        const int n = Rows < 0 ? nrows : Rows;
        for (int64_t g = 0; g < groups; g++) {
            Lanes v = load(base + g * kLanes);
            for (int q = 0; q < n; q++) v = v + load(rows[q] + g * kLanes);
            best.offer(v + carried, tag + static_cast<int32_t>(g));
        }
    }

    void direct_rows(const int32_t* from, int s, int m) {
        for (int32_t i = 0; i < count; i++) {
            float* sum = chosen + i * books.width;
            for (int j = 0; j < books.width; j++) {
                float c = 0;
                for (int q = 0; q < s; q++)
                    c += books.entries[static_cast<int64_t>(from[i * open + q]) * books.width + j];
                sum[j] = c;
            }
        }
        products(books, books.panel_from[m], books.panel_from[m + 1], chosen, books.width, count, false, rows,
                 row_size);
        for (int64_t i = 0; i < count * row_size; i += kLanes) {
            const Lanes v = load(rows + i);
            store(rows + i, v + v);
        }
    }

    // Extend every partial sum by codebook round[s]; the best per lane become the partial sums.
    void lane_stage(const int32_t* round, int s) {
        const int m = round[s];
        const int64_t groups = codebook_padded(books, m) / kLanes;
        const float* row = base + s * row_size;
        int32_t* swapped = before;
        before = picked;
        picked = swapped;
        if (direct && s > 0) direct_rows(before, s, m);
        LaneBest best;
        if (s == 0) count = 1, value[0] = 0;
        for (int32_t i = 0; i < count; i++) {
            const float* pairs[kMaxAdditiveCodebooks];
            int npairs = s;
            if (direct)
                pairs[0] = rows + i * row_size, npairs = s > 0;
            else
                for (int q = 0; q < s; q++) pairs[q] = gram_row(before[i * open + q], m);
            const int32_t tag = static_cast<int32_t>(i * groups);
            if (npairs == 0)
                add_rows<0>(row, pairs, 0, value[i], groups, tag, best);
            else if (npairs == 1)
                add_rows<1>(row, pairs, 1, value[i], groups, tag, best);
            else if (npairs == 2)
                add_rows<2>(row, pairs, 2, value[i], groups, tag, best);
            else
                add_rows<-1>(row, pairs, npairs, value[i], groups, tag, best);
        }
        collect(best, s, groups, books.first[m]);
    }

    void collect(const LaneBest& best, int s, int64_t groups, int64_t first) {
        float v[kLanes];
        int32_t where[kLanes], order[kLanes];
        store(v, best.value);
        store(where, best.where);
        int32_t n = 0;
        for (int32_t l = 0; l < kLanes; l++) {  // insertion sort by (value, lane)
            if (where[l] < 0) continue;
            int32_t at = n++;
            for (; at > 0 && v[order[at - 1]] > v[l]; at--) order[at] = order[at - 1];
            order[at] = l;
        }
        count = n < width ? n : width;
        for (int32_t i = 0; i < count; i++) {
            const int32_t l = order[i], parent = static_cast<int32_t>(where[l] / groups);
            value[i] = v[l];
            for (int q = 0; q < s; q++) picked[i * open + q] = before[parent * open + q];
            picked[i * open + s] = static_cast<int32_t>(first + where[l] % groups * kLanes + l);
        }
    }

    void one(const float* x, const float* u, const int32_t* schedule, int32_t rounds, uint16_t* codes) {
        for (int32_t t = 0; t < rounds; t++) {
            const int32_t* round = schedule + static_cast<int64_t>(t) * open;
            make_base(x, u, round, codes);
            const float present = present_score(round, codes);
            for (int s = 0; s < open; s++) lane_stage(round, s);
            if (count == 0 || !(value[0] < present)) continue;
            for (int s = 0; s < open; s++)
                codes[round[s]] = static_cast<uint16_t>(picked[s] - books.first[round[s]]);
        }
    }

    void run(const float* x, int64_t vectors, const int32_t* schedule, int32_t rounds, uint16_t* codes) {
        if (!direct)
            products(books, 0, books.panel_from[books.M], x, books.width, vectors, false, unary,
                     books.padded);
        for (int64_t v = 0; v < vectors; v++) {
            float* u = direct ? nullptr : unary + v * books.padded;
            if (!direct) products_to_scores(books.norms.data(), books.padded, u);
            one(x + v * books.width, u, schedule, rounds, codes + v * books.M);
        }
    }
};

int64_t local_search_scratch(const EncoderBooks& books, int64_t vectors, int32_t open, int32_t width) {
    Bump bump{nullptr};
    LocalSearch search(bump, books, vectors, open, width);
    return bump.used;
}

void encode_local_search(const EncoderBooks& books, const float* x, int64_t vectors, const int32_t* schedule,
                         int32_t rounds, int32_t open, int32_t width, uint16_t* codes, float* scratch) {
    Bump bump{scratch};
    LocalSearch search(bump, books, vectors, open, width);
    search.run(x, vectors, schedule, rounds, codes);
}

}  // namespace annvq::ANNVQ_ISA

#include "encode/norm_core.h"

namespace annvq::ANNVQ_ISA {

constexpr EncodeKernels kKernels{products,
                                 argmin,
                                 beam_scratch,
                                 encode_beam,
                                 local_search_scratch,
                                 encode_local_search,
                                 norm_search_scratch,
                                 encode_norm_search,
                                 products_to_shorts,
                                 iterated_search};

}  // namespace annvq::ANNVQ_ISA
