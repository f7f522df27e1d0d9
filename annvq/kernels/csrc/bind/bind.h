// Array types and checks shared by the bindings; each bind_*.cpp adds one family of functions to the module.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>

namespace annvq {

namespace nb = nanobind;

template <class T, int Dims>
using In = nb::ndarray<nb::numpy, const T, nb::ndim<Dims>, nb::c_contig, nb::device::cpu>;
template <class T, int Dims>
using Out = nb::ndarray<nb::numpy, T, nb::ndim<Dims>, nb::c_contig, nb::device::cpu>;

// A fresh NumPy array that owns its memory; *data points at it.
template <class T, int Dims>
Out<T, Dims> new_array(std::initializer_list<size_t> shape, T** data) {
    size_t size = 1;
    for (size_t s : shape) size *= s;
    constexpr std::align_val_t line{64};  // a SIMD load from the middle of a line would touch two
    T* memory = static_cast<T*>(::operator new((size ? size : 1) * sizeof(T), line));
    *data = memory;
    nb::capsule owner(memory, [](void* p) noexcept { ::operator delete(p, line); });
    return Out<T, Dims>(memory, shape.size(), shape.begin(), owner);
}

// Lets other Python threads run meanwhile. At exit Python ends a daemon thread where it next asks for the
// interpreter's lock, by unwinding its stack, which C++ answers by aborting the process (as PyTorch's calls
// in the same thread do): daemon threads that are here by then stay here until the process is gone.
class WithoutLock {
  public:
    WithoutLock();
    ~WithoutLock();
    WithoutLock(const WithoutLock&) = delete;
    WithoutLock& operator=(const WithoutLock&) = delete;

  private:
    PyThreadState* state_;
};
// Keeps a Python object alive for threads that may not hold the interpreter's lock. It is released where the
// last of them is done, or, if that holds no such lock or a mutex, when a WithoutLock next ends.
std::shared_ptr<void> keep(nb::object object);

void bind_exit(nb::module_& m);

inline void require(bool ok, const char* message) {
    if (!ok) throw std::invalid_argument(message);  // becomes ValueError
}

void bind_rows(nb::module_& m);
void bind_tables(nb::module_& m);
void bind_store(nb::module_& m);
void bind_encode(nb::module_& m);
void bind_rerank(nb::module_& m);

}  // namespace annvq
