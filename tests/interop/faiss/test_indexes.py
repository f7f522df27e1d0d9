"""Indexes to FAISS and back: the same ids at the same distances on both sides."""

import os
import subprocess
import sys

import faiss
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import annvq
from annvq.training import KMeans, Recipe

AQ = faiss.AdditiveQuantizer
L2, IP = faiss.METRIC_L2, faiss.METRIC_INNER_PRODUCT
QUICK = Recipe((KMeans(3),))
D = 8


def vectors(n=700, d=D, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, d)) @ np.random.default_rng(9).normal(size=(d, d)) + 2).astype(np.float32)


def assert_same_search(theirs, ours, queries, **probes):
    """Every stored id at the same distance on both sides, and each side's result in its own order."""
    n = len(ours)
    assert theirs.ntotal == n
    their_d, their_i = theirs.search(queries, n)
    our_d, our_i = ours.search(queries, n, **probes)
    as_faiss = {"l2": our_d, "ip": -our_d, "cosine": 1 - our_d}[ours.metric]
    for a, b in ((their_d, their_i), (as_faiss, our_i)):
        order = np.argsort(b, axis=1)
        b.sort(axis=1)
        a[:] = np.take_along_axis(a, order, 1)
    np.testing.assert_array_equal(their_i, our_i)
    their_d = np.maximum(their_d, 0) if ours.metric == "l2" else their_d  # ours are never negative
    np.testing.assert_allclose(their_d, as_faiss, rtol=1e-4, atol=2e-5 * max(1e-3, float(np.abs(as_faiss).max())))


def search_types():
    return [name for name in dir(AQ) if name.startswith("ST_") and name not in ("ST_count", "ST_norm_from_LUT")]


ADDITIVE = {
    "rq": lambda m, s: faiss.IndexResidualQuantizer(D, 3, 4, m, s),
    "lsq": lambda m, s: faiss.IndexLocalSearchQuantizer(D, 3, 4, m, s),
    "prq": lambda m, s: faiss.IndexProductResidualQuantizer(D, 2, 2, 4, m, s),
    "plsq": lambda m, s: faiss.IndexProductLocalSearchQuantizer(D, 2, 2, 4, m, s),
}


@pytest.mark.parametrize("kind", ADDITIVE)
@pytest.mark.parametrize("search_type", search_types())
def test_additive_from_faiss_and_back(kind, search_type):
    x = vectors()
    theirs = ADDITIVE[kind](L2, getattr(AQ, search_type))
    theirs.train(x)
    theirs.add(x[:400])
    if search_type == "ST_LUT_nonorm":
        with pytest.raises(ValueError, match="leaves ‖x̂‖² out"):
            annvq.from_faiss(theirs)
        return
    ours = annvq.from_faiss(theirs)
    assert_same_search(theirs, ours, x[400:407])
    again = annvq.to_faiss(ours)
    assert_same_search(again, ours, x[400:407])
    expected = {"ST_norm_qint4": 8 * theirs.code_size + 4, "ST_norm_cqint4": 8 * theirs.code_size + 4}
    if search_type not in expected and theirs.aq.norm_bits:
        assert again.code_size == theirs.code_size
    more = ours.add(x[400:], np.arange(1000, 1300))  # encodes with what it has
    assert len(more) == 700


def test_norms_that_faiss_adds_up_itself():
    x = vectors()
    theirs = faiss.IndexResidualQuantizer(D, 3, 4, L2, AQ.ST_norm_from_LUT)
    theirs.train(x)
    theirs.add(x[:300])
    ours = annvq.from_faiss(theirs)
    assert ours.norm == "float32"
    assert_same_search(theirs, ours, x[400:407])


@pytest.mark.parametrize("kind", ADDITIVE)
def test_additive_inner_product(kind):
    x = vectors()
    for search_type in ("ST_LUT_nonorm", "ST_norm_qint8", "ST_decompress"):
        theirs = ADDITIVE[kind](IP, getattr(AQ, search_type))
        theirs.train(x)
        theirs.add(x[:300])
        ours = annvq.from_faiss(theirs)
        assert (ours.metric, ours.norm) == ("ip", None)
        assert_same_search(theirs, ours, x[400:407])
        assert_same_search(annvq.to_faiss(ours), ours, x[400:407])


@pytest.mark.parametrize("metric", [L2, IP])
@pytest.mark.parametrize(
    "factory",
    ["PQ4x4np", "PQ2x9np", "OPQ4,PQ4x5np", "RR8,PQ2x6np", "PCA8,PQ4x4np", "IDMap2,PQ4x4np", "IDMap,OPQ2,PQ2x4np"],
)
def test_product_from_faiss_and_back(factory, metric):
    x = vectors()
    theirs = faiss.index_factory(D, factory, metric)
    theirs.train(x)
    if "IDMap" in factory:
        theirs.add_with_ids(x[:300], np.arange(300)[::-1] * 5 + 3)
    else:
        theirs.add(x[:300])
    if factory.startswith("PCA") and metric == IP:
        with pytest.raises(ValueError, match="offset under inner product"):
            annvq.from_faiss(theirs)
        return
    ours = annvq.from_faiss(theirs)
    assert_same_search(theirs, ours, x[400:407])
    again = annvq.to_faiss(ours)
    assert_same_search(again, ours, x[400:407])
    if not factory.startswith("IDMap,"):  # which do not reconstruct
        row = 8 if "IDMap" in factory else 7
        np.testing.assert_allclose(theirs.reconstruct(row), ours.reconstruct(np.array([row]))[0], atol=1e-4)


def test_cosine_is_inner_product_behind_a_normalisation():
    x = vectors()
    theirs = faiss.IndexPreTransform(faiss.NormalizationTransform(D, 2.0), faiss.IndexPQ(D, 4, 4, IP))
    theirs.train(x)
    theirs.add(x[:300])
    ours = annvq.from_faiss(theirs)
    assert ours.metric == "cosine"
    assert_same_search(theirs, ours, x[400:407])
    again = annvq.to_faiss(ours)
    assert_same_search(again, ours, x[400:407])
    again.add(x[300:301] * 9)  # normalises by itself
    np.testing.assert_allclose(np.linalg.norm(again.reconstruct(300)), 1, atol=0.5)


def test_fastscan():
    x = vectors()
    theirs = faiss.index_factory(D, "PQ4x4fs")
    theirs.train(x)
    theirs.add(x[:333])
    ours = annvq.from_faiss(theirs)
    for i in (0, 31, 32, 332):
        np.testing.assert_allclose(ours.reconstruct(np.array([i]))[0], theirs.reconstruct(i), atol=1e-6)
    again = annvq.to_faiss(ours, fastscan=True)
    assert isinstance(again, faiss.IndexPQFastScan)
    for left, right in zip(again.search(x[400:420], 5), theirs.search(x[400:420], 5), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-6)


def quantizers():
    rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(D, D)))[0]
    stretch = rotation * np.linspace(0.5, 2, D)
    mean = np.linspace(-1, 1, D)
    return {
        "product": annvq.ProductVQ(D, 4, 4),
        "product of 9 bits": annvq.ProductVQ(D, 2, 9),
        "residual": annvq.ResidualVQ(D, 3, 4),
        "residual, uneven": annvq.ResidualVQ(D, 3, (2, 9, 4)),
        "additive": annvq.AdditiveVQ(D, 3, 4),
        "additive, uneven": annvq.AdditiveVQ(D, 3, (2, 5, 4)),
        "groups": annvq.ProductAdditiveVQ(D, 4, 4, groups=2, beam=2),
        "groups, uneven": annvq.ProductAdditiveVQ(D, 4, (2, 5, 4, 3), groups=2, beam=2),
        "principal groups": annvq.PrincipalAdditiveVQ(D, 4, 4, groups=2, beam=2),
        "rotated": annvq.Transformed(annvq.Rotation.from_matrix(rotation), annvq.ProductVQ(D, 4, 4)),
        "rotated, shifted": annvq.Transformed(annvq.Rotation.from_matrix(rotation, mean), annvq.ProductVQ(D, 4, 4)),
        "rotated residual": annvq.Transformed(annvq.Rotation.from_matrix(rotation, mean), annvq.ResidualVQ(D, 3, 4)),
        "rotated additive": annvq.Transformed(annvq.Rotation.from_matrix(rotation), annvq.AdditiveVQ(D, 3, 4)),
        "linear": annvq.Transformed(annvq.LinearMap.from_matrix(stretch, mean), annvq.ProductVQ(D, 4, 4)),
    }


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("name", quantizers())
def test_to_faiss_and_back(name, metric, tmp_path):
    x = vectors()
    q = quantizers()[name].fit(x, recipe=QUICK)
    for norm in ("uint8", "float32") if q.needs_norm and metric == "l2" else ("auto",):
        ours = annvq.FlatIndex(q, metric, norm).add(x[:333], np.arange(333)[::-1] * 2 + 9)
        theirs = annvq.to_faiss(ours)
        assert isinstance(theirs, faiss.IndexIDMap2)
        assert_same_search(theirs, ours, x[400:407])
        faiss.write_index(theirs, str(tmp_path / "f"))
        read = faiss.read_index(str(tmp_path / "f"))
        assert_same_search(read, ours, x[400:407])
        back = annvq.from_faiss(read)
        assert_same_search(read, back, x[400:407])
        np.testing.assert_allclose(back.reconstruct(np.array([9])), ours.reconstruct(np.array([9])), atol=1e-4)
        read.add_with_ids(x[500:510], np.arange(5000, 5010))
        assert read.ntotal == 343


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("lists", [False, True])
def test_groups_become_products_of_local_search(metric, lists):
    """Not codebooks over all dimensions, which take as many times the memory as there are groups."""
    x = vectors()
    q = annvq.PrincipalAdditiveVQ(D, 4, 4, groups=2, beam=2)
    ours = annvq.IVFIndex(q, 6, metric, nprobe=6) if lists else annvq.FlatIndex(q, metric)
    ours.fit(x, recipe=QUICK).add(x[:300])
    theirs = annvq.to_faiss(ours)
    part = faiss.downcast_index(theirs.index)
    kind = faiss.IndexIVFProductLocalSearchQuantizer if lists else faiss.IndexProductLocalSearchQuantizer
    assert isinstance(part, kind)
    assert faiss.vector_to_array(part.plsq.codebooks).size == 4 * 16 * D // 2
    assert_same_search(theirs, ours, x[400:407])
    back = annvq.from_faiss(theirs)
    assert isinstance(back.quantizer.quantizer, annvq.ProductAdditiveVQ)
    assert_same_search(theirs, back, x[400:407])
    theirs.add(x[300:400])
    if not lists:
        new = x[300:400] / np.linalg.norm(x[300:400], axis=1, keepdims=True) if metric == "cosine" else x[300:400]
        missed = np.square(theirs.reconstruct_n(300, 100) - new).sum(1).mean()
        assert missed < 0.5 * np.square(new).sum(1).mean()


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_conditional_codes_become_what_is_scanned(small, metric):
    """The sums without the network: the same search, other vectors."""
    q, x = small("conditional")
    ours = annvq.FlatIndex(q, metric).add(x[:300])
    theirs = annvq.to_faiss(ours)
    assert_same_search(theirs, ours, x[400:407])
    back = annvq.from_faiss(theirs)
    assert isinstance(back.quantizer, annvq.AdditiveVQ)
    assert_same_search(theirs, back, x[400:407])
    view = q.scan_view().decode(ours.export()[0])
    if metric == "l2":
        np.testing.assert_allclose(theirs.reconstruct_n(0, 300), view, rtol=1e-5, atol=1e-5)
    assert np.abs(ours.reconstruct(np.arange(300)) - view).max() > 0.1


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_random_codebooks(data):
    kind = data.draw(st.sampled_from(["product", "residual", "additive"]))
    M, nbits, n = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 9)), data.draw(st.integers(0, 90))
    metric = data.draw(st.sampled_from(["l2", "ip"]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    q = annvq.from_codebooks(rng.normal(size=(M, 1 << nbits, 6)).astype(np.float32), kind)
    norm = "float32" if kind != "product" and metric == "l2" else "auto"
    x = rng.normal(size=(n, q.dim)).astype(np.float32)
    ours = annvq.FlatIndex(q, metric, norm).add(x, rng.permutation(1000)[:n])
    theirs = annvq.to_faiss(ours)
    queries = rng.normal(size=(3, q.dim)).astype(np.float32)
    if n:
        assert_same_search(theirs, ours, queries)
        assert_same_search(theirs, annvq.from_faiss(theirs), queries)
    else:
        assert theirs.ntotal == 0
        assert len(annvq.from_faiss(theirs)) == 0


def with_lists(cls, metric, *shape):
    quantizer = faiss.IndexFlat(D, metric)
    index = cls(quantizer, D, 6, *shape)
    index.own_fields = True
    quantizer.this.disown()
    return index


LISTS = {
    "pq": lambda m: with_lists(faiss.IndexIVFPQ, m, 4, 4, m),
    "rq float": lambda m: with_lists(faiss.IndexIVFResidualQuantizer, m, 3, 4, m, AQ.ST_norm_float),
    "rq byte": lambda m: with_lists(faiss.IndexIVFResidualQuantizer, m, 3, 4, m, AQ.ST_norm_qint8),
    "lsq": lambda m: with_lists(faiss.IndexIVFLocalSearchQuantizer, m, 4, 4, m, AQ.ST_norm_cqint8),
    "prq": lambda m: with_lists(faiss.IndexIVFProductResidualQuantizer, m, 2, 2, 4, m, AQ.ST_decompress),
    "plsq": lambda m: with_lists(faiss.IndexIVFProductLocalSearchQuantizer, m, 2, 2, 4, m, AQ.ST_norm_cqint4),
}


@pytest.mark.parametrize("metric", [L2, IP])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("name", LISTS)
def test_lists_from_faiss_and_back(name, residual, metric):
    x = vectors()
    theirs = LISTS[name](metric)
    theirs.by_residual = residual
    theirs.train(x)
    theirs.add_with_ids(x[:400], np.arange(400)[::-1] * 3 + 1)
    theirs.nprobe = 6
    ours = annvq.from_faiss(theirs)
    assert (ours.nlist, ours.nprobe, ours.residual) == (6, 6, residual)
    assert_same_search(theirs, ours, x[400:407], nprobe=6)
    again = annvq.to_faiss(ours)
    assert_same_search(again, ours, x[400:407], nprobe=6)
    theirs.nprobe = again.nprobe = 2
    found = [theirs.search(x[400:410], 5)[0], again.search(x[400:410], 5)[0], ours.search(x[400:410], 5, nprobe=2)[0]]
    found[2] = found[2] if metric == L2 else -found[2]
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-4, atol=1e-3)
    ours.add(x[400:410])
    assert len(ours) == 410
    np.testing.assert_allclose(ours.reconstruct(np.array([1])), [_rebuilt(theirs, 1)], atol=1e-3)


def _rebuilt(index, id):
    index.set_direct_map_type(faiss.DirectMap.Hashtable)
    return index.reconstruct(id)


@pytest.mark.parametrize("factory", ["OPQ4,IVF6,PQ4x4np", "PCA8,IVF6,PQ4x4np", "IDMap,RR8,IVF6,PQ2x6np"])
def test_lists_behind_transforms(factory):
    x = vectors()
    theirs = faiss.index_factory(D, factory)
    theirs.train(x)
    if "IDMap" in factory:
        theirs.add_with_ids(x[:400], np.arange(400) * 2 + 5)
    else:
        theirs.add(x[:400])
    faiss.extract_index_ivf(theirs).nprobe = 6
    ours = annvq.from_faiss(theirs)
    assert_same_search(theirs, ours, x[400:407], nprobe=6)
    assert_same_search(annvq.to_faiss(ours), ours, x[400:407], nprobe=6)


@pytest.mark.parametrize("residual", [True, False])
def test_lists_of_fastscan(residual):
    x = vectors()
    theirs = with_lists(faiss.IndexIVFPQFastScan, L2, 4, 4, L2)
    theirs.by_residual = residual
    theirs.train(x)
    theirs.add(x[:333])
    ours = annvq.from_faiss(theirs)
    theirs.make_direct_map()
    for i in (0, 31, 32, 332):
        np.testing.assert_allclose(ours.reconstruct(np.array([i]))[0], theirs.reconstruct(i), atol=1e-5)
    again = annvq.to_faiss(ours, fastscan=True)
    again.nprobe = theirs.nprobe = 6
    # Rounded tables, so approximate on both sides.
    np.testing.assert_allclose(again.search(x[400:420], 5)[0], theirs.search(x[400:420], 5)[0], rtol=0.1, atol=0.5)


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("name", quantizers())
def test_lists_to_faiss_and_back(name, residual, metric):
    x = vectors()
    q = quantizers()[name]
    ours = annvq.IVFIndex(q, 5, metric, residual=residual, nprobe=5).fit(x, recipe=QUICK)
    ours.add(x[:333], np.arange(333)[::-1] * 2 + 9)
    theirs = annvq.to_faiss(ours)
    tolerant = (
        residual
        and isinstance(faiss.downcast_index(faiss.extract_index_ivf(theirs)), faiss.IndexIVFPQ)
        and metric == "l2"
    )
    if tolerant:  # FAISS needs no norm of these; annvq's is a byte, and keeps half of the error
        exact = annvq.from_faiss(theirs)
        assert_same_search(theirs, exact, x[400:407], nprobe=5)
        own, found = ours.search(x[:9], 333)
        theirs_by_id = np.empty((9, 1000), np.float32)
        np.put_along_axis(theirs_by_id, *exact.search(x[:9], 333)[::-1], 1)
        half = 0.5 * np.square(x[332 - (found - 9) // 2] - ours.reconstruct(found.ravel()).reshape(9, 333, D)).sum(2)
        off = np.abs(np.take_along_axis(theirs_by_id, found, 1) + half - own)
        assert np.quantile(off, 0.98) < 3.0  # but for a few rows that are beyond the byte's last level
        return
    assert_same_search(theirs, ours, x[400:407], nprobe=5)
    back = annvq.from_faiss(theirs)
    assert_same_search(theirs, back, x[400:407], nprobe=5)
    # Under cosine codes are chosen to have one length, and FAISS gets them with length one.
    length = ours.coding.length.value if metric == "cosine" else 1.0
    np.testing.assert_allclose(back.reconstruct(np.array([9])) * length, ours.reconstruct(np.array([9])), atol=1e-3)


def test_empty_lists():
    x = vectors()
    ours = annvq.IVFIndex(annvq.ProductVQ(D, 2, 4), 5).fit(x, recipe=QUICK)
    theirs = annvq.to_faiss(ours)
    assert theirs.ntotal == 0
    assert len(annvq.from_faiss(theirs)) == 0
    theirs.add(x[:10])
    theirs.nprobe = 5
    assert_same_search(theirs, annvq.from_faiss(theirs), x[:3], nprobe=5)


def test_result_owns_its_parts():
    ours = annvq.FlatIndex(quantizers()["rotated"].fit(vectors(), recipe=QUICK)).add(vectors(50), np.arange(50) + 7)
    theirs = annvq.to_faiss(ours)
    assert_same_search(theirs, ours, vectors(3, seed=1))
    copy = faiss.clone_index(theirs)
    del theirs
    assert_same_search(copy, ours, vectors(3, seed=1))


def _trained(factory, metric=L2):
    index = faiss.index_factory(D, factory, metric)
    index.train(vectors())
    index.add(vectors(100))
    return index


def test_refusals():
    x = vectors()
    uneven = annvq.FlatIndex(annvq.ProductVQ(D, 2, (3, 5)).fit(x, recipe=QUICK)).add(x)
    residual = annvq.FlatIndex(annvq.ResidualVQ(D, 2, 4).fit(x, recipe=QUICK)).add(x)
    wide = annvq.FlatIndex(annvq.ProductVQ(D, 2, 5).fit(x, recipe=QUICK)).add(x)
    repeated = faiss.IndexIDMap2(faiss.IndexPQ(D, 2, 4))
    repeated.train(x)
    repeated.add_with_ids(x[:4], np.array([1, 2, 2, 3]))
    negative = faiss.IndexIDMap2(faiss.IndexPQ(D, 2, 4))
    negative.train(x)
    negative.add_with_ids(x[:2], np.array([1, -2]))
    sdc = _trained("PQ2x4")
    sdc.search_type = faiss.IndexPQ.ST_SDC
    whitened = faiss.IndexPreTransform(faiss.PCAMatrix(D, D, -0.5), faiss.IndexPQ(D, 2, 4))
    whitened.train(x)
    cases = [
        (lambda: annvq.from_faiss(_trained("Flat")), "raw vectors.*indexes hold codes"),
        (lambda: annvq.from_faiss(_trained("SQ8")), "no scalar, binary or lattice codes"),
        (lambda: annvq.from_faiss(_trained("PQ4x4fs,RFlat")), "re-ranks with a second index; convert its base_index"),
        (lambda: annvq.from_faiss(_trained("HNSW8")), "graph over them"),
        (lambda: annvq.from_faiss(_trained("PCA4,PQ2x4")), "PCAMatrix maps 8 to 4 dimensions"),
        (lambda: annvq.from_faiss(whitened), "does not keep distances"),
        (lambda: annvq.from_faiss(faiss.IndexPQ(D, 2, 4)), "IndexPQ must be trained"),
        (lambda: annvq.from_faiss(_trained("PQ2x4", faiss.METRIC_L1)), "METRIC_L2 or METRIC_INNER_PRODUCT"),
        (lambda: annvq.from_faiss(repeated), "must differ from one another"),
        (lambda: annvq.from_faiss(negative), "must not be negative"),
        (lambda: annvq.from_faiss(_trained("IVF4,Flat")), "raw vectors"),
        (lambda: annvq.from_faiss(_trained("IVF4,SQ8")), "no scalar"),
        (
            lambda: annvq.to_faiss(annvq.RerankIndex(annvq.FlatIndex(wide.quantizer), "float32")),
            "FlatIndex and IVFIndex do: convert what it scans, index.index",
        ),
        (lambda: annvq.from_faiss(sdc), "compares codes with codes"),
        (lambda: annvq.to_faiss(uneven), r"as many bits in every codebook.*\(3, 5\)"),
        (lambda: annvq.to_faiss(residual, fastscan=True), "fastscan needs product codes"),
        (lambda: annvq.to_faiss(wide, fastscan=True), "nbits=4, got nbits=5"),
        (lambda: annvq.to_faiss(annvq.FlatIndex(annvq.ProductVQ(D, 2, 4))), "fit"),
    ]
    for use, message in cases:
        with pytest.raises(ValueError, match=message):
            use()


def test_import_does_not_load_faiss():
    code = "import sys, annvq.interop.faiss; sys.exit('faiss' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.fixture(scope="module")
def real():
    """Patches of photographs, or the SIFT descriptors of the file that ANNVQ_TEST_SIFT names."""
    if path := os.environ.get("ANNVQ_TEST_SIFT"):
        with h5py.File(path) as f:
            return f["learn"][:5_000].astype(np.float32)
    return annvq.datasets.load("patches").learn[:5_000].astype(np.float32)


@pytest.mark.parametrize(
    "factory",
    [
        "OPQ8,PQ8x6np",
        "RQ3x6_Nqint8",
        "LSQ2x5_Nfloat",
        "PRQ2x2x6_Nqint8",
        "PQ16x4fs",
        "RR{d},IVF8,PQ8x6np",
        "IVF8,RQ3x6_Nqint8",
    ],
)
def test_real_vectors(factory, real):
    theirs = faiss.index_factory(real.shape[1], factory.format(d=real.shape[1]))
    theirs.train(real[:3_000])
    theirs.add(real[:4_000])
    if "IVF" in factory:
        faiss.extract_index_ivf(theirs).nprobe = 3
    ours = annvq.from_faiss(theirs)
    if "fs" in factory:
        np.testing.assert_array_equal(ours.reconstruct(np.arange(500)), theirs.reconstruct_n(0, 500))
        return
    for index in (theirs, annvq.to_faiss(ours)):
        d, i = index.search(real[4_000:4_100], 20)
        own_d, own_i = ours.search(real[4_000:4_100], 20)
        np.testing.assert_allclose(np.maximum(d, 0), own_d, rtol=1e-4, atol=1e-5 * d.max())
        assert (i == own_i).mean() > 0.95  # ties may fall either way
