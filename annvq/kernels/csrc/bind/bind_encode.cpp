#include <nanobind/stl/optional.h>

#include <optional>

#include "bind/bind.h"
#include "common/mutex.h"
#include "encode/encode.h"
#include "encode/iterated.h"
#include "encode/network.h"
#include "encode/norm_search.h"

namespace annvq {
namespace {

using Sizes = In<int32_t, 1>;

void check_books(const In<float, 2>& entries, const Sizes& sizes) {
    require(sizes.shape(0) >= 1, "sizes must have shape (M,), M >= 1");
    int64_t total = 0;
    for (size_t m = 0; m < sizes.shape(0); m++) {
        require(sizes.data()[m] >= 1 && sizes.data()[m] <= 65536, "sizes must lie in [1, 65536]");
        total += sizes.data()[m];
    }
    require(total == static_cast<int64_t>(entries.shape(0)), "entries must have sum(sizes) rows");
    require(entries.shape(1) >= 1, "entries must have at least one column");
}

void check_codes(const In<uint16_t, 2>& codes, const EncoderBooks& books) {
    const int64_t n = codes.shape(0), M = books.M;
    require(static_cast<int64_t>(codes.shape(1)) == M, "codes must have shape (n, M)");
    for (int64_t i = 0; i < n * M; i++)
        require(codes.data()[i] < books.sizes[i % M], "codes reach beyond the codebooks");
}

Out<uint16_t, 2> copied(const In<uint16_t, 2>& codes, const EncoderBooks& books, uint16_t** data) {
    check_codes(codes, books);
    auto out = new_array<uint16_t, 2>({codes.shape(0), codes.shape(1)}, data);
    if (codes.size()) std::memcpy(*data, codes.data(), codes.size() * sizeof(uint16_t));
    return out;
}

class ProductEncoder {
  public:
    ProductEncoder(In<float, 2> entries, Sizes sizes, Sizes offsets) {
        check_books(entries, sizes);
        require(offsets.shape(0) == sizes.shape(0), "offsets must have shape (M,)");
        books_ = product_books(entries.data(), sizes.data(), static_cast<int32_t>(sizes.shape(0)),
                               static_cast<int32_t>(entries.shape(1)));
        offsets_.assign(offsets.data(), offsets.data() + offsets.shape(0));
        for (int32_t o : offsets_) require(o >= 0, "offsets must not be negative");
    }
    Out<uint16_t, 2> encode(In<float, 2> x, int threads) const {
        const int64_t n = x.shape(0), dim = x.shape(1);
        for (int32_t o : offsets_) require(o + books_.width <= dim, "offsets reach beyond x");
        uint16_t* codes;
        auto out = new_array<uint16_t, 2>({x.shape(0), static_cast<size_t>(books_.M)}, &codes);
        WithoutLock release;
        encode_product(books_, offsets_.data(), x.data(), n, dim, codes, threads);
        return out;
    }

  private:
    EncoderBooks books_;
    std::vector<int32_t> offsets_;
};

class AdditiveEncoder {
  public:
    AdditiveEncoder(In<float, 2> entries, Sizes sizes, int64_t gram_limit, int threads) {
        check_books(entries, sizes);
        require(sizes.shape(0) <= kMaxAdditiveCodebooks, "additive codes have at most 1024 codebooks");
        WithoutLock release;
        books_ = additive_books(entries.data(), sizes.data(), static_cast<int32_t>(sizes.shape(0)),
                                static_cast<int32_t>(entries.shape(1)), gram_limit, threads);
    }
    Out<uint16_t, 3> beam(In<float, 2> x, int32_t beam, bool any_order, int32_t keep, int threads) const {
        check(x);
        require(beam >= 1 && beam <= 4096, "beam must lie in [1, 4096]");
        require(keep >= 1 && keep <= beam, "keep must lie in [1, beam]");
        uint16_t* codes;
        auto out = new_array<uint16_t, 3>(
            {x.shape(0), static_cast<size_t>(keep), static_cast<size_t>(books_.M)}, &codes);
        WithoutLock release;
        encode_beam(books_, x.data(), x.shape(0), beam, any_order, keep, codes, threads);
        return out;
    }
    Out<uint16_t, 2> local_search(In<float, 2> x, In<uint16_t, 2> start, In<int32_t, 2> schedule,
                                  int32_t width, int threads) const {
        check(x);
        check_schedule(schedule);
        require(width >= 1 && width <= kLanes, "width must lie in [1, 16]");
        uint16_t* codes;
        auto out = started(x, start, &codes);
        const int64_t n = x.shape(0);
        const int32_t rounds = static_cast<int32_t>(schedule.shape(0)),
                      open = static_cast<int32_t>(schedule.shape(1));
        WithoutLock release;
        encode_local_search(books_, x.data(), n, schedule.data(), rounds, open, width, codes, threads);
        return out;
    }
    Out<uint16_t, 2> norm_search(In<float, 2> x, In<uint16_t, 2> start, In<int32_t, 2> pairs,
                                 In<float, 1> offsets, In<float, 1> levels, float weight, float error_share,
                                 std::optional<In<float, 2>> centres, std::optional<In<float, 1>> rest,
                                 int threads) const {
        check(x);
        require(!centres || (centres->shape(0) == x.shape(0) && centres->shape(1) == x.shape(1)),
                "centres must have the shape of x");
        require(!rest || rest->shape(0) == x.shape(0), "rest must have a value for each row of x");
        check_schedule(pairs);
        require(has_gram(), "the codebooks' Gram matrix is beyond its limit");
        require(pairs.shape(1) == 2, "pairs must have shape (rounds, 2)");
        int64_t entries = 0;
        for (int32_t size : books_.sizes) entries += size;
        require(static_cast<int64_t>(offsets.shape(0)) == entries, "offsets must have shape (sum(sizes),)");
        require(levels.shape(0) >= 1 || weight >= 0, "levels must have at least one value");
        require(error_share >= 0 && error_share <= 1, "error_share must be between 0 and 1");
        uint16_t* codes;
        auto out = started(x, start, &codes);
        const int64_t n = x.shape(0);
        const int32_t rounds = static_cast<int32_t>(pairs.shape(0));
        WithoutLock release;
        const NormModel model =
            norm_model(books_, offsets.data(), levels.data(), levels.shape(0), weight, error_share);
        encode_norm_search(books_, model, x.data(), centres ? centres->data() : nullptr,
                           rest ? rest->data() : nullptr, n, pairs.data(), rounds, codes, threads);
        return out;
    }
    Out<uint16_t, 2> iterated(In<float, 2> x, In<uint16_t, 2> start, int32_t iterations, int32_t perturbed,
                              int32_t sweeps, uint64_t seed, float heat, int threads) {
        check(x);
        require(has_gram(), "iterated local search needs the Gram matrix");
        require(books_.M <= kMaxIteratedCodebooks, "iterated local search takes at most 64 codebooks");
        require(iterations >= 0, "iterations must not be negative");
        require(heat >= 0 && heat <= 1, "heat must be between 0 and 1");
        require(perturbed >= 1 && sweeps >= 1, "perturbed and sweeps must be at least 1");
        uint16_t* codes;
        auto out = started(x, start, &codes);
        const int64_t n = x.shape(0);
        WithoutLock release;
        {
            std::lock_guard<Mutex> lock(making_tables_);
            if (!tables_made_) tables_ = pair_tables(books_);
            tables_made_ = true;
        }
        encode_iterated(books_, tables_, x.data(), n, {iterations, perturbed, sweeps, seed, heat}, codes,
                        threads);
        return out;
    }
    bool has_gram() const { return !books_.gram.empty(); }

  private:
    // The codes that a search starts from.
    Out<uint16_t, 2> started(const In<float, 2>& x, const In<uint16_t, 2>& start, uint16_t** codes) const {
        require(start.shape(0) == x.shape(0), "codes must have as many rows as x");
        return copied(start, books_, codes);
    }
    void check_schedule(const In<int32_t, 2>& schedule) const {
        const int64_t rounds = schedule.shape(0), open = schedule.shape(1);
        require(open >= 1 && open <= books_.M, "a round opens between 1 and M codebooks");
        for (int64_t t = 0; t < rounds; t++)
            for (int64_t s = 0; s < open; s++) {
                const int32_t m = schedule.data()[t * open + s];
                require(m >= 0 && m < books_.M, "schedule names a codebook that does not exist");
                for (int64_t q = 0; q < s; q++)
                    require(schedule.data()[t * open + q] != m, "a round names a codebook twice");
            }
    }
    void check(const In<float, 2>& x) const {
        require(static_cast<int64_t>(x.shape(1)) == books_.width, "x must have as many columns as entries");
    }
    EncoderBooks books_;
    PairTables tables_;
    Mutex making_tables_;
    bool tables_made_ = false;
};

class NetworkCoder {
  public:
    NetworkCoder(In<float, 2> entries, In<float, 2> plain, Sizes sizes, In<float, 2> inward,
                 In<float, 1> bias, In<float, 2> outward, int threads) {
        check_books(entries, sizes);
        check_books(plain, sizes);
        require(sizes.shape(0) <= kMaxAdditiveCodebooks, "additive codes have at most 1024 codebooks");
        const size_t dim = entries.shape(1), hidden = bias.shape(0);
        require(plain.shape(1) == dim, "plain must have the shape of entries");
        require(hidden >= 1 && hidden <= 65536, "bias must have shape (hidden,), hidden in [1, 65536]");
        require(inward.shape(0) == hidden && inward.shape(1) == dim, "inward must have shape (hidden, dim)");
        require(outward.shape(0) == dim && outward.shape(1) == hidden,
                "outward must have shape (dim, hidden)");
        WithoutLock release;
        network_ =
            make_network(entries.data(), plain.data(), sizes.data(), static_cast<int32_t>(sizes.shape(0)),
                         static_cast<int32_t>(dim), inward.data(), bias.data(), outward.data(),
                         static_cast<int32_t>(hidden), threads);
    }
    nb::tuple decode(In<uint16_t, 2> codes, In<float, 1> weights, int threads) const {
        check_codes(codes, network_.plain);
        require(static_cast<int64_t>(weights.shape(0)) == network_.hidden,
                "weights must have shape (hidden,)");
        float *x, *told;
        auto out = new_array<float, 2>({codes.shape(0), static_cast<size_t>(network_.dim)}, &x);
        auto sums = new_array<float, 1>({codes.shape(0)}, &told);
        {
            WithoutLock release;
            network_decode(network_, codes.data(), codes.shape(0), weights.data(), x, told, threads);
        }
        return nb::make_tuple(out, sums);
    }
    Out<float, 2> hidden(In<uint16_t, 2> codes, int threads) const {
        check_codes(codes, network_.plain);
        float* units;
        auto out = new_array<float, 2>({codes.shape(0), static_cast<size_t>(network_.hidden)}, &units);
        WithoutLock release;
        network_hidden(network_, codes.data(), codes.shape(0), units, threads);
        return out;
    }
    Out<uint16_t, 2> sweep(In<float, 2> x, In<uint16_t, 2> start, int32_t candidates, int32_t sweeps,
                           int threads) const {
        require(static_cast<int64_t>(x.shape(1)) == network_.dim, "x must have as many columns as entries");
        require(start.shape(0) == x.shape(0), "codes must have as many rows as x");
        require(candidates >= 1 && candidates <= kMostCandidates, "candidates must lie in [1, 64]");
        require(sweeps >= 0, "sweeps must not be negative");
        uint16_t* codes;
        auto out = copied(start, network_.plain, &codes);
        const int64_t n = x.shape(0);
        WithoutLock release;
        network_sweep(network_, x.data(), n, candidates, sweeps, codes, threads);
        return out;
    }
    nb::tuple aim(In<float, 2> x, In<uint16_t, 2> codes, float reach, int threads) const {
        require(static_cast<int64_t>(x.shape(1)) == network_.dim, "x must have as many columns as entries");
        require(codes.shape(0) == x.shape(0), "codes must have as many rows as x");
        require(reach > 0, "reach must be above zero");
        check_codes(codes, network_.plain);
        float *sums, *errors;
        auto out = new_array<float, 2>({x.shape(0), x.shape(1)}, &sums);
        auto left = new_array<float, 1>({x.shape(0)}, &errors);
        {
            WithoutLock release;
            network_aim(network_, x.data(), x.shape(0), codes.data(), reach, sums, errors, threads);
        }
        return nb::make_tuple(out, left);
    }

  private:
    Network network_;
};

}  // namespace

void bind_encode(nb::module_& m) {
    using nb::arg;
    nb::class_<ProductEncoder>(m, "ProductEncoder")
        .def(nb::init<In<float, 2>, Sizes, Sizes>(), arg("entries"), arg("sizes"), arg("offsets"))
        .def("encode", &ProductEncoder::encode, arg("x"), arg("threads"));
    nb::class_<AdditiveEncoder>(m, "AdditiveEncoder")
        .def(nb::init<In<float, 2>, Sizes, int64_t, int>(), arg("entries"), arg("sizes"), arg("gram_limit"),
             arg("threads"))
        .def("beam", &AdditiveEncoder::beam, arg("x"), arg("beam"), arg("any_order"), arg("keep"),
             arg("threads"))
        .def("local_search", &AdditiveEncoder::local_search, arg("x"), arg("codes"), arg("schedule"),
             arg("width"), arg("threads"))
        .def("iterated", &AdditiveEncoder::iterated, arg("x"), arg("codes"), arg("iterations"),
             arg("perturbed"), arg("sweeps"), arg("seed"), arg("heat"), arg("threads"))
        .def("norm_search", &AdditiveEncoder::norm_search, arg("x"), arg("codes"), arg("pairs"),
             arg("offsets"), arg("levels"), arg("weight"), arg("error_share"), arg("centres").none(),
             arg("rest").none(), arg("threads"))
        .def_prop_ro("has_gram", &AdditiveEncoder::has_gram);
    nb::class_<NetworkCoder>(m, "NetworkCoder")
        .def(nb::init<In<float, 2>, In<float, 2>, Sizes, In<float, 2>, In<float, 1>, In<float, 2>, int>(),
             arg("entries"), arg("plain"), arg("sizes"), arg("inward"), arg("bias"), arg("outward"),
             arg("threads"))
        .def("decode", &NetworkCoder::decode, arg("codes"), arg("weights"), arg("threads"))
        .def("hidden", &NetworkCoder::hidden, arg("codes"), arg("threads"))
        .def("sweep", &NetworkCoder::sweep, arg("x"), arg("codes"), arg("candidates"), arg("sweeps"),
             arg("threads"))
        .def("aim", &NetworkCoder::aim, arg("x"), arg("codes"), arg("reach"), arg("threads"));
}

}  // namespace annvq
