#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>

#include <cmath>
#include <optional>
#include <tuple>

#include "bind/bind.h"
#include "scan/blocks.h"
#include "scan/filter_costs.h"
#include "scan/norm_bytes.h"

namespace annvq {
namespace {

Layout layout_of(int64_t M, bool norm, bool floats, bool nibbles,
                 const std::optional<In<uint8_t, 2>>& relabel) {
    require(!relabel || (static_cast<int64_t>(relabel->shape(0)) == M && relabel->shape(1) == 256),
            "relabel must have shape (M, 256)");
    const NormKind kind = !norm ? NormKind::none : floats ? NormKind::floats : NormKind::levels;
    return Layout(static_cast<int32_t>(M), kind, nibbles, relabel ? relabel->data() : nullptr);
}

Out<uint8_t, 1> pack(In<uint8_t, 2> codes, std::optional<In<uint8_t, 1>> norms, bool nibbles,
                     std::optional<In<uint8_t, 2>> relabel) {
    const int64_t n = codes.shape(0), M = codes.shape(1);
    require(M >= 1, "codes must have shape (n, M), M >= 1");
    require(!norms || static_cast<int64_t>(norms->shape(0)) == n, "norms must have shape (n,)");
    const Layout layout = layout_of(M, norms.has_value(), false, nibbles, relabel);
    uint8_t* data;
    auto out = new_array<uint8_t, 1>({static_cast<size_t>(layout.bytes(n))}, &data);
    WithoutLock release;
    std::memset(data, 0, layout.bytes(n));
    layout.pack(codes.data(), norms ? norms->data() : nullptr, n, 0, data);
    return out;
}

// Bytes that stand for float norms in the filter, and the range that they are on.
std::tuple<Out<uint8_t, 1>, float, float> norm_bytes(In<float, 1> norms) {
    const size_t n = norms.shape(0);
    uint8_t* data;
    auto out = new_array<uint8_t, 1>({n}, &data);
    WithoutLock release;
    for (size_t i = 0; i < n; i++) require(std::isfinite(norms.data()[i]), "norms must be finite");
    const NormRange range = norm_range(norms.data(), n);
    for (size_t i = 0; i < n; i++) data[i] = norm_byte(norms.data()[i], range);
    return {out, range.low, range.step};
}

std::pair<Out<float, 2>, Out<int64_t, 2>> scan_packed(In<uint8_t, 1> blocks, int64_t n, int64_t highest,
                                                      bool nibbles, std::optional<In<uint8_t, 2>> relabel,
                                                      In<float, 3> luts, In<float, 1> bias, int64_t k,
                                                      std::optional<In<float, 1>> norm_levels,
                                                      std::optional<In<float, 1>> norms, float norm_low,
                                                      float norm_step, std::optional<In<int64_t, 1>> ids,
                                                      std::optional<In<uint8_t, 1>> keep, int threads) {
    const int64_t nq = luts.shape(0), M = luts.shape(1), K = luts.shape(2);
    const Layout layout = layout_of(M, norm_levels || norms, norms.has_value(), nibbles, relabel);
    require(n >= 0 && M >= 1 && static_cast<int64_t>(blocks.shape(0)) == layout.bytes(n),
            "blocks must hold n vectors of M codes and, with norms, a norm each");
    require(highest < K && K <= 256, "codes reach beyond the tables");
    require(static_cast<int64_t>(bias.shape(0)) == nq, "bias must have shape (nq,)");
    require(k >= 1, "k must be at least 1");
    require(!norm_levels || norm_levels->shape(0) == 256, "norm_levels must have shape (256,)");
    require(!norm_levels || !norms, "norms must be given as levels or as floats, not both");
    require(!norms || static_cast<int64_t>(norms->shape(0)) == n, "norms must have shape (n,)");
    require(!ids || static_cast<int64_t>(ids->shape(0)) == n, "ids must have shape (n,)");
    require(!keep || static_cast<int64_t>(keep->shape(0)) == n, "keep must have shape (n,)");
    float* d;
    int64_t* r;
    auto distances = new_array<float, 2>({static_cast<size_t>(nq), static_cast<size_t>(k)}, &d);
    auto result = new_array<int64_t, 2>({static_cast<size_t>(nq), static_cast<size_t>(k)}, &r);
    {
        WithoutLock release;
        Segment segment{blocks.data(), n};
        segment.ids = ids ? ids->data() : nullptr;
        segment.norms_f32 = norms ? norms->data() : nullptr;
        segment.norm_low = norm_low, segment.norm_step = norm_step;
        const Blocks view{segment, layout, norm_levels ? norm_levels->data() : nullptr,
                          keep ? keep->data() : nullptr};
        scan_blocks(view, scan_kernels(), luts.data(), K, bias.data(), nq, k, d, r, threads);
    }
    return {distances, result};
}

}  // namespace

void bind_scan(nb::module_& m) {
    using nb::arg;
    m.def("pack_blocks", &pack, arg("codes"), arg("norms").none(), arg("nibbles"), arg("relabel").none());
    m.def("scan_blocks", &scan_packed, arg("blocks"), arg("n"), arg("highest"), arg("nibbles"),
          arg("relabel").none(), arg("luts"), arg("bias"), arg("k"), arg("norm_levels").none(),
          arg("norms").none(), arg("norm_low"), arg("norm_step"), arg("ids").none(), arg("keep").none(),
          arg("threads"));
    m.def("lookup_cost", [] {
        const ScanKernels& kernels = scan_kernels();
        const FilterCosts& costs = filter_costs(kernels);
        double least = 0;
        for (int f = 0; f < kernels.filter_count; f++)
            least = f ? std::min(least, costs.column[f]) : costs.column[f];
        return least / kSuperblock;
    });
    m.def("norm_bytes", &norm_bytes, arg("norms"));
}

}  // namespace annvq
