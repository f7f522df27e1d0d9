"""Whatever is done to an index, it answers as a plain list of its vectors would; and while it is being done, too."""

import threading

import numpy as np
import pytest
import scan_reference as reference
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import annvq
from annvq import kernels

KINDS = [("product", 4, "auto"), ("residual", 8, "uint8"), ("residual", (3, 9), "float32"), ("product", 8, "auto")]
IDS = st.integers(0, 400)


@pytest.fixture(scope="module")
def quantizers(small):
    return [(small(kind, nbits=nbits, M=2)[0], norm) for kind, nbits, norm in KINDS]


def brute_force(index, codes, norms, ids, queries, k):
    tables, bias, levels = index.coding.tables(queries)
    return reference.scan(codes, tables.build(), bias, k, norms=norms if levels is None else levels[norms], ids=ids)


def require_equal(found, expected):
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_array_equal(found[0].view(np.uint32), expected[0].view(np.uint32))


class History(RuleBasedStateMachine):
    """An index beside a dictionary of what it must hold."""

    choices: list = []  # noqa: RUF012 set by the test
    folder = None

    @initialize(choice=st.integers(0, len(KINDS) - 1), seed=st.integers(0, 2**31))
    def start(self, choice, seed):
        quantizer, norm = self.choices[choice]
        self.rng = np.random.default_rng(seed)
        self.index = annvq.FlatIndex(quantizer, norm=norm)
        self.held, self.next_id = {}, 0

    def vectors(self, n):
        return self.rng.normal(size=(n, self.index.dim)).astype(np.float32) * 3

    def hold(self, x, ids):
        codes, norms, _ = self.index.coding.encode(x)
        for i, number in enumerate(np.asarray(ids).tolist()):
            self.held[number] = (codes[i], 0 if norms is None else norms[i])
        self.next_id = max([self.next_id, *(np.asarray(ids) + 1).tolist()])

    @rule(n=st.integers(0, 700))
    def add(self, n):
        x = self.vectors(n)
        self.index.add(x)
        self.hold(x, np.arange(self.next_id, self.next_id + n))

    @rule(ids=st.lists(IDS, max_size=40, unique=True))
    def add_with_ids(self, ids):
        ids, x = np.array(ids, np.int64), self.vectors(len(ids))
        if any(i in self.held for i in ids.tolist()):
            with pytest.raises(ValueError, match="repeated"):
                self.index.add(x, ids)
        else:
            self.index.add(x, ids)
            self.hold(x, ids)

    @rule(ids=st.lists(IDS, max_size=40, unique=True))
    def upsert(self, ids):
        ids, x = np.array(ids, np.int64), self.vectors(len(ids))
        self.index.upsert(x, ids)
        self.hold(x, ids)

    @precondition(lambda self: self.held)
    @rule(share=st.sampled_from([0.01, 0.5, 1.0]))
    def remove(self, share):
        gone = np.array([i for i in self.held if self.rng.random() < share], np.int64)
        if share < 1 and len(self.held) < 401:
            absent = next(i for i in range(402) if i not in self.held)
            with pytest.raises(ValueError, match="not there"):
                self.index.remove(np.r_[gone, absent])
        assert self.index.remove(gone) == len(gone)
        for i in gone.tolist():
            del self.held[i]

    @rule(mmap=st.booleans())
    def reload(self, mmap):
        self.index.save(self.folder / "i")
        self.index = annvq.load_index(self.folder / "i", mmap=mmap)

    @precondition(lambda self: self.held)
    @rule()
    def reconstruct(self):
        ids = self.rng.permutation(list(self.held))[:9]
        codes = np.array([self.held[i][0] for i in ids.tolist()])
        np.testing.assert_array_equal(self.index.reconstruct(ids), self.index.quantizer.decode(codes))

    @rule(share=st.sampled_from([0.0, 0.02, 0.6]), k=st.sampled_from([1, 10, 2000]))
    def search(self, share, k):
        ids = np.array(sorted(self.held), np.int64)
        keep = self.rng.random(len(ids)) < share
        bitmap = np.zeros(int(ids.max(initial=0)) + 1, bool)
        bitmap[ids[keep]] = True
        queries = self.vectors(3)
        expected = self.expected(ids[keep], queries, k)
        calls = []

        def judge(stored):
            calls.append(stored)
            return bitmap[stored]

        for filter in (ids[keep], self.rng.permutation(ids[keep]), bitmap, judge):
            require_equal(self.index.search(queries, k, filter=filter), expected)
        assert len(calls) == 1
        assert calls[0].dtype == np.int64
        assert sorted(calls[0].tolist()) == ids.tolist()

    def expected(self, ids, queries, k):
        q = self.index.quantizer
        codes = np.array([self.held[i][0] for i in ids.tolist()], q.code_dtype).reshape(len(ids), q.M)
        norms = None
        if self.index.norm:
            norms = np.array([self.held[i][1] for i in ids.tolist()], self.index.norm)
        return brute_force(self.index, codes, norms, ids, queries, k)

    @invariant()
    def answers(self):
        if not hasattr(self, "index"):
            return
        assert len(self.index) == len(self.held)
        ids = np.array(sorted(self.held), np.int64)
        np.testing.assert_array_equal(self.index.ids, ids)
        queries = self.vectors(2)
        require_equal(self.index.search(queries, 10), self.expected(ids, queries, 10))


def test_any_history(quantizers, tmp_path):
    History.choices, History.folder = quantizers, tmp_path
    from hypothesis.stateful import run_state_machine_as_test

    try:
        run_state_machine_as_test(History, settings=settings(deadline=None, max_examples=25, stateful_step_count=12))
    finally:
        History.choices = []


@pytest.mark.parametrize("choice", range(len(KINDS)))
def test_levels_threads_and_batches_agree(quantizers, choice):
    quantizer, norm = quantizers[choice]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(9000, quantizer.dim)).astype(np.float32)
    whole = annvq.FlatIndex(quantizer, norm=norm).add(x)
    parts = annvq.FlatIndex(quantizer, norm=norm)
    for a, b in [(0, 1), (1, 700), (700, 5000), (5000, 9000)]:
        parts.add(x[a:b])
    codes, norms, ids, _ = whole._store.export()
    expected = brute_force(whole, codes, norms, ids, x[:40], 30)
    level, threads = kernels.simd_level(), annvq.get_num_threads()
    try:
        for name in kernels.available_levels():
            kernels.set_simd_level(name)
            for n in (1, 2, 5):
                annvq.set_num_threads(n)
                for index in (whole, parts):
                    require_equal(index.search(x[:40], 30), expected)
                    singles = [index.search(x[i : i + 1], 30) for i in range(0, 40, 13)]
                    require_equal(
                        [np.concatenate(part) for part in zip(*singles, strict=True)],
                        (expected[0][::13], expected[1][::13]),
                    )
    finally:
        kernels.set_simd_level(level)
        annvq.set_num_threads(threads)


@pytest.mark.parametrize("choice", range(len(KINDS)))
def test_searches_see_the_index_before_a_change_or_after_it(quantizers, choice):
    """One thread adds, replaces and removes; each search of the others equals some state between two changes."""
    quantizer, norm = quantizers[choice]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, quantizer.dim)).astype(np.float32)
    index = annvq.FlatIndex(quantizer, norm=norm).add(x[:100])
    queries = x[:3]
    changes = [lambda a=a: index.add(x[a : a + 90]) for a in range(100, 1000, 90)]
    changes += [lambda a=a: index.upsert(x[a + 1000 : a + 1040], np.arange(a, a + 40)) for a in range(0, 400, 40)]
    changes += [lambda a=a: index.remove(np.arange(a, a + 60)) for a in range(0, 900, 60)]
    changes = [changes[i] for i in rng.permutation(10)] + changes[10:]
    states = [index.search(queries, 5000)]
    seen, stop, failures = [], threading.Event(), []

    def watch(filtered):
        while not stop.is_set():
            try:
                allowed = np.arange(0, 1000, 2) if filtered else None
                seen.append((filtered, index.search(queries, 5000, filter=allowed)))
            except Exception as e:
                failures.append(e)
                return

    watchers = [threading.Thread(target=watch, args=(filtered,)) for filtered in (False, False, True)]
    for watcher in watchers:
        watcher.start()
    for change in changes:
        change()
        states.append(index.search(queries, 5000))
    stop.set()
    for watcher in watchers:
        watcher.join()
    assert not failures
    assert len(seen) > 3

    def key(result):
        return (result[0].tobytes(), result[1].tobytes())

    def even(result):
        keep = (result[1] >= 0) & (result[1] % 2 == 0)
        out = np.full_like(result[0], np.inf), np.full_like(result[1], -1)
        for row in range(len(keep)):
            n = keep[row].sum()
            out[0][row, :n], out[1][row, :n] = result[0][row, keep[row]], result[1][row, keep[row]]
        return out

    possible = {(False, key(s)) for s in states} | {(True, key(even(s))) for s in states}
    for filtered, result in seen:
        assert (filtered, key(result)) in possible
