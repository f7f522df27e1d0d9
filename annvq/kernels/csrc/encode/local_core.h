// Local search: a few codebooks at a time are coded anew, the others' codes given.
#pragma once
#include <cstdint>

#include "encode/kernels.h"
#include "encode/products_core.h"
#include "simd/lanes.h"

namespace annvq {
namespace {

// Re-codes a few open codebooks at a time. The partial sums of one round are kept one per lane: the best of
// all (partial sum, entry) whose entry falls on that lane, which costs no sorting and keeps the sums diverse.
struct LocalSearch {
    const BooksView& books;
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

    LocalSearch(Bump& bump, const BooksView& b, int64_t vectors, int32_t open_, int32_t width_)
        : books(b),
          open(open_),
          width(width_),
          direct(!b.gram),
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
            if (!direct) products_to_scores(books.norms, books.padded, u);
            one(x + v * books.width, u, schedule, rounds, codes + v * books.M);
        }
    }
};

int64_t local_search_scratch(const BooksView& books, int64_t vectors, int32_t open, int32_t width) {
    Bump bump{nullptr};
    LocalSearch search(bump, books, vectors, open, width);
    return bump.used;
}

void local_search_block(const BooksView& books, const float* x, int64_t vectors, const int32_t* schedule,
                        int32_t rounds, int32_t open, int32_t width, uint16_t* codes, float* scratch) {
    Bump bump{scratch};
    LocalSearch search(bump, books, vectors, open, width);
    search.run(x, vectors, schedule, rounds, codes);
}

}  // namespace
}  // namespace annvq
