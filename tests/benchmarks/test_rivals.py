"""Methods: the bits they take, and that what they search is what they decode."""

import subprocess
import sys

import numpy as np
import pytest

import annvq
from annvq.benchmarks import rivals
from annvq.benchmarks.rivals import make_code
from annvq.benchmarks.rivals.annvq import bounded
from annvq.benchmarks.roles import Budget
from annvq.training.maps import LearnRotation
from annvq.training.parts import Alternate, KMeans, SubspaceKMeans
from annvq.training.trainer import TrainerPart

FAISS = [name for name in rivals.codes() if name.startswith("faiss.")]
# Codes of whole bits a dimension, by estimates of their own: bits a dimension, options.
EACH_DIMENSION = [
    ("faiss.rabitq", 1, {"qb": 8}),
    ("faiss.rabitq", 4, {"qb": 8}),
    ("faiss.rabitq", 2, {"fast_scan": True}),
    ("faiss.sq", 4, {}),
    ("faiss.sq", 8, {}),
    ("rabitqlib.rabitq", 1, {}),
    ("rabitqlib.rabitq", 4, {}),
    ("turbovec.turboquant", 2, {}),
    ("turbovec.turboquant", 4, {"calibrate": False}),
]
RNG = np.random.default_rng(0)
LEARN, BASE, QUERIES = (RNG.standard_normal((n, 16)).astype(np.float32) for n in (400, 300, 20))


@pytest.mark.parametrize("use", [name for name in FAISS if name not in ("faiss.rabitq", "faiss.sq")])
@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_results_are_nearest_by_decoded_vectors(use, metric):
    method = make_code(use, Budget(16, 32, metric), {} if "fastscan" in use else {"nbits": 4}, 0)
    method.fit(LEARN)
    method.add(BASE[:100])
    method.add(BASE[100:])
    assert method.bits_per_vector() == 32
    assert method.wmops() > 0
    decoded = method.decode(0, len(BASE)).astype(np.float64)
    assert decoded.shape == BASE.shape
    assert ((decoded - BASE) ** 2).sum() < 0.8 * (BASE**2).sum()
    scores = ((QUERIES[:, None] - decoded) ** 2).sum(-1) if metric == "l2" else -QUERIES @ decoded.T
    ids = method.search(QUERIES, 10)
    # A norm of one byte moves scores, as tables of bytes do, so the found are near the best rather than the best.
    found = np.take_along_axis(scores, ids, axis=1).mean()
    best = np.sort(scores, axis=1)[:, :10].mean()
    assert found - best < (0.1 if metric == "l2" or "fastscan" in use else 1e-4) * scores.std()


@pytest.mark.parametrize("use", ["faiss.rq", "faiss.prq", "faiss.lsq"])
def test_decoding_takes_no_norm(use):
    method = make_code(use, Budget(16, 32), {"nbits": 4, "decode": True}, 0)
    method.fit(LEARN)
    method.add(BASE)
    assert method.bits_per_vector() == 32
    assert method.config["norm"] is None
    scores = ((QUERIES[:, None] - method.decode(0, len(BASE)).astype(np.float64)) ** 2).sum(-1)
    found = np.take_along_axis(scores, method.search(QUERIES, 10), axis=1)
    np.testing.assert_allclose(found, np.sort(scores, axis=1)[:, :10], rtol=1e-4)


@pytest.mark.parametrize("use", ["faiss.pq", "faiss.rq", "faiss.sq"])
def test_l2_on_vectors_of_length_one_in_place_of_cosine(use):
    learn, base, queries = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (LEARN, BASE, QUERIES))
    method = make_code(use, Budget(16, 64, "cosine"), {"score": "l2"}, 0)
    method.fit(learn)
    method.add(base)
    assert method.bits_per_vector() == 64
    assert method.config["score"] == "l2"
    scores = ((queries[:, None] - method.decode(0, len(base)).astype(np.float64)) ** 2).sum(-1)
    found = np.take_along_axis(scores, method.search(queries, 10), axis=1).mean()
    assert found - np.sort(scores, axis=1)[:, :10].mean() < 0.02 * scores.std()


@pytest.mark.parametrize(("use", "each", "options"), EACH_DIMENSION)
def test_codes_of_whole_bits_a_dimension_charge_their_factors(use, each, options):
    if not rivals.rival(use.partition(".")[0]).installed():
        pytest.skip("not installed")
    rng = np.random.default_rng(1)
    basis = rng.standard_normal((16, 128))
    learn, base, queries = (rng.standard_normal((n, 16)) @ basis for n in (1200, 500, 20))
    learn, base, queries = (
        (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for x in (learn, base, queries)
    )
    method = make_code(use, Budget(128, 128 * each, "cosine"), options, 0)
    method.fit(learn)
    method.add(base[:300])
    method.add(base[300:])
    factors = {"faiss.rabitq": 64 if each == 1 else 160, "faiss.sq": 0, "turbovec.turboquant": 32}
    factors["rabitqlib.rabitq"] = 96 if each == 1 else 160
    assert method.bits_per_vector() == 128 * each + factors[use]
    nearest = np.argmax(queries @ base.T, axis=1)
    ids = method.search(queries, 10)
    assert ids.shape == (20, 10)
    assert (ids == nearest[:, None]).any(axis=1).mean() >= 0.9


def test_what_rabitqlib_charges_is_what_its_files_grow_by(tmp_path):
    library = rivals.rival("rabitqlib")
    if not library.installed():
        pytest.skip("not installed")
    rng = np.random.default_rng(2)
    for dim, nbits in ((128, 1), (100, 4), (64, 32)):
        sizes = []
        for n in (1024, 2048):  # whole blocks
            index = library.index()
            index.set_threads(1)
            x = rng.standard_normal((n, dim)).astype(np.float32)
            index.train(x, dim, {"nbits": nbits}, 0)
            index.add(x)
            index.save(tmp_path / "saved")
            sizes.append((tmp_path / "saved").stat().st_size)
        assert 8 * ((sizes[1] - sizes[0]) / 1024 - 4) == index.bits_per_vector()  # an id has 4 bytes


@pytest.mark.parametrize("use", ["faiss.pq", "faiss.opq"])
@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_dimensions_that_sub_spaces_do_not_share_evenly_are_filled_up(use, metric):
    method = make_code(use, Budget(14, 32, metric), {}, 0)  # four sub-spaces of four dimensions
    learn, base, queries = (np.ascontiguousarray(x[:, :14]) for x in (LEARN, BASE, QUERIES))
    method.fit(learn)
    method.add(base)
    assert method.bits_per_vector() == 32
    decoded = method.decode(0, len(base)).astype(np.float64)
    assert decoded.shape == base.shape
    assert ((decoded - base) ** 2).sum() < 0.5 * (base**2).sum()
    scores = ((queries[:, None] - decoded) ** 2).sum(-1) if metric == "l2" else -queries @ decoded.T
    found = np.take_along_axis(scores, method.search(queries, 10), axis=1)
    # Behind a rotation codes have a little length in the dimensions that were filled up, which decoding drops.
    assert found.mean() - np.sort(scores, axis=1)[:, :10].mean() < (0.01 if use == "faiss.opq" else 1e-6) * scores.std()


def test_defaults_are_said_to_be_defaults():
    assert make_code("faiss.rq", Budget(16, 32), {}, 0).config["settings"] == "defaults"
    assert make_code("faiss.rq", Budget(16, 32), {"beam": 30}, 0).config["settings"] == "options"
    assert make_code("faiss.rq", Budget(16, 32), {}, 0).config["beam"] == 5
    assert make_code("faiss.lsq", Budget(16, 32), {}, 0).config["M"] == 3


@pytest.mark.parametrize(("bits", "M", "nbits"), [(64, 8, 7), (128, 20, 6), (40, 4, 8)])
def test_residual_codes_in_sub_spaces_take_the_budget(bits, M, nbits):
    method = make_code("faiss.prq", Budget(16, bits), {"beam": 7}, 0)
    assert (method.config["M"], method.config["nbits"], method.config["beam"]) == (M, nbits, 7)
    assert M * nbits + 8 == bits == method.bits_per_vector()


@pytest.mark.parametrize(
    ("use", "budget", "options", "message"),
    [
        ("faiss.pq", Budget(16, 60), {}, "cannot spend 60 bits"),
        ("faiss.rq", Budget(16, 8), {}, "cannot spend 8 bits, 8 of them on the norm"),
        ("faiss.prq", Budget(16, 64), {"nsplits": 3}, "do not share out"),
        ("faiss.pq", Budget(16, 32), {"beam": 2}, "unknown option 'beam'"),
        ("faiss.hnsw", Budget(16, 32), {}, "unknown method 'faiss.hnsw'"),
        ("faiss.rabitq", Budget(16, 40), {}, "bits: faiss.rabitq takes 1, 2"),
        ("faiss.sq", Budget(16, 80), {}, "bits: faiss.sq takes 4, 6, 8, 16 bits a dimension"),
        ("faiss.pq", Budget(16, 32), {"score": "ip"}, "score: faiss.pq ranks by l2"),
        ("turbovec.turboquant", Budget(16, 16), {}, "takes 2 or 4 bits"),
        ("rabitqlib.rabitq", Budget(16, 8), {}, "takes 1 to 9 bits"),
        ("annvq.product", Budget(3, 32), {}, "M must be at most dim=3"),
        ("annvq.residual", Budget(16, 8), {}, "nothing is left for the code"),
        ("annvq.residual", Budget(16, 32), {"bean": 1}, "unknown option 'bean'"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(use, budget, options, message):
    with pytest.raises(ValueError, match=message):
        make_code(use, budget, options, 0)


@pytest.mark.parametrize("bits", [48, 72, 100])
@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("product", {}),
        ("rotated-product", {}),
        ("principal-product", {"emphasis": 0.25}),
        ("principal-additive", {"groups": 1}),
        *((name, own) for name in ("residual", "additive") for own in ({}, {"norm_free": True})),
    ],
)
def test_budgets_that_bytes_do_not_fill(name, own, bits):
    options = {"nbits": 6, "effort": 0.1, "steps": 2, **own}
    method = make_code(f"annvq.{name}", Budget(16, bits // 2), options, 0)
    method.fit(LEARN)
    method.add(BASE)
    assert method.bits_per_vector() == bits // 2
    assert (method.search(BASE[:20], 10)[:, :10] == np.arange(20)[:, None]).any(1).mean() > 0.8


@pytest.mark.parametrize("kind", ["product", "residual", "additive"])
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_annvq_codes_take_the_budget(kind, metric):
    assert make_code(f"annvq.{kind}", Budget(16, 64, metric), {}, 0).bits_per_vector() == 64


@pytest.mark.parametrize("options", [{}, {"norm_free": True}])
@pytest.mark.parametrize(
    "kind", ["product", "residual", "additive", "rotated-product", "product-additive", "principal-additive"]
)
def test_effort_reaches_every_part_of_a_recipe(kind, options):
    """Also those within parts that choose among others, which additive and residual codes are learned by."""
    if options and kind not in ("residual", "additive", "product-additive"):
        return
    groups = {"groups": 2} if kind.endswith("-additive") else {}
    seen = []

    def walk(part):
        if isinstance(part, Alternate):
            seen.append(part.plan.iterations)
        elif isinstance(part, KMeans | SubspaceKMeans):
            seen.append(part.iterations)
        elif isinstance(part, TrainerPart):
            seen.append(part.trainer.steps)
        elif isinstance(part, LearnRotation):
            seen.append(part.steps)
        for name in ("starts", "flat", "graded", "parts"):
            within = getattr(part, name, ())
            for one in within if isinstance(within, tuple | list) else ():
                walk(one)
        for name in ("finish", "part"):
            if callable(getattr(part, name, None)):
                walk(getattr(part, name))

    for part in bounded(annvq.make(kind, dim=8, M=2, nbits=8, **options, **groups), effort=1e-6).parts:
        walk(part)
    assert seen
    assert set(seen) == {1}


@pytest.mark.parametrize(("effort", "kept"), [(0.2, 4), (0.5, None)])
def test_little_effort_keeps_few_codes_of_each_vector(effort, kept):
    """K-means on what they leave over would take as long otherwise."""
    start = bounded(annvq.make("residual", dim=8, M=2, nbits=8), effort=effort).parts[0]
    assert {part.kept for part in (*start.flat, *start.graded)} == {kept}
    starts = bounded(annvq.make("residual", dim=8, M=2, nbits=6), effort=effort).parts[0].starts
    assert {part.kept for part in (*starts[0].flat, *starts[0].graded)} == {None}  # of 64 entries one is kept anyway


@pytest.mark.parametrize("name", ["hnswlib", "usearch", "scann", "rabitqlib"])
def test_other_libraries_find_near_vectors(tmp_path, name):
    if not rivals.rival(name).installed():
        pytest.skip(f"{name} is not installed")
    dim = 64 if name == "rabitqlib" else 16  # the fewest that it takes
    x = np.random.default_rng(0).standard_normal((2000, dim)).astype(np.float32)
    system = rivals.rival(name).index()
    system.set_threads(1)  # first, as the worker does
    system.train(x, dim, {"scann": {"leaves": 20}, "rabitqlib": {"nlist": 20, "nbits": 8}}.get(name, {}), 0)
    system.add(x)
    system.save(tmp_path / "saved")
    again = rivals.rival(name).index()
    again.set_threads(1)
    again.open(tmp_path / "saved", dim)
    settings = {
        "hnswlib": {"ef": 200}, "usearch": {"expansion": 200}, "scann": {"leaves": 20, "reorder": 200},
        "rabitqlib": {"nprobe": 20},
    }  # fmt: skip
    for opened in (system, again):
        opened.configure(settings[name])
    found = system.search(x[:50], 10)
    np.testing.assert_array_equal(again.search(x[:50], 10), found)
    assert found.shape == (50, 10)
    assert found.dtype == np.int64
    assert (found[:, 0] == np.arange(50)).mean() > 0.95


@pytest.mark.parametrize("name", rivals.names())
def test_libraries_have_the_level_that_they_use(name):
    library = rivals.rival(name)
    level, available = library.levels()
    assert level in available
    assert bool(library.codes) == (library.make is not None)
    assert not library.best_of_levels or library.level_variables
    if library.scan is not None:
        assert set(library.scan.indexes) <= {"product", "residual"}


def test_annvq_is_timed_in_a_process_without_faiss():
    """Two OpenMP runtimes in one process would wait for one another."""
    code = (
        "import sys; from annvq.benchmarks import rivals, worker; rivals.rival('annvq'); print('faiss' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
