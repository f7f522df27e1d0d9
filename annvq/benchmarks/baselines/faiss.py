"""FAISS' codes in its own flat indexes, at its defaults except where options say otherwise.

Residual and local-search codes store their norm in one byte (``ST_norm_qint8``), which is charged; under
inner product they store none. Distances are asymmetric in all of them.
"""

from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from annvq import complexity
from annvq.benchmarks.baselines.base import Budget, check_options
from annvq.types import F32

_Build = Callable[[Budget, int, int, dict[str, Any]], tuple[Any, Any, dict[str, Any]]]


class Code:
    """A FAISS index over codes."""

    def __init__(self, index: Any, coded: Any, config: dict[str, Any], wmops: float | None) -> None:
        self.index = index
        self.coded = coded
        self.config = config
        self._wmops = wmops

    def fit(self, learn: F32) -> None:
        self.index.train(learn)

    def add(self, x: F32) -> None:
        self.index.add(x)

    def decode(self, start: int, stop: int) -> F32:
        rows: F32 = self.index.reconstruct_n(start, stop - start)
        return rows

    def search(self, queries: F32, k: int) -> npt.NDArray[np.int64]:
        ids: npt.NDArray[np.int64] = self.index.search(queries, k)[1]
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


def _search_type(budget: Budget) -> int:
    kinds = faiss.AdditiveQuantizer
    return int(kinds.ST_norm_qint8 if budget.metric == "l2" else kinds.ST_LUT_nonorm)


def _rq(budget: Budget, M: int, seed: int, options: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    nbits = options["nbits"]
    index = faiss.IndexResidualQuantizer(budget.dim, M, nbits, _metric(budget), _search_type(budget))  # type: ignore[call-overload]
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
        budget.dim, splits, each, nbits, _metric(budget), _search_type(budget)
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
    index = faiss.IndexLocalSearchQuantizer(budget.dim, M, nbits, _metric(budget), _search_type(budget))  # type: ignore[call-overload]
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
    "rq": (_rq, True, ("nbits", "beam")),
    "prq": (_prq, True, ("nbits", "beam", "nsplits")),
    "lsq": (_lsq, True, ("nbits", *_LSQ_OPTIONS)),
}
NAMES = tuple(_BUILDS)


def make(name: str, budget: Budget, options: dict[str, Any], seed: int) -> Code:
    """An untrained FAISS index of codes with ``nbits`` (default 8) bits a codebook."""
    build, norm, known = _BUILDS[name]
    check_options(f"faiss.{name}", options, known)
    options = {"nbits": 8, **options}
    charged = 8 if norm and budget.metric == "l2" else 0
    M, left = divmod(budget.bits - charged, options["nbits"])
    if left or M < 1:
        raise ValueError(
            f"bits: faiss.{name} cannot spend {budget.bits} bits, {charged} of them on the norm, "
            f"on codebooks of {options['nbits']} bits"
        )
    index, coded, facts = build(budget, M, seed, options)
    count = facts.pop("count")
    shape = {"M": M, "nbits": options["nbits"], "norm": "uint8" if charged else None}
    settings = "defaults" if set(options) == {"nbits"} else "options"
    config = {"index": type(index).__name__, **shape, **facts, "settings": settings}
    return Code(index, coded, config, count.wmops())
