"""The code store against a dictionary and the NumPy reference."""

import threading

import numpy as np
import pytest
import scan_reference as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from annvq import kernels, set_num_threads
from annvq.codebooks import Codebooks
from annvq.kernels.store import CodeStore, PreparedAllowed
from annvq.threads import get_num_threads


class Model:
    """What a store must hold, row by row."""

    def __init__(self, M, sizes, dtype, norm, lists):
        self.M, self.sizes, self.dtype, self.norm, self.lists = M, sizes, dtype, norm, lists
        self.rows = {}  # id -> (code, norm, list)

    def random_rows(self, rng, ids):
        n = len(ids)
        codes = np.stack([rng.integers(0, k, n) for k in self.sizes], 1).astype(self.dtype).reshape(n, self.M)
        norms = None
        if self.norm == "uint8":
            norms = rng.integers(0, 256, n).astype(np.uint8)
        elif self.norm == "float32":
            norms = np.round(rng.normal(size=n) * 3, rng.integers(0, 3)).astype(np.float32)
        lists = rng.integers(0, self.lists, n).astype(np.int32)
        return codes, norms, np.asarray(ids, np.int64), lists

    def put(self, codes, norms, ids, lists):
        for i, number in enumerate(ids):
            self.rows[int(number)] = (codes[i], 0 if norms is None else norms[i], int(lists[i]))

    def arrays(self, keep=lambda number: True):
        ids = np.array(sorted(i for i in self.rows if keep(i)), np.int64)
        picked = [self.rows[int(i)] for i in ids]
        codes = np.array([r[0] for r in picked], self.dtype).reshape(len(ids), self.M)
        norms = None if self.norm is None else np.array([r[1] for r in picked], self.norm)
        return codes, norms, ids, np.array([r[2] for r in picked], np.int32)

    def search(self, luts, bias, k, levels, probes=None, probe_bias=None, keep=lambda number: True):
        codes, norms, ids, lists = self.arrays(keep)
        values = levels[norms] if self.norm == "uint8" else norms
        if probes is None:
            return reference.scan(codes, luts, bias, k, norms=values, ids=ids)
        distances, found = np.full((len(luts), k), np.inf, np.float32), np.full((len(luts), k), -1, np.int64)
        for q in range(len(luts)):
            hits = []
            for p, number in enumerate(probes[q]):
                own = bias[q : q + 1] if probe_bias is None else probe_bias[q, p : p + 1]
                here = lists == number
                part = None if values is None else values[here]
                d, i = reference.scan(codes[here], luts[q : q + 1], own, k, norms=part, ids=ids[here])
                hits += [(a, b) for a, b in zip(d[0], i[0], strict=True) if b >= 0]
            for r, (a, b) in enumerate(sorted(hits)[:k]):
                distances[q, r], found[q, r] = a, b
        return distances, found


def same(a, b):
    np.testing.assert_array_equal(a[1], b[1])
    np.testing.assert_array_equal(a[0].view(np.uint32), b[0].view(np.uint32))


SHAPES = [
    (np.uint8, [256, 256, 256]),
    (np.uint8, [256] * 8),
    (np.uint8, [4, 8, 16]),
    (np.uint8, [16]),
    (np.uint8, [16] * 4),
    (np.uint16, [512, 4, 1000]),
]


@settings(deadline=None, max_examples=40)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1), shape=st.sampled_from(SHAPES))
def test_any_history(data, seed, shape):
    rng = np.random.default_rng(seed)
    dtype, sizes = shape
    norm = data.draw(st.sampled_from([None, "uint8", "float32"]))
    lists = data.draw(st.sampled_from([1, 1, 3, 20, 90]))
    model = Model(len(sizes), sizes, dtype, norm, lists)
    relabel = None
    if dtype == np.uint8 and rng.random() < 0.5:
        relabel = np.stack([rng.permutation(256) for _ in sizes]).astype(np.uint8)
    store = CodeStore(len(sizes), sizes, code_dtype=dtype, norm=norm, lists=lists, relabel=relabel)
    span = data.draw(st.sampled_from([50, 1500, 2**40]))
    for _ in range(data.draw(st.integers(1, 8))):
        action = data.draw(st.sampled_from(["next", "add", "add", "remove", "replace", "reload"]))
        if action == "next":
            first = max(model.rows, default=-1) + 1
            rows = model.random_rows(rng, np.arange(first, first + int(rng.integers(1, 5000))))
            store.append(*rows, known_new=bool(rng.random() < 0.5))
            model.put(*rows)
        elif action == "add":
            new = [i for i in set(rng.integers(0, span, int(rng.integers(0, 900))).tolist()) if i not in model.rows]
            rows = model.random_rows(rng, rng.permutation(new))
            store.append(*rows)
            model.put(*rows)
        elif action == "remove":
            share = rng.choice([0.01, 0.5, 0.95])
            gone = np.array([i for i in model.rows if rng.random() < share], np.int64)
            assert store.remove(rng.permutation(gone)) == len(gone)
            for i in gone.tolist():
                del model.rows[i]
        elif action == "replace":
            ids = np.unique(rng.integers(0, min(span, 3000), int(rng.integers(0, 300))))
            rows = model.random_rows(rng, ids)
            assert store.replace(*rows) == sum(i in model.rows for i in ids.tolist())
            model.put(*rows)
        elif store.has_blocks:
            blocks, ids, counts = store.export_blocks()
            blocks.flags.writeable = False
            store = store.filled_from_blocks(blocks, ids, counts, store.relabel, mapped=bool(rng.random() < 0.5))
        else:
            codes, norms, ids, counts = store.export()
            rows_of = np.repeat(np.arange(lists, dtype=np.int32), counts)
            store = CodeStore(len(sizes), sizes, code_dtype=dtype, norm=norm, lists=lists)
            store.append(codes, norms, ids, rows_of)
        assert len(store) == len(model.rows)
    _check(store, model, rng)


def _check(store, model, rng):
    codes, norms, ids, lists = model.arrays()
    np.testing.assert_array_equal(store.list_sizes, np.bincount(lists, minlength=model.lists))
    exported = store.export()
    order = np.argsort(exported.ids)
    np.testing.assert_array_equal(exported.ids[order], ids)
    np.testing.assert_array_equal(exported.codes[order], codes)
    mixed = rng.permutation(np.arange(len(ids)))[:50]
    rows = store.rows(ids[mixed])
    np.testing.assert_array_equal(rows.codes, codes[mixed])
    np.testing.assert_array_equal(rows.lists, lists[mixed])
    if norms is not None:
        np.testing.assert_array_equal(rows.norms, norms[mixed])
        np.testing.assert_array_equal(exported.norms[order], norms)
    asked = rng.integers(0, 3000, 100)
    np.testing.assert_array_equal(store.contains(asked), np.isin(asked, ids))

    K = max(model.sizes)
    nq = int(rng.choice([1, 3, 20]))
    luts = np.round(rng.normal(size=(nq, model.M, K)) * 4, rng.integers(0, 4)).astype(np.float32)
    bias = rng.normal(size=nq).astype(np.float32)
    levels = np.sort(rng.normal(size=256)).astype(np.float32)
    stored = levels if model.norm == "uint8" else None
    share = rng.choice([0.0, 0.003, 0.1, 0.9])
    allowed = np.array([i for i in ids if rng.random() < share] + [10**15], np.int64)
    bitmap = np.zeros(min(int(ids.max(initial=0)), 10**6), bool)
    bitmap[allowed[allowed < len(bitmap)]] = True
    keep = set(allowed.tolist())
    before = get_num_threads()
    try:
        for k, threads in ((1, 1), (7, 3), (5001, 2)):
            set_num_threads(threads)
            plain = model.search(luts, bias, k, levels)
            same(store.search(luts, bias, k, norm_levels=stored), plain)
            one = store.search(luts[:1], bias[:1], k, norm_levels=stored)
            same(one, (plain[0][:1], plain[1][:1]))
            found = store.search(luts, bias, k, norm_levels=stored, allowed=rng.permutation(allowed))
            same(found, model.search(luts, bias, k, levels, keep=lambda i: i in keep))
            found = store.search(luts, bias, k, norm_levels=stored, allowed=bitmap)
            same(found, model.search(luts, bias, k, levels, keep=lambda i: i < len(bitmap) and bitmap[i]))
            for filter, keeps in ((allowed, keep), (bitmap, set(np.flatnonzero(bitmap).tolist()))):
                prepared = PreparedAllowed(filter)
                for _ in range(2):
                    found = store.search(luts, bias, k, norm_levels=stored, allowed=prepared)
                    same(found, model.search(luts, bias, k, levels, keep=lambda i, keeps=keeps: i in keeps))
            P = int(rng.integers(1, model.lists + 1))
            probes = np.stack([rng.permutation(model.lists)[:P] for _ in range(nq)]).astype(np.int32)
            probes[rng.random(probes.shape) < 0.1] = -1
            own = rng.normal(size=probes.shape).astype(np.float32) if rng.random() < 0.7 else None
            asked = model.search(luts, bias, k, levels, probes, own)
            for order in (None, rng.permutation(nq)):
                found = store.search(luts, bias, k, norm_levels=stored, probes=probes, probe_bias=own, order=order)
                same(found, asked)
    finally:
        set_num_threads(before)


@pytest.mark.parametrize("level", kernels.available_levels())
def test_every_level(level):
    before = kernels.simd_level()
    rng = np.random.default_rng(0)
    try:
        kernels.set_simd_level(level)
        for dtype, sizes in SHAPES:
            for norm in (None, "uint8", "float32"):
                model = Model(len(sizes), sizes, dtype, norm, 2)
                store = CodeStore(len(sizes), sizes, code_dtype=dtype, norm=norm, lists=2)
                rows = model.random_rows(rng, rng.permutation(6000)[:3000])
                store.append(*rows)
                model.put(*rows)
                _check(store, model, rng)
    finally:
        kernels.set_simd_level(before)


@pytest.fixture
def filled():
    rng = np.random.default_rng(0)
    store = CodeStore(2, [16, 8])
    store.append(rng.integers(0, 8, (20, 2)).astype(np.uint8), None, np.arange(20) * 2)
    return store


def test_refusals_change_nothing(filled):
    code, luts, bias = np.zeros((2, 2), np.uint8), np.zeros((1, 2, 16), np.float32), np.zeros(1, np.float32)
    nan = np.full(1, np.nan, np.float32)
    cases = [
        (lambda: filled.append(code, None, np.array([50, 4])), r"repeated: \[4\]"),
        (lambda: filled.append(code, None, np.array([50, 50])), r"repeated: \[50\]"),
        (lambda: filled.append(code, None, np.array([50, -1])), "negative"),
        (lambda: filled.append(code + 8, None, np.array([50, 51])), "codes must lie in"),
        (lambda: filled.append(code.astype(np.uint16), None, np.array([50, 51])), "codes must be uint8"),
        (lambda: filled.append(code, np.zeros(2, np.float32), np.array([50, 51])), "norms must be"),
        (lambda: filled.append(code[:, :1], None, np.array([50, 51])), r"codes must have shape \(n, M\)"),
        (lambda: filled.append(code, None, np.array([50])), r"ids must have shape \(n,\)"),
        (lambda: filled.remove(np.array([4, 3])), r"not there: \[3\]"),
        (lambda: filled.remove(np.array([4, 4])), r"repeated: \[4\]"),
        (lambda: filled.rows(np.array([1])), r"not there: \[1\]"),
        (lambda: filled.search(luts[:, :1], bias, 1), "luts must have shape"),
        (lambda: filled.search(luts[:, :, :15].copy(), bias, 1), "codes reach beyond"),
        (lambda: filled.search(luts, bias, 0), "k must be at least 1, got 0"),
        (lambda: filled.search(luts, bias, -1), "k must be at least 1, got -1"),
        (lambda: filled.search(luts, nan, 1), "bias must hold no NaN.*: queries, centroids and their products"),
        (
            lambda: filled.search(luts * np.nan, bias, 1),
            "tables must hold no NaN.*: queries, codebooks and their products",
        ),
        (lambda: filled.search(luts, bias, 1, probes=np.array([[1]], np.int32)), "probes must lie in"),
        (lambda: filled.search(luts, bias, 1, probes=np.array([[0, 0]], np.int32)), "must differ"),
        (lambda: filled.search(luts, bias, 1, probes=np.array([[0]], np.int32), order=np.array([1])), "order must be"),
        (lambda: filled.search(luts, bias, 1, order=np.array([0])), "order must be"),
        (lambda: filled.search(luts, bias, 1, norm_levels=bias), "norm_levels"),
        (lambda: CodeStore(2, [16, 300]), "sizes must fit"),
        (lambda: CodeStore(1, [16], relabel=np.zeros((1, 256), np.uint8)), "permutations"),
    ]
    before = filled.export()
    for use, message in cases:
        with pytest.raises(ValueError, match=message):
            use()
    for tables in (luts[0], luts.tolist()):
        with pytest.raises(TypeError, match=r"luts must be float32 of shape \(nq, M, K\)"):
            filled.search(tables, bias, 1)
    for a, b in zip(before, filled.export(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_memory_follows_the_rows():
    store = CodeStore(4, [256] * 4, norm="uint8")
    codes, norms = np.zeros((300_000, 4), np.uint8), np.zeros(300_000, np.uint8)
    for i in range(0, 300_000, 10_000):
        store.append(codes[:10_000], norms[:10_000], np.arange(i, i + 10_000))
    assert 1_500_000 <= store.nbytes <= 1.2 * 1_500_000
    store.remove(np.arange(0, 300_000, 2))
    assert store.nbytes <= 1.4 * 750_000
    store.remove(np.arange(1, 300_000, 2))
    assert len(store) == store.nbytes == 0


def in_batches(n):
    return [np.arange(a, min(n, a + n // 10)) for a in range(0, n, n // 10)]


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("way", ["at once", "in batches", "checked", "one by one", "reloaded", "replaced", "moved"])
def test_short_lists_take_what_they_hold(way, wide):
    n, lists, M = 20_000, 250, 12
    rng = np.random.default_rng(0)
    codes, norms = rng.integers(0, 256, (n, M), dtype=np.uint8), rng.integers(0, 256, n, dtype=np.uint8)
    ids, of = rng.permutation(n) + (2**33 if wide else 0), rng.integers(0, lists, n).astype(np.int32)
    store = CodeStore(M, [256] * M, norm="uint8", lists=lists)
    if way in ("at once", "reloaded"):
        store.append(codes, norms, ids, of, known_new=True)
    elif way == "one by one":
        store.append(codes[:-3000], norms[:-3000], ids[:-3000], of[:-3000], known_new=True)
        for i in range(n - 3000, n):
            store.append(codes[i : i + 1], norms[i : i + 1], ids[i : i + 1], of[i : i + 1], known_new=True)
    else:
        for rows in in_batches(n):
            store.append(codes[rows], norms[rows], ids[rows], of[rows], known_new=way == "in batches")
    if way == "reloaded":
        blocks, kept, counts = store.export_blocks()
        store = CodeStore(M, [256] * M, norm="uint8", lists=lists).filled_from_blocks(
            blocks, kept, counts, mapped=False
        )
    for rows in rng.permutation(n).reshape(-1, 500) if way == "replaced" else []:
        store.remove(ids[rows])
        store.append(codes[rows], norms[rows], ids[rows], of[rows])
    for rows in rng.permutation(n).reshape(-1, 500) if way == "moved" else []:
        of[rows] = rng.permutation(of[rows])
        store.replace(codes[rows], norms[rows], ids[rows], of[rows])
    assert store.nbytes + store.id_nbytes <= (1.45 if wide else 1.15) * n * (M + 1 + 8)
    rows = store.rows(ids)
    np.testing.assert_array_equal(rows.codes, codes)
    np.testing.assert_array_equal(rows.norms, norms)
    np.testing.assert_array_equal(rows.lists, of)


def test_gaps_that_lists_leave_are_closed_while_others_read():
    """Rows move when lists grow; who searches meanwhile sees them all."""
    rng = np.random.default_rng(0)
    codes, of = rng.integers(0, 16, (9000, 4), dtype=np.uint8), rng.integers(0, 300, 9000).astype(np.int32)
    luts, bias = rng.random((1, 4, 256), np.float32), np.zeros(1, np.float32)
    store = CodeStore(4, [256] * 4, lists=300)
    store.append(codes[:3000], None, np.arange(3000), of[:3000])
    expected = reference.scan(codes[:3000], luts, bias, 3000, ids=np.arange(3000))[1]
    done, wrong = threading.Event(), []

    def read():
        while not done.is_set():
            found = store.search(luts, bias, 9000)[1][0]
            wrong.extend([] if np.isin(expected[0], found).all() else [found])

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for i in range(3000, 9000, 20):
        store.append(codes[i : i + 20], None, np.arange(i, i + 20), of[i : i + 20])
    for number in range(3000, 9000, 50):
        store.remove(np.arange(number, number + 50))
    done.set()
    for reader in readers:
        reader.join()
    assert not wrong
    same(store.search(luts, bias, 3000), reference.scan(codes[:3000], luts, bias, 3000, ids=np.arange(3000)))


@pytest.mark.parametrize("lists", [2, 100])
def test_memory_does_not_grow_with_replacements(lists):
    store, rng = CodeStore(4, [256] * 4, lists=lists), np.random.default_rng(0)
    for _ in range(100):
        ids = rng.permutation(6000)[:4000]
        store.replace(np.zeros((4000, 4), np.uint8), None, ids, (ids % lists).astype(np.int32))
    assert len(store) == 6000
    assert store.nbytes < 3 * 24_000
    assert store.id_nbytes < 2 * 24_000


@pytest.mark.parametrize("few", [False, True])
def test_ids_are_found_by_a_map_or_by_reading_all(few):
    """Few ids at a time of a thousand times as many are looked up in a map of all, which stays; more are read for."""
    rng, n = np.random.default_rng(0), 4000
    model, store = Model(3, [256] * 3, np.uint8, "uint8", 6), CodeStore(3, [256] * 3, norm="uint8", lists=6)
    names = rng.permutation(10 * n)[:n]
    rows = model.random_rows(rng, names)
    store.append(*rows)
    model.put(*rows)
    held = store.id_nbytes
    for _ in range(150):
        count = int(rng.integers(1, 4)) if few else int(rng.integers(5, 100))
        gone = rng.choice(sorted(model.rows), count, replace=False)
        with pytest.raises(ValueError, match=r"not there: \[-1, 40001\]"):
            store.remove(np.append(gone, [-1, 40001]))
        store.remove(gone)
        for number in gone:
            del model.rows[int(number)]
        with pytest.raises(ValueError, match="not there"):
            store.remove(gone)
        put = np.unique(np.append(gone[: count // 2], rng.choice(sorted(model.rows), count)))  # some new, some not
        rows = model.random_rows(rng, put)
        with pytest.raises(ValueError, match="repeated"):
            store.append(*rows)
        assert store.replace(*rows) == sum(int(number) in model.rows for number in put)
        model.put(*rows)
        asked = np.append(put, [-1, 10 * n])
        np.testing.assert_array_equal(store.contains(asked), [int(number) in model.rows for number in asked])
    assert (store.id_nbytes > 20 * n) == few
    assert few or store.id_nbytes < 2 * held
    codes, norms, ids, lists = model.arrays()
    found = store.rows(ids)
    np.testing.assert_array_equal(found.codes, codes)
    np.testing.assert_array_equal(found.norms, norms)
    np.testing.assert_array_equal(found.lists, lists)


@pytest.mark.parametrize("high", [100, 9000, 2**62])
def test_listed_ids_come_in_any_order(high):
    """Ids that lie close together are sorted otherwise than ids that do not."""
    rng, n = np.random.default_rng(0), 3000
    store, codes = CodeStore(3, [256] * 3), rng.integers(0, 256, (n, 3)).astype(np.uint8)
    store.append(codes, None, np.arange(n))
    luts, bias = rng.random((3, 3, 256), np.float32), np.zeros(3, np.float32)
    allowed = np.append(rng.integers(0, min(high, n), 400), [high, n - 1, 0, 0])  # some of them twice
    rng.shuffle(allowed)
    kept = np.unique(allowed[allowed < n])
    expected = reference.scan(codes[kept], luts, bias, 50, ids=kept)
    for listed in (allowed, PreparedAllowed(allowed), np.append(allowed, -5)):
        same(store.search(luts, bias, 50, allowed=listed), expected)


def test_a_prepared_filter_follows_the_store():
    rng = np.random.default_rng(0)
    store, other = CodeStore(2, [256, 256]), CodeStore(2, [256, 256])
    codes = rng.integers(0, 256, (3000, 2)).astype(np.uint8)
    luts, bias = rng.random((1, 2, 256), np.float32), np.zeros(1, np.float32)
    allowed = PreparedAllowed(np.arange(0, 3000, 30))
    assert (store.search(luts, bias, 5, allowed=allowed)[1] == -1).all()
    store.append(codes[:2000], None, np.arange(2000))
    every = np.arange(0, 3000, 30)
    for step in range(4):
        same(
            store.search(luts, bias, 99, allowed=allowed), store.search(luts, bias, 99, allowed=np.arange(0, 3000, 30))
        )
        if step == 0:
            store.append(codes[2000:], None, np.arange(2000, 3000))
        elif step == 1:
            store.remove(store.search(luts, bias, 3, allowed=allowed)[1][0])
        elif step == 2:
            other.append(codes[::-1].copy(), None, np.arange(3000))
            same(other.search(luts, bias, 99, allowed=allowed), other.search(luts, bias, 99, allowed=every))


@pytest.mark.parametrize("norm", [None, "uint8", "float32"])
@pytest.mark.parametrize("sizes", [[256] * 4, [256, 16, 256]])
def test_tables_built_in_the_order_of_labels(level, sizes, norm):
    rng = np.random.default_rng(len(sizes))
    M = len(sizes)
    model = Model(M, sizes, np.uint8, norm, 2)
    rows = model.random_rows(rng, rng.permutation(9000)[:4000])
    model.put(*rows)
    levels = np.sort(rng.normal(size=256)).astype(np.float32)
    queries, bias = rng.normal(size=(20, 8)).astype(np.float32), rng.normal(size=20).astype(np.float32)
    for _ in range(2):  # codebooks that change, stores with labels of their own
        books = rng.normal(size=(sum(sizes), 5)).astype(np.float32)
        relabel = np.stack([rng.permutation(256) for _ in sizes]).astype(np.uint8)
        store = CodeStore(M, sizes, norm=norm, lists=2, relabel=relabel)
        store.append(*rows)
        for offsets in (None, rng.normal(size=(M, 256)).astype(np.float32)):
            lazy = Codebooks(books, tuple(sizes), tuple(range(M)), 8).tables(queries, squared=True)
            lazy = lazy if offsets is None else lazy.plus(offsets)
            for k in (1, 10, 100, 5000):
                stored = levels if norm == "uint8" else None
                expected = model.search(lazy.build(), bias, k, levels)
                same(store.search(lazy, bias, k, norm_levels=stored), expected)
                both, order = np.tile(np.array([0, 1], np.int32), (20, 1)), rng.permutation(20)
                same(store.search(lazy, bias, k, norm_levels=stored, probes=both, order=order), expected)


@pytest.mark.parametrize("sizes", [[256] * 8, [16] * 8])
def test_rows_narrowed_by_sums_keep_every_tie(level, sizes):
    """Many rows within a byte of the k-th best, most of them equal to it, behind rows that are far away."""
    rng = np.random.default_rng(1)
    M = len(sizes)
    luts = np.stack([np.linspace(0, 1, sizes[0], dtype=np.float32)] * M)[None]
    bias = np.zeros(1, np.float32)
    for low in (0, sizes[0] // 2):
        codes = rng.integers(low, min(low + 3, sizes[0]), (6000, M)).astype(np.uint8)
        codes[:100] = sizes[0] - 1
        ids = rng.permutation(6000)
        store = CodeStore(M, sizes)
        store.append(codes, None, ids)
        gone = ids[rng.random(6000) < 0.2]
        kept = ~np.isin(ids, gone)
        for k in (1, 10, 300):
            same(store.search(luts, bias, k), reference.scan(codes, luts, bias, k, ids=ids))
            allowed = np.zeros(6000, bool)
            allowed[ids[kept]] = True
            expected = reference.scan(codes[kept], luts, bias, k, ids=ids[kept])
            same(store.search(luts, bias, k, allowed=allowed), expected)


def test_the_lists_of_ids(monkeypatch):
    monkeypatch.setattr("annvq.kernels.store._READ", 100)
    rng = np.random.default_rng(3)
    ids, lists = rng.permutation(900), rng.integers(0, 5, 900).astype(np.int32)
    store = CodeStore(4, [256] * 4, lists=5)
    store.append(rng.integers(0, 256, (900, 4)).astype(np.uint8), None, ids, lists)
    store.remove(ids[::7])
    asked = rng.integers(-1, 950, (40, 10))
    kept = {int(i): int(own) for k, (i, own) in enumerate(zip(ids, lists, strict=True)) if k % 7}
    np.testing.assert_array_equal(store.lists_of(asked), [[kept.get(int(i), -1) for i in row] for row in asked])
    assert store.lists_of(np.empty((3, 0), np.int64)).shape == (3, 0)
    np.testing.assert_array_equal(CodeStore(4, [256] * 4).lists_of(np.array([[3, -1]])), [[-1, -1]])
