#include "bind.h"
#include "tables.h"

namespace annvq {

void bind_tables(nb::module_& m) {
    m.def(
        "build_tables",
        [](In<float, 2> queries, In<float, 2> entries, In<int32_t, 1> sizes, In<int32_t, 1> offsets, bool l2,
           float scale, int threads) {
            const int64_t M = sizes.shape(0), width = entries.shape(1), dim = queries.shape(1);
            require(M >= 1 && offsets.shape(0) == sizes.shape(0),
                    "sizes and offsets must have shape (M,), M >= 1");
            int64_t total = 0, K = 0;
            for (int64_t i = 0; i < M; i++) {
                require(sizes.data()[i] >= 1, "sizes must be positive");
                require(offsets.data()[i] >= 0 && offsets.data()[i] + width <= dim,
                        "offsets reach beyond the queries");
                total += sizes.data()[i];
                K = K > sizes.data()[i] ? K : sizes.data()[i];
            }
            require(total == static_cast<int64_t>(entries.shape(0)), "entries must have sum(sizes) rows");
            const size_t nq = queries.shape(0);
            float* data;
            auto out = new_array<float, 3>({nq, static_cast<size_t>(M), static_cast<size_t>(K)}, &data);
            {
                nb::gil_scoped_release release;
                const Codebooks books{entries.data(), sizes.data(), offsets.data(), static_cast<int32_t>(M),
                                      static_cast<int32_t>(width)};
                build_tables(queries.data(), nq, dim, books, l2, scale, K, data, threads);
            }
            return out;
        },
        nb::arg("queries"), nb::arg("entries"), nb::arg("sizes"), nb::arg("offsets"), nb::arg("l2"),
        nb::arg("scale"), nb::arg("threads"));
    m.def(
        "squared_norms",
        [](In<float, 2> x, int threads) {
            float* data;
            auto out = new_array<float, 1>({x.shape(0)}, &data);
            nb::gil_scoped_release release;
            squared_norms(x.data(), x.shape(0), x.shape(1), data, threads);
            return out;
        },
        nb::arg("x"), nb::arg("threads"));
}

}  // namespace annvq
