#include "bind/bind.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <atomic>
#include <chrono>
#include <thread>
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

#include "coarse/kernels.h"
#include "common/mutex.h"
#include "common/parallel.h"
#include "encode/kernels.h"
#include "rerank/kernels.h"
#include "scan/filter_costs.h"
#include "scan/kernels.h"
#include "simd/levels.h"
#include "store/kernels.h"
#include "tables/kernels.h"

namespace annvq {
namespace {

std::atomic<int> inside{0};
std::atomic<bool> closing{false}, staying{false};
std::thread::id closer;
thread_local int without_lock = 0;  // blocks of this thread that have let go of the interpreter's lock

// (PyGILState_Check() is not part of the stable ABI.)
bool has_lock() { return !without_lock && PyGILState_GetThisThreadState() != nullptr; }

bool must_not_return() { return closing && std::this_thread::get_id() != closer; }

[[noreturn]] void stay() {
    staying = true;
    inside--;
    for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
}

// Called with the lock, once all threads but daemons have ended.
void close() {
    closer = std::this_thread::get_id();
    closing = true;
    PyThreadState* state = PyEval_SaveThread();
    do std::this_thread::sleep_for(std::chrono::milliseconds(5));  // those who come back call again, and stay
    while (inside);
    PyEval_RestoreThread(state);
    if (staying) nb::set_leak_warnings(false);  // what they hold is theirs until the end
}

// An object to release, in a list of them.
struct Kept {
    nb::object object;
    Kept* next = nullptr;
};
std::atomic<Kept*> to_release{nullptr};

// Called with the interpreter's lock.
void release_kept() {
    if (!to_release.load(std::memory_order_relaxed)) return;
    for (Kept* k = to_release.exchange(nullptr); k;) {
        Kept* next = k->next;
        delete k;
        k = next;
    }
}

// Waits for nothing: whoever holds a mutex must not wait for the interpreter's lock (common/mutex.h).
void release(Kept* kept) {
    if (has_lock() && !Gate::is_inside()) {
        delete kept;
        return;
    }
    kept->next = to_release;
    while (!to_release.compare_exchange_weak(kept->next, kept)) {
    }
}

// What is made when it is first asked for is made now, as a fork may come between.
void make_all() {
    coarse_kernels();
    encode_kernels();
    rerank_kernels();
    scan_kernels();
    store_kernels();
    table_kernels();
    run_together(0, [] {});
}

}  // namespace

WithoutLock::WithoutLock() {
    inside++;
    state_ = PyEval_SaveThread();
    without_lock++;
    if (must_not_return()) stay();
}

WithoutLock::~WithoutLock() {
    if (must_not_return()) stay();
    PyEval_RestoreThread(state_);
    without_lock--;
    inside--;
    release_kept();
}

std::shared_ptr<void> keep(nb::object object) {
    return std::shared_ptr<Kept>(new Kept{std::move(object)}, release);
}

void bind_exit(nb::module_& m) {
    make_all();
    m.def("_close", &close);
    nb::module_::import_("atexit").attr("register")(m.attr("_close"));
#if defined(__unix__) || defined(__APPLE__)
    pthread_atfork(nullptr, nullptr, [] { inside = 0; });  // other threads are not there in the child
#endif
}

}  // namespace annvq

NB_MODULE(_native, m) {
    m.doc() = "annvq's compiled kernels; use them through annvq.kernels.";
    m.def("simd_level", [] { return std::string(annvq::level_name(annvq::simd_level())); });
    m.def("available_levels", &annvq::available_levels);
    m.def("set_simd_level", &annvq::set_simd_level, nanobind::arg("name"));
    m.def("lookup_cost", &annvq::lookup_ns);
    annvq::bind_exit(m);
    annvq::bind_rows(m);
    annvq::bind_tables(m);
    annvq::bind_store(m);
    annvq::bind_encode(m);
    annvq::bind_rerank(m);
}
