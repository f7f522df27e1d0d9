// Codes fitted to how their norm is kept.
//
// Pairs of codebooks are coded anew, the other codes given. Of the first codebook the sixteen entries are
// tried that are lowest on their lanes, and the present one, each beside every entry of the second.
#pragma once
#include <cfloat>
#include <cstdint>

#include "encode/kernels.h"
#include "encode/products_core.h"
#include "simd/lanes.h"

namespace annvq {
namespace {

struct NormSearch {
    const BooksView& books;
    const NormView& model;
    float *error_a, *error_b;  // ||x - x^||^2 of entries, the other codes given, without what they share
    float *norm_a, *norm_b;    // what entries add to the part of the norm's term that no offset holds
    const float *unary = nullptr,
                *weights = nullptr;  // of one vector; NormView's, or those about its centre
    float constant = 0;
    float norm_rest = 0;     // what the other codes add
    const float pair_share;  // of a Gram entry: once in ||x^||^2, and a share of it in the error

    NormSearch(Bump& bump, const BooksView& b, const NormView& m)
        : books(b),
          model(m),
          error_a(bump.take<float>(widest(b))),
          error_b(bump.take<float>(widest(b))),
          norm_a(bump.take<float>(widest(b))),
          norm_b(bump.take<float>(widest(b))),
          pair_share(1 + m.error_share) {}

    // Entries of codebook m beside the codes of all codebooks but m and `other`.
    void sums(int m, int other, const uint16_t* codes, float* error, float* norm) const {
        const float* rows[kMaxAdditiveCodebooks];
        int count = 0;
        for (int o = 0; o < books.M; o++)
            if (o != m && o != other)
                rows[count++] = &books.gram[(books.first[o] + codes[o]) * books.padded + books.first[m]];
        const float *own = unary + books.first[m], *held = weights + books.first[m];
        const Lanes share = splat(pair_share);
        for (int64_t i = 0; i < codebook_padded(books, m); i += kLanes) {
            Lanes with = splat(0.f);
            for (int r = 0; r < count; r++) with = with + load(rows[r] + i);
            store(error + i, load(own + i) + with);
            store(norm + i, load(held + i) + share * with);
        }
    }

    void rest(int a, int b, const uint16_t* codes) {
        norm_rest = constant;
        for (int o = 0; o < books.M; o++) {
            if (o == a || o == b) continue;
            const int64_t e = books.first[o] + codes[o];
            float pairs = 0;
            for (int p = 0; p < o; p++)
                if (p != a && p != b) pairs += books.gram[e * books.padded + books.first[p] + codes[p]];
            norm_rest += weights[e] + pair_share * pairs;
        }
    }

    const float* gram_row(int a, int32_t i, int b) const {
        return &books.gram[(books.first[a] + i) * books.padded + books.first[b]];
    }

    static float miss(const NormView& model, float rest) {
        const float* middles = model.middles;
        int64_t low = 0, high = model.middle_count;
        while (low < high) {
            const int64_t mid = (low + high) / 2;
            if (middles[mid] < rest)
                low = mid + 1;
            else
                high = mid;
        }
        return __builtin_fabsf(rest - model.levels[low]);
    }

    // What the norm's error adds for entries i and j, g being their Gram entry.
    float byte_objective(int32_t i, int32_t j, float g) const {
        return (error_a[i] + (error_b[j] + g)) +
               miss(model, (norm_rest + norm_a[i]) + (norm_b[j] + pair_share * g));
    }

    int32_t shortlist(int a, int32_t present, int32_t* tried) const {
        LaneBest best;
        for (int64_t g = 0; g * kLanes < codebook_padded(books, a); g++)
            best.offer(load(error_a + g * kLanes), static_cast<int32_t>(g));
        int32_t where[kLanes], count = 0;
        store(where, best.where);
        tried[count++] = present;
        for (int32_t l = 0; l < kLanes; l++) {
            const int32_t i = where[l] * kLanes + l;
            if (where[l] >= 0 && i != present) tried[count++] = i;
        }
        return count;
    }

    void improve_byte(int a, int b, uint16_t* codes) {
        int32_t tried[kLanes + 1];
        const int32_t count = shortlist(a, codes[a], tried);
        int32_t best_i = codes[a], best_j = codes[b];
        float best = byte_objective(best_i, best_j, gram_row(a, best_i, b)[best_j]);
        for (int32_t t = 0; t < count; t++) {
            const int32_t i = tried[t];
            const float* gram = gram_row(a, i, b);
            const Lanes own = splat(error_a[i]);
            for (int64_t j = 0; j < codebook_padded(books, b); j += kLanes) {
                // The byte's error only adds to the code's.
                uint32_t hits = bits(own + (load(error_b + j) + load(gram + j)) < splat(best));
                for (; hits; hits &= hits - 1) {
                    const int32_t k = static_cast<int32_t>(j) + __builtin_ctz(hits);
                    const float value = byte_objective(i, k, gram[k]);
                    if (!(value < best)) continue;
                    best = value, best_i = i, best_j = k;
                }
            }
        }
        codes[a] = static_cast<uint16_t>(best_i);
        codes[b] = static_cast<uint16_t>(best_j);
    }

    // Without a byte, all that no offset holds is an error.
    void improve_free(int a, int b, uint16_t* codes) {
        int32_t tried[kLanes + 1];
        const int32_t count = shortlist(a, codes[a], tried), groups = codebook_padded(books, b) / kLanes;
        const Lanes weight = splat(model.weight), share = splat(pair_share);
        LaneBest best;
        float present = FLT_MAX;
        for (int32_t t = 0; t < count; t++) {
            const int32_t i = tried[t];
            const float* gram = gram_row(a, i, b);
            const Lanes own = splat(error_a[i]), missed = splat(norm_rest + norm_a[i]);
            for (int32_t g = 0; g < groups; g++) {
                const Lanes pair = load(gram + g * kLanes),
                            miss = missed + (load(norm_b + g * kLanes) + share * pair);
                const Lanes value = (own + (load(error_b + g * kLanes) + pair)) + weight * (miss * miss);
                best.offer(value, t * groups + g);
                if (t == 0 && g == codes[b] / kLanes) {
                    float values[kLanes];
                    store(values, value);
                    present = values[codes[b] % kLanes];
                }
            }
        }
        float value[kLanes];
        int32_t where[kLanes];
        store(value, best.value);
        store(where, best.where);
        int32_t lane = -1;
        for (int32_t l = 0; l < kLanes; l++)
            if (where[l] >= 0 && value[l] < present) present = value[l], lane = l;
        if (lane < 0) return;
        codes[a] = static_cast<uint16_t>(tried[where[lane] / groups]);
        codes[b] = static_cast<uint16_t>(where[lane] % groups * kLanes + lane);
    }

    void run(const int32_t* pairs, int32_t rounds, uint16_t* codes) {
        for (int32_t t = 0; t < rounds; t++) {
            const int a = pairs[2 * t], b = pairs[2 * t + 1];
            sums(a, b, codes, error_a, norm_a);
            sums(b, a, codes, error_b, norm_b);
            rest(a, b, codes);
            if (!model.levels)
                improve_free(a, b, codes);
            else
                improve_byte(a, b, codes);
        }
    }
};

int64_t norm_search_scratch(const BooksView& books, int64_t vectors) {
    Bump bump{nullptr};
    bump.take<float>(2 * vectors * books.padded);
    for (int i = 0; i < 4; i++) bump.take<float>(widest(books));  // as NormSearch does
    return bump.used;
}

void norm_search_block(const BooksView& books, const NormView& model, const float* x, const float* centres,
                       const float* rest, int64_t vectors, const int32_t* pairs, int32_t rounds,
                       uint16_t* codes, float* scratch) {
    Bump bump{scratch};
    float* unary = bump.take<float>(2 * vectors * books.padded);
    float* about = unary + vectors * books.padded;
    NormSearch search(bump, books, model);
    const int64_t panels = books.panel_from[books.M];
    products(books, 0, panels, x, books.width, vectors, false, unary, books.padded);
    if (centres) products(books, 0, panels, centres, books.width, vectors, false, about, books.padded);
    for (int64_t v = 0; v < vectors; v++, unary += books.padded, about += books.padded) {
        products_to_scores(books.norms, books.padded, unary);
        double constant = model.constant + (rest ? rest[v] : 0.f);
        const bool own = centres || model.error_share > 0;  // weights of this vector's own
        for (int64_t e = 0; own && e < books.padded; e++) {
            const float more = centres ? about[e] + about[e] : 0.f;
            about[e] = (model.weights[e] + more) + (unary[e] < FLT_MAX ? model.error_share * unary[e] : 0.f);
        }
        for (int j = 0; centres && j < books.width; j++)
            constant += 2.0 * centres[v * books.width + j] * books.shift[j];
        for (int j = 0; model.error_share > 0 && j < books.width; j++)
            constant +=
                static_cast<double>(model.error_share) * x[v * books.width + j] * x[v * books.width + j];
        search.unary = unary;
        search.weights = own ? about : model.weights;
        search.constant = static_cast<float>(constant);
        search.run(pairs, rounds, codes + v * books.M);
    }
}

}  // namespace
}  // namespace annvq
