// A network behind sums of entries: what codes stand for, and codes chosen anew by that.
#pragma once
#include <cfloat>
#include <cstdint>

#include "encode/kernels.h"
#include "encode/products_core.h"
#include "simd/lanes.h"

namespace annvq {
namespace {

inline Lanes positive(Lanes a) {
    const Lanes zero = splat(0.f);
    return select(zero < a, a, zero);
}

inline float in_order(Lanes a) {
    float v[kLanes], sum = 0;
    store(v, a);
    for (int l = 0; l < kLanes; l++) sum += v[l];
    return sum;
}

struct NetworkSearch {
    const NetworkView& net;
    const BooksView& plain;
    const int64_t width, hidden, row_size;
    const int32_t candidates;  // 0: nothing is chosen
    float* sums;               // (vectors, width) s
    float* before;             // (vectors, hidden) V s + b
    float* units;              // (vectors * each, hidden) relu of such
    float* made;               // (vectors * each, width) U times these
    float* target;             // (vectors, width) x; this and what follows for choosing alone
    float* rest;               // (vectors, width) x - x^
    float* near;               // (vectors, width) what an entry would best be, without the network
    float* errors;             // (vectors,) squared lengths of `rest`
    float* scores;             // (vectors, row_size)
    int64_t* tried;            // (vectors, candidates) padded entries

    NetworkSearch(Bump& bump, const NetworkView& n, int64_t vectors, int32_t candidates_)
        : net(n),
          plain(n.plain),
          width(n.width),
          hidden(n.hidden),
          row_size(candidates_ ? widest(n.plain) : 0),
          candidates(candidates_),
          sums(bump.take<float>(vectors * width)),
          before(bump.take<float>(vectors * hidden)),
          units(bump.take<float>(vectors * each() * hidden)),
          made(bump.take<float>(vectors * each() * width)),
          target(bump.take<float>(candidates ? vectors * width : 0)),
          rest(bump.take<float>(candidates ? vectors * width : 0)),
          near(bump.take<float>(candidates ? vectors * width : 0)),
          errors(bump.take<float>(vectors)),
          scores(bump.take<float>(vectors * row_size)),
          tried(bump.take<int64_t>(vectors * candidates)) {}

    int64_t each() const { return candidates ? candidates : 1; }  // rows of a vector, at most

    int64_t entry(const uint16_t* codes, int64_t v, int m) const {
        return plain.first[m] + codes[v * plain.M + m];
    }

    // V s + b of codes: the bias, then codebook after codebook.
    void add_entries(const uint16_t* codes, int64_t v, float* out) const {
        const float* rows[kMaxAdditiveCodebooks];
        for (int m = 0; m < plain.M; m++) rows[m] = net.table + entry(codes, v, m) * hidden;
        for (int64_t i = 0; i < hidden; i += kLanes) {
            Lanes sum = load(net.bias + i);
            for (int m = 0; m < plain.M; m++) sum = sum + load(rows[m] + i);
            store(out + i, sum);
        }
    }

    void add_sums(const uint16_t* codes, int64_t v, float* out) const {
        const float* rows[kMaxAdditiveCodebooks];
        for (int m = 0; m < plain.M; m++) rows[m] = net.entries + entry(codes, v, m) * width;
        for (int64_t i = 0; i < width; i += kLanes) {
            Lanes sum = load(rows[0] + i);
            for (int m = 1; m < plain.M; m++) sum = sum + load(rows[m] + i);
            store(out + i, sum);
        }
    }

    void through(int64_t rows) const {  // made = U units
        products(net.outward, 0, net.outward.panel_from[1], units, hidden, rows, false, made, width);
    }

    void decode(const uint16_t* codes, int64_t vectors) const {
        for (int64_t v = 0; v < vectors; v++) {
            add_sums(codes, v, sums + v * width);
            float *own = before + v * hidden, *out = units + v * hidden;
            add_entries(codes, v, own);
            for (int64_t i = 0; i < hidden; i += kLanes) store(out + i, positive(load(own + i)));
        }
        through(vectors);
    }

    // rest = x - (sum + made); returns its squared length.
    float left_over(int64_t v, const float* sum, const float* correction, float* out) const {
        Lanes total = splat(0.f);
        for (int64_t i = 0; i < width; i += kLanes) {
            const Lanes left = load(target + v * width + i) - (load(sum + i) + load(correction + i));
            if (out) store(out + i, left);
            total = total + left * left;
        }
        return in_order(total);
    }

    void begin(const float* x, int64_t vectors, const uint16_t* codes) const {
        for (int64_t v = 0; v < vectors; v++)
            for (int64_t i = 0; i < width; i++)
                target[v * width + i] = i < net.dim ? x[v * net.dim + i] : 0.f;
        decode(codes, vectors);
        for (int64_t v = 0; v < vectors; v++)
            errors[v] = left_over(v, sums + v * width, made + v * width, rest + v * width);
    }

    // What moves of the sums, rows of `other`, make of x^ to first order: made = U on(V other), with the
    // hidden units `on` that are above zero now.
    void forward(const float* other, int64_t vectors) const {
        products(net.inward, 0, net.inward.panel_from[1], other, width, vectors, false, units, hidden);
        mask(vectors);
        through(vectors);
    }

    // Its transpose: made = V' on(U' other).
    void back(const float* other, int64_t vectors) const {
        products(net.outward_back, 0, net.outward_back.panel_from[1], other, width, vectors, false, units,
                 hidden);
        mask(vectors);
        products(net.inward_back, 0, net.inward_back.panel_from[1], units, hidden, vectors, false, made,
                 width);
    }

    void mask(int64_t vectors) const {
        const Lanes zero = splat(0.f);
        for (int64_t i = 0; i < vectors * hidden; i += kLanes)
            store(units + i, select(zero < load(before + i), load(units + i), zero));
    }

    // out = a + made; returns its squared length.
    float with_made(int64_t v, const float* a, float* out) const {
        Lanes total = splat(0.f);
        for (int64_t i = 0; i < width; i += kLanes) {
            const Lanes sum = load(a + v * width + i) + load(made + v * width + i);
            store(out + v * width + i, sum);
            total = total + sum * sum;
        }
        return in_order(total);
    }

    void aim(int64_t vectors, float reach, float* out) const {
        back(rest, vectors);
        for (int64_t v = 0; v < vectors; v++) scores[v * row_size] = with_made(v, rest, near);
        forward(near, vectors);
        for (int64_t v = 0; v < vectors; v++) {
            const float length = scores[v * row_size], seen = reach * with_made(v, near, rest);
            const float step = seen > 0 ? length / seen : 0.f;
            for (int64_t j = 0; j < net.dim; j++)
                out[v * net.dim + j] = sums[v * width + j] + step * near[v * width + j];
        }
    }

    // The `count` entries of codebook m with the lowest scores, the nearest first and of equal ones the
    // first; those that are no number are passed over.
    void nearest(int m, int64_t now, int32_t count, float* row, int64_t* found) const {
        const int64_t size = codebook_padded(plain, m);
        products_to_scores(&plain.norms[plain.first[m]], size, row);
        row[now - plain.first[m]] = FLT_MAX;  // what the present one gives is known
        float value[kMostCandidates];
        int32_t n = 0;
        for (int32_t i = 0; i < count; i++) value[i] = FLT_MAX, found[i] = now;
        for (int64_t g = 0; g < size; g += kLanes) {
            uint32_t lower = bits(load(row + g) < splat(value[count - 1]));
            for (; lower; lower &= lower - 1) {
                const int64_t k = g + __builtin_ctz(lower);
                if (!(row[k] < value[count - 1])) continue;
                int32_t at = n < count ? n++ : count - 1;
                for (; at > 0 && value[at - 1] > row[k]; at--)
                    value[at] = value[at - 1], found[at] = found[at - 1];
                value[at] = row[k], found[at] = plain.first[m] + k;
            }
        }
    }

    // What codebook m's entry `other` in place of `now` makes of the hidden units.
    void exchange(int64_t v, int64_t now, int64_t other, float* out) const {
        const float *sum = before + v * hidden, *a = net.table + now * hidden,
                    *b = net.table + other * hidden;
        for (int64_t i = 0; i < hidden; i += kLanes)
            store(out + i, (load(sum + i) - load(a + i)) + load(b + i));
    }

    void choose(int m, int64_t vectors, uint16_t* codes) const {
        const int32_t others = net.sizes[m] - 1, count = others < candidates ? others : candidates;
        if (count < 1) return;
        for (int64_t v = 0; v < vectors; v++) {
            const float* c = &plain.entries[entry(codes, v, m) * plain.width];
            for (int64_t j = 0; j < net.dim; j++) near[v * width + j] = rest[v * width + j] + c[j];
        }
        products(plain, plain.panel_from[m], plain.panel_from[m + 1], near, width, vectors, false, scores,
                 row_size);
        for (int64_t v = 0; v < vectors; v++) {
            const int64_t now = entry(codes, v, m);
            nearest(m, now, count, scores + v * row_size, tried + v * candidates);
            for (int32_t i = 0; i < count; i++) {
                float* out = units + (v * count + i) * hidden;
                exchange(v, now, tried[v * candidates + i], out);
                for (int64_t j = 0; j < hidden; j += kLanes) store(out + j, positive(load(out + j)));
            }
        }
        through(vectors * count);
        for (int64_t v = 0; v < vectors; v++) take_best(m, v, count, codes);
    }

    void take_best(int m, int64_t v, int32_t count, uint16_t* codes) const {
        const int64_t now = entry(codes, v, m);
        float *sum = sums + v * width, *other = near + v * width;
        int32_t best = -1;
        for (int32_t i = 0; i < count; i++) {
            moved(sum, now, tried[v * candidates + i], other);
            const float error = left_over(v, other, made + (v * count + i) * width, nullptr);
            if (error < errors[v]) errors[v] = error, best = i;
        }
        if (best < 0) return;
        const int64_t chosen = tried[v * candidates + best];
        moved(sum, now, chosen, sum);
        left_over(v, sum, made + (v * count + best) * width, rest + v * width);
        exchange(v, now, chosen, before + v * hidden);
        codes[v * plain.M + m] = static_cast<uint16_t>(chosen - plain.first[m]);
    }

    void moved(const float* sum, int64_t from, int64_t to, float* out) const {
        const float *a = net.entries + from * width, *b = net.entries + to * width;
        for (int64_t i = 0; i < width; i += kLanes)
            store(out + i, (load(sum + i) - load(a + i)) + load(b + i));
    }
};

int64_t network_scratch(const NetworkView& net, int64_t vectors, int32_t candidates) {
    Bump bump{nullptr};
    NetworkSearch search(bump, net, vectors, candidates);
    return bump.used;
}

void network_hidden(const NetworkView& net, const uint16_t* codes, int64_t vectors, float* out) {
    Bump bump{nullptr};
    const NetworkSearch search(bump, net, 0, 0);
    for (int64_t v = 0; v < vectors; v++) {
        float* row = out + v * net.hidden;
        search.add_entries(codes, v, row);
        for (int64_t i = 0; i < net.hidden; i += kLanes) store(row + i, positive(load(row + i)));
    }
}

void network_decode(const NetworkView& net, const uint16_t* codes, int64_t vectors, const float* weights,
                    float* out, float* told, float* scratch) {
    Bump bump{scratch};
    const NetworkSearch search(bump, net, vectors, 0);
    search.decode(codes, vectors);
    for (int64_t v = 0; v < vectors; v++) {
        const float *sum = search.sums + v * net.width, *correction = search.made + v * net.width;
        for (int64_t j = 0; j < net.dim; j++) out[v * net.dim + j] = sum[j] + correction[j];
        if (!told) continue;
        Lanes total = splat(0.f);
        for (int64_t i = 0; i < net.hidden; i += kLanes)
            total = total + load(search.units + v * net.hidden + i) * load(weights + i);
        told[v] = in_order(total);
    }
}

void network_sweep(const NetworkView& net, const float* x, int64_t vectors, int32_t candidates,
                   int32_t sweeps, uint16_t* codes, float* scratch) {
    Bump bump{scratch};
    const NetworkSearch search(bump, net, vectors, candidates);
    search.begin(x, vectors, codes);
    for (int32_t t = 0; t < sweeps; t++)
        for (int m = 0; m < net.plain.M; m++) search.choose(m, vectors, codes);
}

void network_aim(const NetworkView& net, const float* x, int64_t vectors, const uint16_t* codes, float reach,
                 float* sums, float* errors, float* scratch) {
    Bump bump{scratch};
    const NetworkSearch search(bump, net, vectors, 1);
    search.begin(x, vectors, codes);
    for (int64_t v = 0; v < vectors; v++) errors[v] = search.errors[v];
    search.aim(vectors, reach, sums);
}

}  // namespace
}  // namespace annvq
