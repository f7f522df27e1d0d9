#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <tuple>

#include "bind/bind.h"
#include "bind/bind_tables.h"
#include "store/export.h"
#include "store/recent_filter.h"
#include "store/segments.h"
#include "store/store.h"

namespace annvq {
namespace {

using Ids = In<int64_t, 1>;
using Bytes = In<uint8_t, 1>;
using Floats = In<float, 1>;
template <class T>
using Maybe = std::optional<T>;

bool ascending(const int64_t* ids, int64_t n) {
    return std::adjacent_find(ids, ids + n, std::greater_equal<int64_t>()) == ids + n;
}

PreparedFilter* prepare_filter(Maybe<Bytes> bitmap, Maybe<Ids> ids) {
    require(bitmap.has_value() != ids.has_value(), "a filter must be a bitmap or a list");
    if (ids) return new PreparedFilter({}, sorted_set(ids->data(), ids->shape(0)), true);
    return new PreparedFilter({bitmap->data(), bitmap->data() + bitmap->shape(0)}, {}, false);
}

// Arrays for codes and norms of n rows, in the store's kinds.
struct RowsOut {
    nb::object codes, norms = nb::none();
    void* code_data;
    uint8_t* byte_data = nullptr;
    float* norm_data = nullptr;

    RowsOut(const StoreShape& s, size_t n) {
        const size_t M = s.M;
        if (s.wide) {
            uint16_t* p;
            codes = nb::cast(new_array<uint16_t, 2>({n, M}, &p));
            code_data = p;
        } else {
            uint8_t* p;
            codes = nb::cast(new_array<uint8_t, 2>({n, M}, &p));
            code_data = p;
        }
        if (s.norm == NormKind::levels) norms = nb::cast(new_array<uint8_t, 1>({n}, &byte_data));
        if (s.norm == NormKind::floats) norms = nb::cast(new_array<float, 1>({n}, &norm_data));
    }
};

StoreShape shape(int32_t M, std::vector<int32_t> sizes, bool wide, const std::string& norm, int32_t lists) {
    require(M >= 1 && static_cast<int32_t>(sizes.size()) == M, "sizes must have shape (M,), M >= 1");
    for (int32_t k : sizes) require(k >= 1 && k <= (wide ? 65536 : 256), "sizes must fit the code_dtype");
    require(lists >= 1, "lists must be at least 1");
    require(norm == "none" || norm == "uint8" || norm == "float32",
            "norm must be None, 'uint8' or 'float32'");
    return {M, std::move(sizes), wide,
            norm == "none"    ? NormKind::none
            : norm == "uint8" ? NormKind::levels
                              : NormKind::floats,
            lists};
}

bool is_permutation(const int64_t* order, size_t size, int64_t n) {
    std::vector<bool> seen(n);
    for (size_t i = 0; i < size; i++) {
        if (order[i] < 0 || order[i] >= n || seen[order[i]]) return false;
        seen[order[i]] = true;
    }
    return static_cast<int64_t>(size) == n;
}

const uint8_t* checked(const Maybe<In<uint8_t, 2>>& relabel, int32_t M) {
    if (!relabel) return nullptr;
    require(static_cast<int32_t>(relabel->shape(0)) == M && relabel->shape(1) == 256,
            "relabel must be uint8 of shape (M, 256)");
    return relabel->data();
}

Out<int64_t, 1> sizes(const Snapshot& s) {
    int64_t* data;
    auto out = new_array<int64_t, 1>({s.lists.size()}, &data);
    for (size_t l = 0; l < s.lists.size(); l++) data[l] = s.lists[l]->rows - s.lists[l]->dead;
    return out;
}

class Store {
  public:
    Store(int32_t M, std::vector<int32_t> sizes, bool wide, const std::string& norm, int32_t lists,
          Maybe<In<uint8_t, 2>> relabel)
        : store_(shape(M, std::move(sizes), wide, norm, lists), checked(relabel, M)) {}

    template <class Code>
    int64_t append(In<Code, 2> codes, Maybe<Bytes> norm_bytes, Maybe<Floats> norms, Ids ids,
                   Maybe<In<int32_t, 1>> lists, const std::string& fresh) {
        const StoreShape& s = store_.shape();
        const size_t n = codes.shape(0), M = s.M;
        require(s.wide == (sizeof(Code) == 2), "codes must have the store's code_dtype");
        require(codes.shape(1) == M, "codes must have shape (n, M)");
        require(ids.shape(0) == n, "ids must have shape (n,)");
        require(norm_bytes.has_value() == (s.norm == NormKind::levels) &&
                    (!norm_bytes || norm_bytes->shape(0) == n) &&
                    norms.has_value() == (s.norm == NormKind::floats) && (!norms || norms->shape(0) == n),
                "norms must be what the store keeps: none, uint8 (n,) or float32 (n,)");
        require(lists ? lists->shape(0) == n : s.lists == 1, "lists must have shape (n,)");
        require(fresh == "checked" || fresh == "known" || fresh == "replaces",
                "fresh must be 'checked', 'known' or 'replaces'");
        WithoutLock release;
        for (size_t i = 0; i < n; i++) {
            for (size_t m = 0; m < M; m++)
                require(codes.data()[i * M + m] < s.sizes[m], "codes must lie in 0..K-1 of their codebook");
            require(ids.data()[i] >= 0, "ids must not be negative");
            require(!lists || (lists->data()[i] >= 0 && lists->data()[i] < s.lists),
                    "lists must lie in 0..lists-1");
            require(!norms || norms->data()[i] > -__builtin_inff(), "norms must hold no NaN and no -inf");
        }
        const Rows rows{
            static_cast<int64_t>(n),         codes.data(), norm_bytes ? norm_bytes->data() : nullptr,
            norms ? norms->data() : nullptr, ids.data(),   lists ? lists->data() : nullptr};
        recent_.forget();
        return store_.append(rows, fresh == "checked" ? Fresh::checked
                                   : fresh == "known" ? Fresh::known
                                                      : Fresh::replaces);
    }

    void adopt(Bytes blocks, Maybe<Ids> ids, int64_t first_id, In<int64_t, 1> list_sizes, bool mapped) {
        const StoreShape& s = store_.shape();
        require(has_blocks(), "only codes that fill their bytes, without float norms, lie in blocks");
        require(static_cast<int32_t>(list_sizes.shape(0)) == s.lists, "list_sizes must have shape (lists,)");
        require(store_.size() == 0, "the store must be empty");
        int64_t n = 0;
        const int64_t most = static_cast<int64_t>(blocks.shape(0));
        for (size_t l = 0; l < list_sizes.shape(0); l++) {
            const int64_t size = list_sizes.data()[l];
            require(size >= 0 && size <= most, "list_sizes must not be negative or beyond the blocks");
            n += size;
            require(n <= most, "list_sizes must add up to the rows of the blocks");
        }
        require(n * store_.layout().columns() == most, "blocks must hold n rows of the store's columns");
        require(!ids || static_cast<int64_t>(ids->shape(0)) == n, "ids must have shape (n,)");
        require(first_id >= 0 && first_id <= INT64_MAX - n, "first_id must not be negative");
        const auto owner = keep(nb::make_tuple(blocks, ids ? nb::cast(*ids) : nb::none()));
        const uint8_t* codes = blocks.data();
        const int64_t* id = ids ? ids->data() : nullptr;
        WithoutLock release;
        store_.adopt(codes, id, first_id, list_sizes.data(), mapped ? owner : nullptr);
    }

    void remove(Ids ids) {
        WithoutLock release;
        recent_.forget();
        store_.remove(ids.data(), ids.shape(0));
    }

    Out<uint8_t, 1> contains(Ids ids) {
        uint8_t* data;
        auto out = new_array<uint8_t, 1>({ids.shape(0)}, &data);
        WithoutLock release;
        store_.contains(ids.data(), ids.shape(0), data);
        return out;
    }

    nb::tuple rows(Ids ids) {
        const size_t n = ids.shape(0);
        RowsOut out(store_.shape(), n);
        int32_t* lists;
        auto numbers = new_array<int32_t, 1>({n}, &lists);
        {
            WithoutLock release;
            store_.rows(ids.data(), n, out.code_data, out.byte_data, out.norm_data, lists);
        }
        return nb::make_tuple(out.codes, out.norms, numbers);
    }

    // luts: a float array (nq, M, K), or LazyTables. distances, ids: (nq, k), to be filled. (Arrays that
    // Python makes take less time than those made here, which single queries feel.)
    void search(nb::handle luts, Floats bias, int64_t k, Maybe<Floats> norm_levels,
                Maybe<In<int32_t, 2>> probes, Maybe<In<float, 2>> probe_bias, Maybe<Ids> order,
                Maybe<Bytes> bitmap, Maybe<Ids> allowed, PreparedFilter* prepared, int threads,
                Out<float, 2> distances, Out<int64_t, 2> ids) {
        const StoreShape& s = store_.shape();
        SearchArguments a;
        In<float, 3> built;
        int64_t M = 0;
        if (const LazyTables* lazy; nb::try_cast(luts, lazy, false) && lazy) {
            a.unbuilt = lazy->tables();
            a.nq = lazy->queries.shape(0), M = lazy->builder->M(), a.K = lazy->builder->K();
        } else {
            if (!nb::try_cast(luts, built)) throw nb::type_error("luts must be float32 of shape (nq, M, K)");
            a.luts = built.data();
            a.nq = built.shape(0), M = built.shape(1), a.K = built.shape(2);
        }
        a.k = k;
        a.threads = std::max(1, threads);
        require(M == s.M, "luts must have shape (nq, M, K)");
        require(
            a.K >= *std::max_element(s.sizes.begin(), s.sizes.end()) && (s.wide || a.K <= 256),
            "codes reach beyond the tables: luts must have shape (nq, M, K), K the largest codebook's size");
        require(static_cast<int64_t>(bias.shape(0)) == a.nq, "bias must have shape (nq,)");
        require(k >= 1, "k must be at least 1");
        require(norm_levels.has_value() == (s.norm == NormKind::levels) &&
                    (!norm_levels || norm_levels->shape(0) == 256),
                "norm_levels must be given, of shape (256,), for uint8 norms alone");
        require(!probe_bias || (probes && probe_bias->shape(0) == probes->shape(0) &&
                                probe_bias->shape(1) == probes->shape(1)),
                "probe_bias must have the shape of probes");
        require(!probes || static_cast<int64_t>(probes->shape(0)) == a.nq, "probes must have shape (nq, P)");
        require(!order || (probes && is_permutation(order->data(), order->shape(0), a.nq)),
                "order must be a permutation of the queries, with probes");
        require(bitmap.has_value() + allowed.has_value() + (prepared != nullptr) <= 1,
                "allowed must be a bitmap, a list, or prepared");
        a.prepared = prepared;
        a.bias = bias.data();
        a.norm_levels = norm_levels ? norm_levels->data() : nullptr;
        if (probes) {
            a.probes = probes->data();
            a.P = probes->shape(1);
        }
        a.probe_bias = probe_bias ? probe_bias->data() : nullptr;
        a.order = order ? order->data() : nullptr;
        const int64_t none = 0;
        if (bitmap) a.allowed = {bitmap->data(), static_cast<int64_t>(bitmap->shape(0)), nullptr, 0};
        if (bitmap && !a.allowed.bitmap) a.allowed.bitmap = reinterpret_cast<const uint8_t*>(&none);
        if (allowed) a.allowed = {nullptr, 0, allowed->data(), static_cast<int64_t>(allowed->shape(0))};
        if (allowed && !a.allowed.ids) a.allowed.ids = &none;
        const auto fits = [&](const auto& out) {
            return static_cast<int64_t>(out.shape(0)) == a.nq && static_cast<int64_t>(out.shape(1)) == k;
        };
        require(fits(distances) && fits(ids), "distances and ids must have shape (nq, k)");
        WithoutLock release;
        std::vector<int64_t> sorted;
        std::shared_ptr<PreparedFilter> recent;
        if (a.nq == 1 && !a.probes) recent = recent_.find(a.allowed, store_.size());
        if (recent) {
            a.prepared = recent.get();
            a.allowed = {};
        } else if (a.allowed.ids && !ascending(a.allowed.ids, a.allowed.count)) {
            sorted = sorted_set(a.allowed.ids, a.allowed.count);
            a.allowed.ids = sorted.data();
            a.allowed.count = static_cast<int64_t>(sorted.size());
        }
        store_.search(a, distances.data(), ids.data());
    }

    nb::tuple ids() const {
        const auto s = store_.snapshot();
        int64_t* data;
        auto out = new_array<int64_t, 1>({static_cast<size_t>(s->live)}, &data);
        {
            WithoutLock release;
            annvq::export_ids(*s, data);
        }
        return nb::make_tuple(out, sizes(*s));
    }

    nb::tuple export_rows() {
        const auto s = store_.snapshot();
        RowsOut out(store_.shape(), s->live);
        int64_t* id;
        auto ids = new_array<int64_t, 1>({static_cast<size_t>(s->live)}, &id);
        {
            WithoutLock release;
            annvq::export_rows(*s, store_.format(), out.code_data, out.byte_data, out.norm_data, id);
        }
        return nb::make_tuple(out.codes, out.norms, ids, sizes(*s));
    }

    nb::tuple export_blocks() {
        require(has_blocks(), "only byte codes without float norms lie in blocks");
        const auto s = store_.snapshot();
        uint8_t* block;
        int64_t* id;
        auto blocks =
            new_array<uint8_t, 1>({static_cast<size_t>(s->live * store_.layout().columns())}, &block);
        auto ids = new_array<int64_t, 1>({static_cast<size_t>(s->live)}, &id);
        {
            WithoutLock release;
            annvq::export_blocks(*s, store_.format(), block, id);
        }
        return nb::make_tuple(blocks, ids, sizes(*s));
    }

    // Whether whole superblocks can be written out and scanned where they lie: any byte in them is a code.
    bool has_blocks() const {
        const StoreShape& s = store_.shape();
        return !s.wide && s.norm != NormKind::floats && any_byte_is_a_code();
    }

    int64_t size() const { return store_.size(); }
    int64_t code_bytes() const { return store_.code_bytes(); }
    int64_t id_bytes() {
        WithoutLock release;
        return store_.id_bytes();
    }
    Out<int64_t, 1> list_sizes() const { return sizes(*store_.snapshot()); }

  private:
    bool any_byte_is_a_code() const {
        const StoreShape& s = store_.shape();
        const int32_t full = store_.layout().nibbles() ? 16 : 256;
        return !(store_.layout().nibbles() && s.M % 2) &&
               std::all_of(s.sizes.begin(), s.sizes.end(), [&](int32_t k) { return k == full; });
    }

    CodeStore store_;
    RecentFilter recent_;
};

}  // namespace

void bind_store(nb::module_& m) {
    using nb::arg;
    nb::class_<PreparedFilter>(m, "PreparedFilter")
        .def(nb::new_(&prepare_filter), arg("bitmap").none(), arg("ids").none());
    nb::class_<Store>(m, "CodeStore")
        .def(nb::init<int32_t, std::vector<int32_t>, bool, const std::string&, int32_t,
                      Maybe<In<uint8_t, 2>>>(),
             arg("M"), arg("sizes"), arg("wide"), arg("norm"), arg("lists"), arg("relabel").none())
        .def("append_u8", &Store::append<uint8_t>, arg("codes"), arg("norm_bytes").none(),
             arg("norms").none(), arg("ids"), arg("lists").none(), arg("fresh"))
        .def("append_u16", &Store::append<uint16_t>, arg("codes"), arg("norm_bytes").none(),
             arg("norms").none(), arg("ids"), arg("lists").none(), arg("fresh"))
        .def("adopt", &Store::adopt, arg("blocks"), arg("ids").none(), arg("first_id"), arg("list_sizes"),
             arg("mapped"))
        .def("remove", &Store::remove, arg("ids"))
        .def("contains", &Store::contains, arg("ids"))
        .def("rows", &Store::rows, arg("ids"))
        .def("search", &Store::search, arg("luts"), arg("bias"), arg("k"), arg("norm_levels").none(),
             arg("probes").none(), arg("probe_bias").none(), arg("order").none(), arg("bitmap").none(),
             arg("allowed").none(), arg("prepared").none(), arg("threads"), arg("distances").noconvert(),
             arg("ids").noconvert())
        .def("ids", &Store::ids)
        .def("export_rows", &Store::export_rows)
        .def("has_blocks", &Store::has_blocks)
        .def("export_blocks", &Store::export_blocks)
        .def("size", &Store::size)
        .def("code_bytes", &Store::code_bytes)
        .def("id_bytes", &Store::id_bytes)
        .def("list_sizes", &Store::list_sizes);
}

}  // namespace annvq
