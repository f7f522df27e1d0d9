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
RNG = np.random.default_rng(0)
LEARN, BASE, QUERIES = (RNG.standard_normal((n, 16)).astype(np.float32) for n in (400, 300, 20))


@pytest.mark.parametrize("use", FAISS)
@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_results_are_nearest_by_decoded_vectors(use, metric):
    method = make_code(use, Budget(16, 32, metric), {"nbits": 4}, 0)
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
    # A norm of one byte moves scores, so the found are near the best rather than the best.
    found = np.take_along_axis(scores, ids, axis=1).mean()
    best = np.sort(scores, axis=1)[:, :10].mean()
    assert found - best < (0.1 if metric == "l2" else 1e-4) * scores.std()


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
        ("annvq.product", Budget(3, 32), {}, "dim must be"),
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
@pytest.mark.parametrize("kind", ["product", "residual", "additive", "rotated-product"])
def test_effort_reaches_every_part_of_a_recipe(kind, options):
    """Also those within parts that choose among others, which additive and residual codes are learned by."""
    if options and kind not in ("residual", "additive"):
        return
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
        if callable(getattr(part, "finish", None)):
            walk(part.finish)

    for part in bounded(annvq.make(kind, dim=8, M=2, nbits=8, **options), effort=1e-6).parts:
        walk(part)
    assert seen
    assert set(seen) == {1}


@pytest.mark.parametrize("name", ["hnswlib", "usearch", "scann"])
def test_other_libraries_find_near_vectors(tmp_path, name):
    if not rivals.rival(name).installed():
        pytest.skip(f"{name} is not installed")
    x = np.random.default_rng(0).standard_normal((2000, 16)).astype(np.float32)
    system = rivals.rival(name).index()
    system.set_threads(1)  # first, as the worker does
    system.train(x, 16, {"leaves": 20} if name == "scann" else {}, 0)
    system.add(x)
    system.save(tmp_path / "saved")
    again = rivals.rival(name).index()
    again.set_threads(1)
    again.open(tmp_path / "saved", 16)
    settings = {"hnswlib": {"ef": 200}, "usearch": {"expansion": 200}, "scann": {"leaves": 20, "reorder": 200}}
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
