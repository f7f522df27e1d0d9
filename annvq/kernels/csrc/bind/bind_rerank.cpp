#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>

#include "bind/bind.h"
#include "coarse/coarse.h"
#include "rerank/rerank.h"

namespace annvq {
namespace {

using Bytes = In<uint8_t, 2>;
using Ids = In<int64_t, 1>;
using AnyRows = nb::ndarray<nb::numpy, nb::ro, nb::ndim<2>, nb::device::cpu>;
using Result = std::pair<Out<float, 2>, Out<int64_t, 2>>;

RowType row_type(const std::string& name) {
    if (name == "float32") return RowType::f32;
    if (name == "float16") return RowType::f16;
    if (name == "bfloat16") return RowType::bf16;
    if (name == "uint8") return RowType::u8;
    require(name == "int8", "dtype must be float32, float16, bfloat16, uint8 or int8");
    return RowType::i8;
}

RowMetric row_metric(const std::string& name) {
    if (name == "l2") return RowMetric::l2;
    if (name == "ip") return RowMetric::ip;
    if (name == "unit") return RowMetric::unit;
    require(name == "cosine", "metric must be l2, ip, cosine or unit");
    return RowMetric::cosine;
}

RerankArguments arguments(const In<float, 2>& queries, const In<int64_t, 2>& ids, int64_t k,
                          const std::string& metric, int threads) {
    require(ids.shape(0) == queries.shape(0), "ids must have shape (nq, s)");
    require(k >= 1, "k must be at least 1");
    return {queries.data(),
            static_cast<int64_t>(queries.shape(0)),
            static_cast<int64_t>(queries.shape(1)),
            ids.data(),
            static_cast<int64_t>(ids.shape(1)),
            k,
            row_metric(metric),
            threads};
}

template <class Search>
Result search(const RerankArguments& a, Search&& run) {
    float* d;
    int64_t* i;
    auto distances = new_array<float, 2>({static_cast<size_t>(a.nq), static_cast<size_t>(a.k)}, &d);
    auto found = new_array<int64_t, 2>({static_cast<size_t>(a.nq), static_cast<size_t>(a.k)}, &i);
    WithoutLock release;
    run(d, i);
    return {distances, found};
}

void check_rows(const RowStore& s, const Ids& ids, const Bytes& rows) {
    require(ids.shape(0) == rows.shape(0) && static_cast<int64_t>(rows.shape(1)) == s.row_bytes(),
            "rows must have shape (n, row_bytes) and ids (n,)");
}

SumBooks sum_books(In<float, 2> entries, In<int32_t, 1> sizes, In<int32_t, 1> starts, int64_t dim,
                   bool wide) {
    SumBooks b;
    b.M = static_cast<int32_t>(sizes.shape(0));
    b.width = static_cast<int32_t>(entries.shape(1));
    b.wide = wide;
    require(b.M >= 1 && starts.shape(0) == sizes.shape(0), "sizes and starts must have shape (M,)");
    int64_t total = 0;
    for (int32_t m = 0; m < b.M; m++) {
        require(sizes.data()[m] >= 1, "sizes must be positive");
        require(starts.data()[m] >= 0 && starts.data()[m] + b.width <= dim,
                "entries reach beyond the vector");
        b.first.push_back(total);
        total += sizes.data()[m];
    }
    require(total == static_cast<int64_t>(entries.shape(0)), "entries must have sum(sizes) rows");
    b.sizes.assign(sizes.data(), sizes.data() + b.M);
    b.starts.assign(starts.data(), starts.data() + b.M);
    b.entries.assign(entries.data(), entries.data() + entries.shape(0) * entries.shape(1));
    return b;
}

Result search_codes(const RowStore& store, const SumBooks& books, In<float, 2> queries, In<int64_t, 2> ids,
                    int64_t k, const std::string& metric, const SumBooks* coarse_books, Bytes coarse_codes,
                    In<float, 2> centroids, In<int32_t, 1> lists, int threads) {
    const RerankArguments a = arguments(queries, ids, k, metric, threads);
    const int64_t count = a.nq * a.s;
    CoarsePart coarse;
    require(store.row_bytes() == books.M * (books.wide ? 2 : 1), "rows must hold one code for each codebook");
    if (coarse_books) {
        require(
            static_cast<int64_t>(coarse_codes.shape(0)) == count &&
                static_cast<int64_t>(coarse_codes.shape(1)) == coarse_books->M * (coarse_books->wide ? 2 : 1),
            "coarse_codes must have shape (nq * s, M)");
        coarse.books = coarse_books;
        coarse.codes = coarse_codes.data();
    }
    if (centroids.shape(0)) {
        require(static_cast<int64_t>(lists.shape(0)) == count, "lists must have shape (nq * s,)");
        require(static_cast<int64_t>(centroids.shape(1)) == a.dim, "centroids must have shape (nlist, d)");
        for (int64_t i = 0; i < count; i++)
            require(lists.data()[i] >= 0 && lists.data()[i] < static_cast<int64_t>(centroids.shape(0)),
                    "lists must be numbers of centroids");
        coarse.centroids = centroids.data();
        coarse.lists = lists.data();
    }
    return search(a, [&](float* d, int64_t* i) { rerank_codes(a, store, books, coarse, d, i); });
}

Result search_array(AnyRows rows, const std::string& dtype, In<float, 2> queries, In<int64_t, 2> ids,
                    int64_t k, const std::string& metric, int threads) {
    const RerankArguments a = arguments(queries, ids, k, metric, threads);
    const RowType type = row_type(dtype);
    require(rows.itemsize() == static_cast<size_t>(row_item(type)), "rows must be of the dtype given");
    require(static_cast<int64_t>(rows.shape(1)) == a.dim && (rows.stride(1) == 1 || a.dim == 1) &&
                rows.stride(0) >= 0,
            "rows must have shape (n, d), the dimensions of a row side by side");
    return search(a, [&](float* d, int64_t* i) {
        rerank_array(a, static_cast<const uint8_t*>(rows.data()), rows.shape(0),
                     rows.stride(0) * row_item(type), type, d, i);
    });
}

std::pair<Out<int32_t, 2>, Out<float, 2>> probe(const CoarseSearch& s, In<float, 2> queries, int64_t nprobe,
                                                bool squared, int threads) {
    require(static_cast<int64_t>(queries.shape(1)) == s.dim(), "queries must have shape (nq, d)");
    require(nprobe >= 1 && nprobe <= s.nlist(), "nprobe must lie in 1..nlist");
    int32_t* l;
    float* v;
    auto lists = new_array<int32_t, 2>({queries.shape(0), static_cast<size_t>(nprobe)}, &l);
    auto scores = new_array<float, 2>({queries.shape(0), static_cast<size_t>(nprobe)}, &v);
    WithoutLock release;
    s.probe(queries.data(), queries.shape(0), nprobe, squared, l, v, threads);
    return {lists, scores};
}

Out<int32_t, 1> assign(const CoarseSearch& s, In<float, 2> x, int threads) {
    require(static_cast<int64_t>(x.shape(1)) == s.dim(), "x must have shape (n, d)");
    int32_t* l;
    auto lists = new_array<int32_t, 1>({x.shape(0)}, &l);
    WithoutLock release;
    s.assign(x.data(), x.shape(0), l, threads);
    return lists;
}

void bind_row_store(nb::module_& m) {
    using nb::arg;
    nb::class_<RowStore>(m, "RowStore")
        .def(nb::init<int64_t>(), arg("row_bytes"))
        .def("__len__", &RowStore::size)
        .def_prop_ro("row_bytes", &RowStore::row_bytes)
        .def_prop_ro("nbytes", &RowStore::memory)
        .def(
            "append",
            [](RowStore& s, Ids ids, Bytes rows, bool replace) {
                check_rows(s, ids, rows);
                for (size_t i = 0; i < ids.shape(0); i++)
                    require(ids.data()[i] >= 0, "ids must not be negative");
                WithoutLock release;
                s.append(ids.data(), rows.data(), ids.shape(0), replace);
            },
            arg("ids"), arg("rows"), arg("replace") = false)
        .def(
            "adopt",
            [](RowStore& s, Ids ids, Bytes rows) {
                check_rows(s, ids, rows);
                const uint8_t* data = rows.data();
                const int64_t n = rows.shape(0);
                s.adopt(ids.data(), data, n, keep(nb::cast(rows)));
            },
            arg("ids"), arg("rows"))
        .def(
            "remove",
            [](RowStore& s, Ids ids) {
                WithoutLock release;
                return s.remove(ids.data(), ids.shape(0));
            },
            arg("ids"))
        .def(
            "get",
            [](const RowStore& s, Ids ids) {
                uint8_t* data;
                auto out = new_array<uint8_t, 2>({ids.shape(0), static_cast<size_t>(s.row_bytes())}, &data);
                WithoutLock release;
                s.get(ids.data(), ids.shape(0), data);
                return out;
            },
            arg("ids"))
        .def("export", [](const RowStore& s) {
            std::vector<int64_t> ids;
            std::vector<uint8_t> rows;
            {
                WithoutLock release;
                s.export_rows(ids, rows);
            }
            int64_t* i;
            uint8_t* r;
            auto out_ids = new_array<int64_t, 1>({ids.size()}, &i);
            auto out_rows = new_array<uint8_t, 2>({ids.size(), static_cast<size_t>(s.row_bytes())}, &r);
            if (!ids.empty()) {
                std::memcpy(i, ids.data(), ids.size() * sizeof(int64_t));
                std::memcpy(r, rows.data(), rows.size());
            }
            return std::pair(out_ids, out_rows);
        });
}

}  // namespace

void bind_rerank(nb::module_& m) {
    using nb::arg;
    bind_row_store(m);
    nb::class_<CoarseSearch>(m, "CoarseSearch")
        .def(
            "__init__",
            [](CoarseSearch* s, In<float, 2> centroids) {
                require(centroids.shape(0) >= 1 && centroids.shape(0) < (1u << 31),
                        "centroids must not be empty");
                new (s) CoarseSearch(centroids.data(), static_cast<int32_t>(centroids.shape(0)),
                                     static_cast<int32_t>(centroids.shape(1)));
            },
            arg("centroids"))
        .def("probe", &probe, arg("queries"), arg("nprobe"), arg("squared"), arg("threads"))
        .def("assign", &assign, arg("x"), arg("threads"));
    nb::class_<SumBooks>(m, "SumBooks")
        .def(
            "__init__",
            [](SumBooks* b, In<float, 2> entries, In<int32_t, 1> sizes, In<int32_t, 1> starts, int64_t dim,
               bool wide) { new (b) SumBooks(sum_books(entries, sizes, starts, dim, wide)); },
            arg("entries"), arg("sizes"), arg("starts"), arg("dim"), arg("wide"));
    m.def(
        "rerank_rows",
        [](const RowStore& store, const std::string& dtype, In<float, 2> queries, In<int64_t, 2> ids,
           int64_t k, const std::string& metric, int threads) {
            const RerankArguments a = arguments(queries, ids, k, metric, threads);
            const RowType type = row_type(dtype);
            require(store.row_bytes() == a.dim * row_item(type),
                    "rows must hold d values of the dtype given");
            return search(a, [&](float* d, int64_t* i) { rerank_rows(a, store, type, d, i); });
        },
        arg("store"), arg("dtype"), arg("queries"), arg("ids"), arg("k"), arg("metric"), arg("threads"));
    m.def("rerank_array", &search_array, arg("rows"), arg("dtype"), arg("queries"), arg("ids"), arg("k"),
          arg("metric"), arg("threads"));
    m.def("rerank_codes", &search_codes, arg("store"), arg("books"), arg("queries"), arg("ids"), arg("k"),
          arg("metric"), arg("coarse_books").none(), arg("coarse_codes"), arg("centroids"), arg("lists"),
          arg("threads"));
}

}  // namespace annvq
