"""A process may fork while its other threads search and write: the child can use every index, and sees it whole."""

import os
import signal
import threading
import time
import traceback

import numpy as np
import pytest

from annvq import FlatIndex, IVFIndex, KeyedIndex, ProductVQ, RerankIndex, ResidualVQ, forks
from annvq.forks import Lock, made_once
from annvq.threads import one_torch_thread

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

FORKS, SECONDS, PATIENCE = 15, 4.0, 30.0
D = 16
RNG = np.random.default_rng(0)
X = RNG.normal(size=(2000, D)).astype(np.float32)
MOVING = np.arange(1000, 1200)  # ids that come and go together


def in_child(work):
    """Run ``work`` in a forked process; what it says went wrong, or ''."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            said = work() or ""
        except BaseException:
            said = traceback.format_exc()
        os.write(writer, said.encode()[:4000])
        os._exit(0)
    os.close(writer)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if os.waitpid(pid, os.WNOHANG)[0]:
            with os.fdopen(reader, "rb") as f:
                return f.read().decode()
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(reader)
    return "it hangs"


def forked_while(works, child):
    """Fork again and again while threads do ``works``; what went wrong in the children."""
    stop, failed = threading.Event(), []

    def go(work):
        try:
            while not stop.is_set():
                work()
        except BaseException:
            failed.append(traceback.format_exc())

    threads = [threading.Thread(target=go, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    said, end = [], time.monotonic() + SECONDS
    try:
        while len(said) < FORKS and time.monotonic() < end and not any(said):
            said.append(in_child(child))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failed, failed[0]
    return [one for one in said if one]


def flat(norm):
    return lambda: FlatIndex(ResidualVQ(D, 3, 5) if norm else ProductVQ(D, 4, 8))


INDEXES = {
    "flat": flat(None),
    "flat-norm": flat("uint8"),
    "ivf": lambda: IVFIndex(ProductVQ(D, 4, 4), nlist=8),
    "rerank-raw": lambda: RerankIndex(FlatIndex(ProductVQ(D, 4, 4)), "float32", shortlist=50),
    "rerank-code": lambda: RerankIndex(IVFIndex(ProductVQ(D, 4, 4), nlist=8), ProductVQ(D, 8, 4), shortlist=50),
}


@pytest.mark.parametrize("kind", INDEXES)
def test_children_of_a_process_that_searches_and_writes(kind):
    index = INDEXES[kind]().fit(X)
    index.add(X[:1000])
    allowed = np.arange(0, 2000, 2)

    def write():
        index.add(X[MOVING], MOVING)
        index.upsert(X[:50], np.arange(50))
        index.remove(MOVING)

    def search():
        index.search(X[:200], 10)
        index.search(X[:3], 5, filter=allowed)

    def child():
        there = len(index)
        if there not in (1000, 1000 + len(MOVING)):
            return f"it holds {there} vectors"
        found = index.search(X[:20], 10)[1]
        index.search(X[:1], 10, filter=allowed)
        if (found < 0).any():
            return "a search finds too few"
        if there > 1000:
            index.remove(MOVING)
        index.add(X[MOVING], MOVING)  # nothing is left of a removal that was under way
        new = index.add(X[:5]) and len(index)
        index.reconstruct(MOVING)
        index.upsert(X[:5], np.arange(5))
        if new != 1005 + len(MOVING):
            return f"it holds {new} vectors in the end"
        return ""

    assert forked_while([write, search], child) == []


def test_children_see_keys_and_vectors_together():
    index = KeyedIndex(RerankIndex(FlatIndex(ProductVQ(D, 4, 4)), "float32", shortlist=50)).fit(X)
    index.add(X[:1000], [f"{i}" for i in range(1000)])
    moving = [f"moving {i}" for i in range(200)]

    def write():
        index.add(X[MOVING], moving)
        index.upsert(X[:50], moving[:50])
        index.remove(moving)

    def child():
        if not len(index) == len(index.keys) == len(index.search(X[:1], 1300)[1][0].nonzero()[0]):
            return f"it holds {len(index)} vectors and {len(index.keys)} keys"
        if moving[0] in index:
            index.remove(moving)
        index.add(X[MOVING], moving)
        return "" if len(index) == 1200 else f"it holds {len(index)} vectors in the end"

    assert forked_while([write, lambda: index.search(X[:50], 5, filter=["7", "8"])], child) == []


def test_ids_that_an_index_chooses_stay_new():
    index = FlatIndex(ProductVQ(D, 4, 4)).fit(X)

    def child():
        before = index.ids
        index.add(X[:3])
        if len(np.unique(index.ids)) != len(before) + 3:
            return "an id came twice"
        return ""

    def add():
        index.add(X[:20])
        if len(index) > 2000:
            index.remove(index.ids)

    assert forked_while([add], child) == []


def test_children_of_a_process_that_learns():
    def fit():
        ResidualVQ(D, 2, 4).fit(X[:500])

    index = FlatIndex(ResidualVQ(D, 2, 4)).fit(X).add(X)

    def child():
        index.quantizer.encode(X[:50])
        index.search(X[:5], 3)
        with one_torch_thread():
            pass
        return ""

    assert forked_while([fit], child) == []


def test_a_fork_waits_for_locks_that_other_threads_hold():
    lock, seen = Lock(), []
    held, let_go = threading.Event(), threading.Event()

    def hold():
        with lock, lock:
            held.set()
            let_go.wait()
            with Lock():  # another one, while a fork waits
                seen.append("done")

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    threading.Timer(0.1, let_go.set).start()

    def child():
        with lock:
            return "" if seen == ["done"] else f"saw {seen}"

    assert in_child(child) == ""
    thread.join()
    with lock:  # held by the thread that forks: it still is in the child
        assert in_child(lambda: lock.__exit__() or "") == ""
    assert in_child(child) == ""
    assert forks._gate._inside == 0


def test_values_made_once_need_no_lock():
    class Maker:
        made = 0

        @made_once
        def value(self):
            """The value."""
            self.made += 1
            started.set()
            let_go.wait()
            return 7

    started, let_go = threading.Event(), threading.Event()
    maker, other = Maker(), Maker()
    thread = threading.Thread(target=lambda: maker.value)
    thread.start()
    started.wait()

    def child():
        let_go.set()
        return "" if other.value == 7 else "wrong"

    assert in_child(child) == ""
    let_go.set()
    thread.join()
    assert (maker.value, maker.made) == (7, 1)
    assert Maker.value.__doc__ == "The value."
