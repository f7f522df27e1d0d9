#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>

#include <optional>

#include "bind.h"
#include "scan.h"

namespace annvq {
namespace {

template <class Code>
std::pair<Out<float, 2>, Out<int64_t, 2>> scan(In<Code, 2> codes, In<float, 3> luts, In<float, 1> bias,
                                               int64_t k, std::optional<In<float, 1>> norms,
                                               std::optional<In<int64_t, 1>> ids,
                                               std::optional<In<uint8_t, 1>> keep, int threads) {
    const int64_t n = codes.shape(0), M = codes.shape(1), nq = luts.shape(0), K = luts.shape(2);
    require(M >= 1 && static_cast<int64_t>(luts.shape(1)) == M, "luts must have shape (nq, M, K)");
    require(static_cast<int64_t>(bias.shape(0)) == nq, "bias must have shape (nq,)");
    require(k >= 1, "k must be at least 1");
    for (auto* p = codes.data(); p < codes.data() + n * M; p++)
        require(*p < K, "codes reach beyond the tables");
    require(!norms || static_cast<int64_t>(norms->shape(0)) == n, "norms must have shape (n,)");
    require(!ids || static_cast<int64_t>(ids->shape(0)) == n, "ids must have shape (n,)");
    require(!keep || static_cast<int64_t>(keep->shape(0)) == n, "keep must have shape (n,)");
    float* d;
    int64_t* r;
    auto distances = new_array<float, 2>({static_cast<size_t>(nq), static_cast<size_t>(k)}, &d);
    auto result = new_array<int64_t, 2>({static_cast<size_t>(nq), static_cast<size_t>(k)}, &r);
    {
        nb::gil_scoped_release release;
        const CodesView view{codes.data(),
                             n,
                             static_cast<int32_t>(M),
                             sizeof(Code) == 2,
                             norms ? norms->data() : nullptr,
                             ids ? ids->data() : nullptr,
                             keep ? keep->data() : nullptr};
        scan_topk(view, luts.data(), K, bias.data(), nq, k, d, r, threads);
    }
    return {distances, result};
}

}  // namespace

void bind_scan(nb::module_& m) {
    using nb::arg;
    m.def("scan_u8", &scan<uint8_t>, arg("codes"), arg("luts"), arg("bias"), arg("k"), arg("norms").none(),
          arg("ids").none(), arg("keep").none(), arg("threads"));
    m.def("scan_u16", &scan<uint16_t>, arg("codes"), arg("luts"), arg("bias"), arg("k"), arg("norms").none(),
          arg("ids").none(), arg("keep").none(), arg("threads"));
}

}  // namespace annvq
