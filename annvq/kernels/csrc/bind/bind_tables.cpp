#include "bind/bind_tables.h"

#include <nanobind/stl/optional.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

#include "bind/bind.h"
#include "common/centre.h"
#include "tables/tables.h"

namespace annvq {
namespace {

TableBuilder* make_builder(In<float, 2> entries, In<int32_t, 1> sizes, In<int32_t, 1> starts) {
    const int64_t M = sizes.shape(0);
    require(M >= 1 && starts.shape(0) == sizes.shape(0), "sizes and starts must have shape (M,), M >= 1");
    int64_t total = 0;
    for (int64_t m = 0; m < M; m++) {
        require(sizes.data()[m] >= 1, "sizes must be positive");
        require(starts.data()[m] >= 0, "starts must not be negative");
        total += sizes.data()[m];
    }
    require(total == static_cast<int64_t>(entries.shape(0)), "entries must have sum(sizes) rows");
    return new TableBuilder(entries.data(), sizes.data(), starts.data(), M, entries.shape(1));
}

bool holds(const TableBuilder& builder, In<float, 2> entries) {
    return static_cast<int64_t>(entries.shape(0)) == builder.total() &&
           static_cast<int64_t>(entries.shape(1)) == builder.width() && builder.holds(entries.data());
}

// Some values of a matrix: one of every row and of every column, and runs of a cache line spread over all of
// it, as far apart as some rows and a little, so that they move through the columns. Small matrices are taken
// whole.
class Sample {
  public:
    explicit Sample(In<float, 2> x) : x_(std::move(x)), rows_(x_.shape(0)), columns_(x_.shape(1)) {
        const size_t size = x_.size(), most = kRuns * kRun;
        step_ = size <= most ? kRun : std::max<size_t>(1, rows_ / kRuns) * columns_ + kRun;
        for (size_t at = 0; at < size; at += step_)
            runs_.insert(runs_.end(), x_.data() + at, x_.data() + at + std::min(kRun, size - at));
        if (size > most) diagonal_.resize(std::max(rows_, columns_));
        for_diagonal([&](size_t i, const float* at) { std::memcpy(&diagonal_[i], at, sizeof(float)); });
    }

    // Whether the matrix still holds them, bit for bit.
    bool unchanged() const {
        const float *own = runs_.data(), *end = own + runs_.size();
        for (const float* at = x_.data(); own < end; own += kRun, at += step_)
            if (std::memcmp(at, own, std::min<size_t>(kRun, end - own) * sizeof(float))) return false;
        uint32_t differ = 0;
        for_diagonal([&](size_t i, const float* at) {
            uint32_t now;
            std::memcpy(&now, at, sizeof(float));
            differ |= now ^ diagonal_[i];
        });
        return !differ;
    }

  private:
    // The diagonal, from the shorter side's end on from its beginning again.
    template <class Fn>
    void for_diagonal(Fn&& fn) const {
        for (size_t i = 0, row = 0, column = 0; i < diagonal_.size(); i++) {
            fn(i, x_.data() + row * columns_ + column);
            if (++row == rows_) row = 0;
            if (++column == columns_) column = 0;
        }
    }

    static constexpr size_t kRun = 16, kRuns = 64;
    In<float, 2> x_;
    size_t rows_, columns_, step_;
    std::vector<float> runs_;
    std::vector<uint32_t> diagonal_;  // bits of floats
};

void require_offsets(const TableBuilder& b, const std::optional<In<float, 2>>& offsets) {
    require(!offsets || (static_cast<int64_t>(offsets->shape(0)) == b.M() &&
                         static_cast<int64_t>(offsets->shape(1)) == b.K()),
            "offsets must have shape (M, K)");
}

LazyTables* make_lazy(nb::object builder, In<float, 2> queries, bool squared, double scale,
                      std::optional<In<float, 2>> offsets) {
    const TableBuilder* b = nullptr;
    if (!nb::try_cast(builder, b, false) || !b) throw nb::type_error("builder must be a TableBuilder");
    require(b->least_dim() <= static_cast<int64_t>(queries.shape(1)), "codebooks reach beyond the queries");
    require_offsets(*b, offsets);
    return new LazyTables{std::move(builder), b, std::move(queries), squared, scale, std::move(offsets)};
}

LazyTables scaled(const LazyTables& tables, double factor) {
    require(!tables.squared && !tables.offsets, "tables of squares, or with offsets, cannot be scaled");
    LazyTables out = tables;
    out.scale *= factor;
    return out;
}

LazyTables plus(const LazyTables& tables, In<float, 2> offsets) {
    require(!tables.offsets, "the tables have offsets already");
    LazyTables out = tables;
    out.offsets = std::move(offsets);
    require_offsets(*out.builder, out.offsets);
    return out;
}

Out<float, 3> build(const LazyTables& lazy, int threads) {
    const size_t nq = lazy.queries.shape(0), M = lazy.builder->M(), K = lazy.builder->K();
    float* data;
    auto out = new_array<float, 3>({nq, M, K}, &data);
    const UnbuiltTables tables = lazy.tables();
    WithoutLock release;
    tables.build(tables.queries, nq, data, threads);
    return out;
}

Out<float, 1> centre_of(In<float, 2> entries) {
    require(entries.shape(0) >= 1, "entries must have at least one row");
    float* data;
    auto out = new_array<float, 1>({entries.shape(1)}, &data);
    book_centre(entries.data(), entries.shape(0), entries.shape(1), data);
    return out;
}

}  // namespace

void bind_tables(nb::module_& m) {
    using nb::arg;
    nb::class_<TableBuilder>(m, "TableBuilder")
        .def(nb::new_(&make_builder), arg("entries"), arg("sizes"), arg("starts"))
        .def("holds", &holds, arg("entries"));
    nb::class_<Sample>(m, "Sample")
        .def(nb::init<In<float, 2>>(), arg("x"))
        .def("unchanged", &Sample::unchanged);
    nb::class_<LazyTables>(m, "LazyTables")
        .def(nb::new_(&make_lazy), arg("builder"), arg("queries"), arg("squared"), arg("scale"),
             arg("offsets").none() = nb::none())
        .def("scaled", &scaled, arg("factor"))
        .def("plus", &plus, arg("offsets"))
        .def("build", &build, arg("threads") = 1);
    m.def("book_centre", &centre_of, arg("entries"));
    m.def(
        "squared_norms",
        [](In<float, 2> x, int threads) {
            float* data;
            auto out = new_array<float, 1>({x.shape(0)}, &data);
            WithoutLock release;
            squared_norms(x.data(), x.shape(0), x.shape(1), data, threads);
            return out;
        },
        nb::arg("x"), nb::arg("threads"));
}

}  // namespace annvq
