#include "bind.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "cpu.h"

NB_MODULE(_native, m) {
    m.doc() = "annvq's compiled kernels; use them through annvq.kernels.";
    m.def("simd_level", [] { return std::string(annvq::simd_name(annvq::simd_level())); });
    m.def("available_levels", &annvq::available_levels);
    m.def("set_simd_level", &annvq::set_simd_level, nanobind::arg("name"));
    annvq::bind_tables(m);
    annvq::bind_scan(m);
    annvq::bind_store(m);
    annvq::bind_encode(m);
    annvq::bind_rerank(m);
}
