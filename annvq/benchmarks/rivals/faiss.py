"""FAISS: its codes in its own flat indexes, its scans of codes that are given, and indexes of its factory.

Codes are at FAISS' defaults except where options say otherwise. Residual and local-search codes store their norm in
one byte (``ST_norm_qint8``), which is charged; under inner product they store none, and none where ``decode = true``
has FAISS decode every vector for every query. Distances are asymmetric in all of them. ``score = "l2"`` ranks by L2
under cosine, which on vectors of length one finds more neighbours than the inner product that is the default there.

RaBitQ and scalar codes take whole bits of each dimension (``bits_per_dimension`` of a suite); RaBitQ stores factors
beside them, which are charged. It stands behind a random rotation, as it supposes.
"""

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import faiss
import numpy as np

from annvq import complexity
from annvq.benchmarks.roles import Budget, Index, Levels, Rival, Scan, Source, check_options
from annvq.types import F32, I64

_Build = Callable[[Budget, int, int, dict[str, Any]], tuple[Any, Any, dict[str, Any]]]


class FlatCode:
    """A FAISS index over codes."""

    def __init__(self, index: Any, coded: Any, config: dict[str, Any], wmops: float | None, decodes: bool) -> None:
        self.index = index
        self.coded = coded
        self.config = config
        self._wmops = wmops
        self._decodes = decodes

    def fit(self, learn: F32) -> None:
        self.index.train(learn)

    def add(self, x: F32) -> None:
        self.index.add(x)

    def decode(self, start: int, stop: int) -> F32 | None:
        return self.index.reconstruct_n(start, stop - start) if self._decodes else None

    def search(self, queries: F32, k: int) -> I64:
        ids: I64 = self.index.search(queries, k)[1]
        return ids

    def bits_per_vector(self) -> float:
        return 8 * int(self.coded.sa_code_size())

    def wmops(self) -> float | None:
        return self._wmops


def _metric(budget: Budget) -> int:
    # Cosine on vectors of length one is inner product.
    return int(faiss.METRIC_L2 if budget.metric == "l2" else faiss.METRIC_INNER_PRODUCT)


def _product_codes(budget: Budget, M: int, seed: int, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    nbits, dim = options["nbits"], -(-budget.dim // M) * M
    coded = faiss.IndexPQ(dim, M, nbits, _metric(budget))
    coded.pq.cp.seed += seed
    coded.pq.cp.niter = options.get("niter", coded.pq.cp.niter)
    return coded, {"count": complexity.encode_counts("product", dim=dim, M=M, nbits=nbits), "niter": coded.pq.cp.niter}


def _filled_up(index: Any, budget: Budget) -> Any:
    """``index`` behind zeros in place of the dimensions that vectors lack: FAISS' sub-spaces have equal dimensions."""
    if index.d == budget.dim:
        return index
    library: Any = faiss  # its stubs do not know all arguments
    filling = library.RemapDimensionsTransform(budget.dim, index.d, True)
    if isinstance(index, faiss.IndexPreTransform):
        index.prepend_transform(filling)
        return index
    return library.IndexPreTransform(filling, index)


def _pq(budget: Budget, M: int, seed: int, options: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    coded, facts = _product_codes(budget, M, seed, options)
    return _filled_up(coded, budget), coded, facts


def _opq(budget: Budget, M: int, seed: int, options: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    coded, facts = _product_codes(budget, M, seed, options)
    rotation = faiss.OPQMatrix(coded.d, M)
    rotation.niter = options.get("opq_niter", rotation.niter)
    index = _filled_up(faiss.IndexPreTransform(rotation, coded), budget)
    count = facts["count"] + complexity.linear_map(coded.d, coded.d)
    return index, coded, {**facts, "count": count, "opq_niter": rotation.niter}


def _fast_scan(budget: Budget, M: int, seed: int, options: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    dim = -(-budget.dim // M) * M
    coded = faiss.IndexPQFastScan(dim, M, 4, _metric(budget))
    coded.pq.cp.seed += seed
    coded.pq.cp.niter = options.get("niter", coded.pq.cp.niter)
    count = complexity.encode_counts("product", dim=dim, M=M, nbits=4)
    return _filled_up(coded, budget), coded, {"count": count, "niter": coded.pq.cp.niter}


def _rotated_fast_scan(budget: Budget, M: int, seed: int, options: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    _, coded, facts = _fast_scan(budget, M, seed, options)
    rotation = faiss.OPQMatrix(coded.d, M)
    rotation.niter = options.get("opq_niter", rotation.niter)
    index = _filled_up(faiss.IndexPreTransform(rotation, coded), budget)
    count = facts["count"] + complexity.linear_map(coded.d, coded.d)
    return index, coded, {**facts, "count": count, "opq_niter": rotation.niter}


def _search_type(budget: Budget, options: dict[str, Any]) -> int:
    kinds = faiss.AdditiveQuantizer
    if options.get("decode", False):
        return int(kinds.ST_decompress)
    return int(kinds.ST_norm_qint8 if budget.metric == "l2" else kinds.ST_LUT_nonorm)


def _rq(budget: Budget, M: int, seed: int, options: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    nbits = options["nbits"]
    index = faiss.IndexResidualQuantizer(budget.dim, M, nbits, _metric(budget), _search_type(budget, options))  # type: ignore[call-overload]
    index.rq.cp.seed += seed
    if "beam" in options:
        index.rq.max_beam_size = options["beam"]
    beam = index.rq.max_beam_size
    count = complexity.encode_counts("residual", dim=budget.dim, M=M, nbits=nbits, beam=beam)
    return index, index, {"count": count, "beam": beam}


def _prq(budget: Budget, M: int, seed: int, options: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """Residual codes in each of ``nsplits`` sub-spaces."""
    nbits, splits = options["nbits"], options.get("nsplits", 2)
    # At the same bits in all, so many per codebook that the sub-spaces share them evenly.
    total = M * nbits
    nbits = next((b for b in range(nbits, 0, -1) if total % (splits * b) == 0), 0)
    if nbits == 0 or budget.dim % splits:
        raise ValueError(f"bits: {total} bits do not share out over {splits} sub-spaces of {budget.dim} dimensions")
    each = total // (splits * nbits)
    library: Any = faiss  # its stubs know neither the arguments nor the downcast
    index = library.IndexProductResidualQuantizer(
        budget.dim, splits, each, nbits, _metric(budget), _search_type(budget, options)
    )
    parts = [library.downcast_AdditiveQuantizer(index.prq.subquantizer(i)) for i in range(splits)]
    for part in parts:
        part.cp.seed += seed
        part.max_beam_size = options.get("beam", part.max_beam_size)
    beam = parts[0].max_beam_size
    count = complexity.encode_counts("residual", dim=budget.dim // splits, M=each, nbits=nbits, beam=beam) * splits
    return index, index, {"count": count, "beam": beam, "nsplits": splits, "M": splits * each, "nbits": nbits}


def _lsq(budget: Budget, M: int, seed: int, options: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    nbits = options["nbits"]
    index = faiss.IndexLocalSearchQuantizer(budget.dim, M, nbits, _metric(budget), _search_type(budget, options))  # type: ignore[call-overload]
    index.lsq.random_seed += seed
    for name in _LSQ_OPTIONS:
        if name in options:
            setattr(index.lsq, name, options[name])
    rounds, sweeps = index.lsq.encode_ils_iters, index.lsq.icm_iters
    count = complexity.local_search(dim=budget.dim, M=M, nbits=nbits, rounds=rounds, sweeps=sweeps)
    return index, index, {"count": count, **{name: getattr(index.lsq, name) for name in _LSQ_OPTIONS}}


_LSQ_OPTIONS = ("train_iters", "train_ils_iters", "encode_ils_iters", "icm_iters")
_BUILDS: dict[str, tuple[_Build, bool, tuple[str, ...]]] = {
    # name: (how to build it, whether it stores a norm, its options)
    "pq": (_pq, False, ("nbits", "niter")),
    "opq": (_opq, False, ("nbits", "niter", "opq_niter")),
    "pq-fastscan": (_fast_scan, False, ("niter",)),
    "opq-fastscan": (_rotated_fast_scan, False, ("niter", "opq_niter")),
    "rq": (_rq, True, ("nbits", "beam", "decode")),
    "prq": (_prq, True, ("nbits", "beam", "nsplits", "decode")),
    "lsq": (_lsq, True, ("nbits", "decode", *_LSQ_OPTIONS)),
}


def _rabitq(budget: Budget, each: int, seed: int, options: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    library: Any = faiss  # its stubs do not know all arguments
    if not hasattr(library, "IndexRaBitQFastScan") or (each > 1 and not hasattr(library, "ExtraBitsFactors")):
        raise ValueError(f"bits: this FAISS has no RaBitQ of {each} bits a dimension")
    metric, more = _metric(budget), (each,) if each > 1 else ()
    if options.get("fast_scan", False):
        coded = library.IndexRaBitQFastScan(budget.dim, metric, 32, *more)
    else:
        coded = library.IndexRaBitQ(budget.dim, metric, *more)
    coded.qb = options.get("qb", coded.qb)
    rotation = library.RandomRotationMatrix(budget.dim, budget.dim)
    rotation.init(seed + 1)  # at random, so nothing is left to train
    return library.IndexPreTransform(rotation, coded), coded, {"qb": coded.qb}


_SCALARS = {4: "QT_4bit", 6: "QT_6bit", 8: "QT_8bit", 16: "QT_fp16"}


def _scalar(budget: Budget, each: int, seed: int, options: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    kind = getattr(faiss.ScalarQuantizer, _SCALARS[each])
    index = faiss.IndexScalarQuantizer(budget.dim, kind, _metric(budget))
    return index, index, {"kind": _SCALARS[each]}


_EACH_DIMENSION: dict[str, tuple[_Build, tuple[int, ...], tuple[str, ...]]] = {
    # name: (how to build it, the bits that a dimension can have, its options)
    "rabitq": (_rabitq, tuple(range(1, 10)), ("qb", "fast_scan")),
    "sq": (_scalar, tuple(_SCALARS), ()),
}


def make(name: str, budget: Budget, options: dict[str, Any], seed: int) -> FlatCode:
    """An untrained FAISS index of codes with ``nbits`` (default 8) bits a codebook, or of whole bits a dimension."""
    each_dimension = name in _EACH_DIMENSION
    known = _EACH_DIMENSION[name][2] if each_dimension else _BUILDS[name][2]
    check_options(f"faiss.{name}", options, (*known, "score"))
    score = options.get("score", budget.metric)
    if score not in ("l2", budget.metric) or (score != budget.metric and budget.metric != "cosine"):
        raise ValueError(f"score: faiss.{name} ranks by {budget.metric}, or under cosine by 'l2', got {score!r}")
    scored = replace(budget, metric=score)
    make_it = _of_each_dimension if each_dimension else _of_codebooks
    index, coded, shape, facts = make_it(name, scored, options, seed)
    count = facts.pop("count", None)
    by = {"score": score} if score != budget.metric else {}
    settings = "defaults" if set(options) <= {"nbits", "score"} else "options"
    config = {"index": type(index).__name__, **shape, **facts, **by, "settings": settings}
    # The decoder of RaBitQ gives other vectors than those that it estimates distances to.
    return FlatCode(index, coded, config, None if count is None else count.wmops(), decodes=name != "rabitq")


def _of_codebooks(name: str, budget: Budget, options: dict[str, Any], seed: int) -> tuple[Any, ...]:
    build, norm, _ = _BUILDS[name]
    options = {"nbits": 4 if name.endswith("fastscan") else 8, **options}
    charged = 8 if norm and budget.metric == "l2" and not options.get("decode", False) else 0
    M, left = divmod(budget.bits - charged, options["nbits"])
    if left or M < 1:
        raise ValueError(
            f"bits: faiss.{name} cannot spend {budget.bits} bits, {charged} of them on the norm, "
            f"on codebooks of {options['nbits']} bits"
        )
    index, coded, facts = build(budget, M, seed, options)
    return index, coded, {"M": M, "nbits": options["nbits"], "norm": "uint8" if charged else None}, facts


def _of_each_dimension(name: str, budget: Budget, options: dict[str, Any], seed: int) -> tuple[Any, ...]:
    build, known, _ = _EACH_DIMENSION[name]
    each, left = divmod(budget.bits, budget.dim)
    if left or each not in known:
        raise ValueError(
            f"bits: faiss.{name} takes {', '.join(map(str, known))} bits a dimension; "
            f"{budget.bits} bits are no such number of {budget.dim} dimensions"
        )
    index, coded, facts = build(budget, each, seed, options)
    return index, coded, {"bits_per_dimension": each}, facts


_CHUNK = 100_000


class FlatScan(Scan):
    """FAISS' flat indexes over the same codes, or, for FastScan, over as many bytes of 4-bit codes."""

    indexes: ClassVar = {
        "product": ("IndexPQ", "IndexPQFastScan"),
        "residual": ("IndexResidualQuantizer", "IndexLocalSearchQuantizer"),
    }
    # Sums of entries use threads only for more queries than a hundred at once.
    least_queries: ClassVar = {"IndexResidualQuantizer": 104, "IndexLocalSearchQuantizer": 104}

    @staticmethod
    def prepare(source: Source, kind: str, M: int, n: int, folder: Path, seed: int) -> None:
        if kind == "product" and source.dim % (2 * M) == 0:  # else such an index cannot be; its rows say so
            _four_bits(source, M, n, folder, seed)

    def open(self, folder: Path, index: str, n: int) -> None:
        self.index: Any = None  # the old one's memory first
        if index in ("IndexPQ", "IndexPQFastScan"):
            prefix = "pq4-" if index == "IndexPQFastScan" else ""
            centroids = np.load(folder / f"{prefix}centroids.npy")  # (M, K, d/M)
            M, K, width = centroids.shape
            held: Any = faiss.IndexPQ(M * width, M, K.bit_length() - 1)
            faiss.copy_array_to_vector(centroids.ravel(), held.pq.centroids)
            held.is_trained = True
            held.add_sa_codes(np.load(folder / f"{prefix}codes.npy", mmap_mode="r")[:n])
            self.index = faiss.IndexPQFastScan(held) if index == "IndexPQFastScan" else held
            return
        entries, norms = np.load(folder / "entries.npy"), np.load(folder / "norms.npy")  # (M, K, d), (n,)
        M, K, dim = entries.shape
        kind = faiss.AdditiveQuantizer.ST_norm_qint8
        held = getattr(faiss, index)(dim, M, K.bit_length() - 1, faiss.METRIC_L2, kind)
        faiss.copy_array_to_vector(entries.ravel(), held.aq.codebooks)
        held.aq.norm_min, held.aq.norm_max = float(norms.min()), float(norms.max())
        held.aq.is_trained = held.is_trained = True
        span = max(held.aq.norm_max - held.aq.norm_min, 1e-20)
        byte = np.clip((norms[:n] - held.aq.norm_min) / span * 255, 0, 255).astype(np.uint8)
        codes = np.load(folder / "codes.npy", mmap_mode="r")[:n]
        held.add_sa_codes(np.ascontiguousarray(np.hstack([codes, byte[:, None]])))
        self.index = held

    def set_threads(self, count: int) -> None:
        faiss.omp_set_num_threads(count)

    def search(self, queries: F32, k: int, keep: I64 | None) -> Any:
        if keep is not None:
            raise ValueError("FAISS' flat indexes of codes take no filter")
        return self.index.search(queries, k)[1]


def _four_bits(source: Source, M: int, n: int, folder: Path, seed: int) -> None:
    """Product codes of 2M sub-quantizers with 4 bits, by FAISS: what FastScan scans at equal bytes."""
    pq = faiss.ProductQuantizer(source.dim, 2 * M, 4)
    if source.learn is not None and source.base is not None:
        pq.train(source.learn)
        parts: list[Any] = [pq.compute_codes(source.base(s, min(n, s + _CHUNK))) for s in range(0, n, _CHUNK)]
        codes = np.concatenate(parts)
    else:
        rng = np.random.default_rng([seed, 4])
        shape = (2 * M, 16, source.dim // (2 * M))
        faiss.copy_array_to_vector(rng.standard_normal(shape, dtype=np.float32).ravel(), pq.centroids)
        codes = rng.integers(0, 256, (n, M), dtype=np.uint8)
    centroids = faiss.vector_to_array(pq.centroids).reshape(2 * M, 16, -1)
    np.save(folder / "pq4-centroids.npy", centroids)
    np.save(folder / "pq4-codes.npy", codes)


class Lists(Index):
    """An index of FAISS' factory: codes, flat or in inverted lists, with or without refinement."""

    spec_keys = ("factory",)
    setting_keys = ("nprobe", "k_factor")
    grows = True

    def train(self, learn: F32, dim: int, spec: dict[str, Any], seed: int) -> None:
        self.index: Any = faiss.index_factory(dim, spec["factory"])
        self.index.train(learn)

    def add(self, x: F32) -> None:
        self.index.add(x)

    def bits_per_vector(self) -> float | None:
        held: Any = faiss.downcast_index(self.index)
        lists: Any = faiss.try_extract_index_ivf(held)
        bits = 8.0 * (held.sa_code_size() if lists is None else lists.code_size)
        return bits + 8.0 * held.refine_index.sa_code_size() if hasattr(held, "refine_index") else bits

    def save(self, path: Path) -> None:
        faiss.write_index(self.index, str(path))

    def open(self, path: Path, dim: int) -> None:
        self.index = faiss.read_index(str(path))

    def configure(self, settings: dict[str, Any]) -> None:
        names = {"nprobe": "nprobe", "k_factor": "k_factor_rf"}
        text = ",".join(f"{names[key]}={value}" for key, value in settings.items())
        space: Any = faiss.ParameterSpace()
        space.set_index_parameters(self.index, text)

    def set_threads(self, count: int) -> None:
        faiss.omp_set_num_threads(count)

    def search(self, queries: F32, k: int) -> Any:
        return self.index.search(queries, k)[1]


_LOADED = ("AVX2", "AVX512", "AVX512_SPR", "SVE")  # levels that FAISS before 1.14 has a module of its own for


def levels() -> Levels:
    """SIMD levels, as FAISS says; before 1.14 each was a build of its own."""
    if not hasattr(faiss, "SIMDConfig"):
        return _builds()
    numbers = {name.removeprefix("SIMDLevel_"): getattr(faiss, name) for name in dir(faiss) if "SIMDLevel_" in name}
    none = ("NONE", "COUNT")
    found = [n for n, at in numbers.items() if n not in none and faiss.SIMDConfig.is_simd_level_available(at)]
    return str(faiss.SIMDConfig.get_level_name()), found or ["NONE"]


def _builds() -> Levels:
    loader: Any = importlib.import_module("faiss.loader")
    modules = {name: f"faiss.swigfaiss_{name.lower()}" for name in _LOADED}
    loaded = [name for name, module in modules.items() if module in sys.modules]
    level = loaded[-1] if loaded else "generic"
    if "FAISS_OPT_LEVEL" in os.environ:
        return level, [level]
    features = loader.supported_instruction_sets()
    found = [
        name
        for name, module in modules.items()
        if any(feature.startswith(name) for feature in features) and importlib.util.find_spec(module)
    ]
    return level, found or ["generic"]


RIVAL = Rival(
    "faiss",
    codes=(*_BUILDS, *_EACH_DIMENSION),
    make=make,
    scan=FlatScan,
    index=Lists,
    levels=levels,
    level_variables=("FAISS_SIMD_LEVEL", "FAISS_OPT_LEVEL"),  # from 1.14 on, and before
    best_of_levels=True,
)
