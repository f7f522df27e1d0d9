"""Operation counts against the published figures and against a counter that walks an encoder's loops."""

from math import comb, log10

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annvq import complexity
from annvq.complexity import OperationCounts

# log10 WMOPS of Vali and Bäckström (ICASSP 2023), at 3..10 bits per codebook, M = 4.
FIGURE_4 = {  # d = 64, beam 16
    "additive": [
        -0.31026327412521015, -0.17530026099104476, 0.010589107271876189, 0.24012023305003158,
        0.5004398483193758, 0.779587978425412, 1.0692492114090146, 1.364481239994905,
    ],
    "residual": [
        -2.2892059000696725, -2.010105436281227, -1.7204699350245596, -1.425251291649823,
        -1.127156395614195, -0.8276014220606953, -0.5273108203575688, -0.22665099427212598,
    ],
    "product": [
        -2.8709549401120418, -2.598254917762937, -2.3121144751512945, -2.018725167293411,
        -1.721566523462584, -1.422485222226635, -1.1224328625628763, -0.8218925114194595,
    ],
}  # fmt: skip
FIGURE_6 = {  # d = 128, beam min(K, 64)
    "additive": [
        -0.4864920792092946, 0.10798354591288245, 0.7196476099884205, 1.3518490449730725,
        1.5461956074510657, 1.7821154815608145, 2.046521673828493, 2.328012459262243,
    ],
    "residual": [
        -1.9889373052702652, -1.7100099339456807, -1.4204679098421358, -1.1252979018554377,
        -0.8272278203219707, -0.5276853811920604, -0.22740107887469635, 0.07325558942615694,
    ],
    "product": [
        -2.5728385970740346, -2.300856312605516, -2.0151127989356725, -1.7219326691113375,
        -1.4248814629133089, -1.1258546153815672, -0.8258296692310124, -0.5253030718831712,
    ],
}  # fmt: skip
BITS = range(3, 11)
PUBLISHED = [(64, kind, nbits, values[nbits - 3]) for kind, values in FIGURE_4.items() for nbits in BITS]
PUBLISHED += [(128, kind, nbits, values[nbits - 3]) for kind, values in FIGURE_6.items() for nbits in BITS]


def test_there_are_48_published_values():
    assert len(PUBLISHED) == 48


@pytest.mark.parametrize(("dim", "kind", "nbits", "value"), PUBLISHED)
def test_published_convention_gives_the_published_value(dim, kind, nbits, value):
    beam = None
    if kind == "additive":
        beam = 16 if dim == 64 else min(2**nbits, 64)
    got = complexity.wmops(kind, dim=dim, M=4, nbits=nbits, beam=beam, convention="published")
    assert abs(log10(got) - value) < 1e-9


class Counter:
    """Walks the loops of an encoder and counts one by one what the closed forms sum up."""

    def __init__(self):
        self.additions = self.multiplications = self.moves = self.branches = 0

    def distances(self, entries, dim):
        for _ in range(entries):
            self.additions += dim + (dim - 1)  # differences, then their sum
            self.multiplications += dim

    def least(self, values, keep):
        """Take the least value out ``keep`` times."""
        for _ in range(keep):
            values -= 1
            self.additions += values
            self.moves += values

    def counts(self):
        return OperationCounts(self.additions, self.multiplications, self.moves, self.branches)


def walk_product(dim, sizes):
    c = Counter()
    c.moves += dim
    for K in sizes:
        c.distances(K, dim // len(sizes))
        c.least(K, 1)
        c.moves += dim // len(sizes)
    c.moves += dim
    return c.counts()


def walk_residual(dim, sizes, beam):
    c = Counter()
    paths = 1
    for m, K in enumerate(sizes):
        for _ in range(paths):
            c.distances(K, dim)
        keep = min(beam, paths * K) if m + 1 < len(sizes) else 1
        c.least(paths * K, keep)
        paths = keep
        c.moves += paths * dim
        if m + 1 < len(sizes):
            c.additions += paths * dim
    c.additions += (len(sizes) - 1) * dim
    return c.counts()


def walk_additive(dim, sizes, beam):
    c = Counter()
    M, sizes = len(sizes), sorted(sizes)
    c.distances(sum(sizes), dim)
    paths = min(beam, sum(sizes)) if M > 1 else 1
    c.least(sum(sizes), paths)
    c.moves += paths
    for i in range(1, M):
        entries = sum(sizes[i:])
        each = min(beam, entries)
        c.branches += comb(M, i) - 1
        for _ in range(paths):
            c.moves += i * dim
            c.additions += i * dim
            c.distances(entries, dim)
            c.least(entries, each)
            for _ in range(each):
                c.moves += 1 + dim
                c.additions += i * dim
                c.additions += 2 * dim - 1
                c.multiplications += dim + 1
        pairs = paths * each
        paths = min(beam, pairs) if i + 1 < M else 1
        c.least(pairs, paths)
        if i + 1 < M:
            c.moves += paths
    return c.counts()


SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=4)


@given(bits=SIZES, part=st.integers(1, 5), beam=st.integers(1, 40))
def test_full_convention_counts_what_the_loops_do(bits, part, beam):
    M, dim, sizes = len(bits), part * len(bits), [2**b for b in bits]
    shape = {"dim": dim, "M": M, "nbits": tuple(bits)}
    assert complexity.encode_counts("product", **shape) == walk_product(dim, sizes)
    assert complexity.encode_counts("residual", beam=beam, **shape) == walk_residual(dim, sizes, beam)
    assert complexity.encode_counts("additive", beam=beam, **shape) == walk_additive(dim, sizes, beam)


@pytest.mark.parametrize("kind", complexity.KINDS)
def test_one_number_means_the_same_for_every_codebook(kind):
    one = complexity.wmops(kind, dim=32, M=4, nbits=6)
    assert one == complexity.wmops(kind, dim=32, M=4, nbits=(6, 6, 6, 6))


@pytest.mark.parametrize("kind", ["product", "residual"])
def test_published_count_is_one_stage_short(kind):
    published = complexity.wmops(kind, dim=64, M=4, convention="published")
    assert 1.3 < complexity.wmops(kind, dim=64, M=4) / published < 1.34


def test_additive_full_and_published_agree_where_the_beam_never_exceeds_the_candidates():
    full = complexity.encode_counts("additive", dim=64, M=4, nbits=8, beam=16)
    assert full == complexity.encode_counts("additive", dim=64, M=4, nbits=8, beam=16, convention="published")
    assert full.branches == comb(4, 1) + comb(4, 2) + comb(4, 3) - 3


def test_weights_of_double_precision():
    counts = OperationCounts(additions=10, multiplications=20, moves=30, branches=1)
    assert counts.wmops() == 64 / 1e6
    assert counts.wmops("double") == 124 / 1e6


@pytest.mark.parametrize("metric", complexity.METRICS)
@pytest.mark.parametrize("kind", complexity.KINDS)
def test_search_costs(kind, metric):
    costs = complexity.search(kind, dim=128, M=8, metric=metric)
    charged = kind != "product" and metric == "l2"
    assert costs.bits == 64 + 8 * charged
    assert costs.bytes_read == 8 + charged
    assert costs.lookups == 8 + charged
    assert costs.additions == 8 + charged
    assert costs.table_bytes == 8 * 256 * 4
    work = 256 * 128 * (1 if kind == "product" else 8)
    assert 0 <= costs.tables.multiplications - work <= 256


def test_norm_is_charged_as_asked():
    shape = {"dim": 128, "M": 7}
    assert complexity.search("additive", norm="float32", **shape).bits == 88
    assert complexity.search("additive", norm=None, **shape).bits == 56
    assert complexity.search("product", dim=128, M=8, norm="uint8").bits == 72
    with pytest.raises(ValueError, match="norm must be 'auto'"):
        complexity.search("additive", norm="float64", **shape)


def test_memory():
    got = complexity.memory("residual", dim=128, M=7, n=1000, ids=True)
    assert (got.codes, got.norms, got.codebooks, got.ids) == (7000, 1000, 7 * 256 * 128 * 4 + 1024, 8000)
    assert got.total == 7000 + 1000 + 7 * 256 * 128 * 4 + 1024 + 8000
    assert complexity.memory("product", dim=128, M=3 - 1, nbits=(6, 5), n=3).codes == 5
    assert complexity.memory("product", dim=128, M=8, n=0).codes == 0


def test_rerank_training_and_transform():
    raw = complexity.rerank(dim=4, shortlist=3, k=2)
    assert raw == OperationCounts(additions=3 * 7 + 2 + 1, multiplications=12, moves=3)
    decoded = complexity.rerank(dim=4, shortlist=3, k=2, M=2)
    assert decoded == raw + OperationCounts(additions=12, moves=12)
    once = complexity.training("product", dim=64, M=4, n=1, passes=1)
    assert complexity.training("product", dim=64, M=4, n=10, passes=5) == 50 * once
    assert complexity.linear_map(3, 2) == OperationCounts(additions=4, multiplications=6)


def test_local_search_lies_between_residual_and_additive_beam_search():
    shape = {"dim": 128, "M": 8}
    low, high = (complexity.wmops(kind, **shape) for kind in ("residual", "additive"))
    assert low < complexity.local_search(**shape).wmops() < high


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"kind": "pq"}, ValueError, "kind must be one of 'product', 'residual', 'additive', got 'pq'"),
        ({"dim": 0}, ValueError, "dim must be at least 1"),
        ({"dim": 64.0}, TypeError, "dim must be an integer"),
        ({"dim": 3}, ValueError, "M must be at most dim=3"),
        ({"M": 0}, ValueError, "M must be at least 1"),
        ({"nbits": 17}, ValueError, "nbits must be between 1 and 16"),
        ({"nbits": 0}, ValueError, "nbits must be at least 1"),
        ({"nbits": 8.0}, TypeError, "nbits must be an integer"),
        ({"nbits": (8, 8)}, ValueError, "nbits must be one number or one per codebook"),
        ({"beam": 4}, ValueError, "beam must be None for kind='product'"),
        ({"kind": "residual", "beam": 0}, ValueError, "beam must be at least 1"),
        ({"kind": "residual", "beam": True}, TypeError, "beam must be an integer"),
        ({"kind": "residual", "beam": 2, "convention": "published"}, ValueError, "beam must be 1"),
        ({"nbits": (8, 8, 8, 7), "convention": "published"}, ValueError, "nbits must be equal"),
        ({"convention": "paper"}, ValueError, "convention must be one of 'full', 'published'"),
        ({"precision": "half"}, ValueError, "precision must be one of 'single', 'double'"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(changes, error, message):
    arguments = {"kind": "product", "dim": 64, "M": 4, **changes}
    with pytest.raises(error, match=message):
        complexity.wmops(arguments.pop("kind"), **arguments)


def test_bad_arguments_of_the_other_counts_are_named():
    with pytest.raises(ValueError, match="metric must be one of"):
        complexity.tables("product", dim=8, M=2, metric="hamming")
    with pytest.raises(ValueError, match="k must not exceed shortlist=3"):
        complexity.rerank(dim=4, shortlist=3, k=4)
    with pytest.raises(ValueError, match="M must be a non-negative integer"):
        complexity.rerank(dim=4, shortlist=3, k=1, M=-1)
    with pytest.raises(ValueError, match="n must be a non-negative integer"):
        complexity.memory("product", dim=8, M=2, n=-1)
    with pytest.raises(ValueError, match="rounds must be at least 1"):
        complexity.local_search(dim=8, M=2, rounds=0)
    with pytest.raises(ValueError, match="passes must be at least 1"):
        complexity.training("product", dim=8, M=2, n=5, passes=0)


def test_norm_search_by_hand():
    # 3 codebooks of 4 entries, d = 5: products 12 x 5; a pair adds 1 x 4 twice, then 4 x 4 candidates
    # of three additions, after taking the 4 best of 4 (3 + 2 + 1 + 0 comparisons and moves).
    counts = complexity.norm_search(dim=5, M=3, nbits=2, rounds=6)
    assert counts.multiplications == 60
    assert counts.additions == 60 + 6 * (8 + 48 + 6)
    assert counts.moves == 6 * 6
    assert complexity.norm_search(dim=5, M=1, nbits=2, rounds=1) == complexity.OperationCounts()
    with pytest.raises(ValueError, match="rounds"):
        complexity.norm_search(dim=5, M=3, rounds=0)
