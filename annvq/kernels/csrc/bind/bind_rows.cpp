#include <cstdint>
#include <optional>

#include "bind/bind.h"
#include "common/rows.h"

namespace annvq {
namespace {

constexpr size_t kMany = 1 << 16;  // numbers: to let go of the interpreter's lock for fewer takes longer

bool finite(const float* x, size_t n) {
    std::optional<WithoutLock> release;
    if (n > kMany) release.emplace();
    return all_finite(x, static_cast<int64_t>(n));
}

// Whether an object is rows that can be read as they are: float32 of shape (n, dim), C-contiguous, where
// floats may lie, all finite.
bool plain_rows(nb::handle x, size_t dim) {
    In<float, 2> rows;
    if (!nb::try_cast(x, rows, false) || rows.shape(1) != dim) return false;
    return reinterpret_cast<uintptr_t>(rows.data()) % alignof(float) == 0 && finite(rows.data(), rows.size());
}

bool fill_unit_rows(nb::handle x,
                    nb::ndarray<nb::numpy, float, nb::ndim<2>, nb::c_contig, nb::device::cpu> out) {
    In<float, 2> rows;
    if (!nb::try_cast(x, rows, false)) return false;
    require(rows.shape(0) == out.shape(0) && rows.shape(1) == out.shape(1), "out must have the shape of x");
    return unit_rows(rows.data(), static_cast<int64_t>(rows.shape(0)), static_cast<int64_t>(rows.shape(1)),
                     out.data());
}

}  // namespace

void bind_rows(nb::module_& m) {
    using nb::arg;
    m.def(
        "all_finite",
        [](nb::ndarray<nb::numpy, const float, nb::c_contig, nb::device::cpu> x) {
            return finite(x.data(), x.size());
        },
        arg("x"));
    m.def("plain_rows", &plain_rows, arg("x"), arg("dim"));
    m.def("unit_rows", &fill_unit_rows, arg("x"), arg("out").noconvert());
    m.def(
        "raise_to_zero",
        [](nb::ndarray<nb::numpy, float, nb::c_contig, nb::device::cpu> x) {
            raise_to_zero(x.data(), static_cast<int64_t>(x.size()));
        },
        arg("x").noconvert());
}

}  // namespace annvq
