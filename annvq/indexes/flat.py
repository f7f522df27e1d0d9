"""The flat index: every code is scored for every query."""

from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from annvq import kernels
from annvq.arrays import F32, I64, Array, check_vectors, chunks, like, positive_int, rows_to_numpy
from annvq.indexes.base import Index, Norm, check_filter, check_ids, check_search
from annvq.indexes.packing import pack, packed_bytes, unpack
from annvq.quantizers.base import Quantizer


class FlatIndex(Index):
    """Exact ADC over all codes.

    Args:
        quantizer: fitted, or to be fitted by :meth:`fit`.
        metric: ``"l2"`` (squared Euclidean distance), ``"ip"`` (−⟨q, x̂⟩) or ``"cosine"`` (1 − cos; vectors are
            normalised in fit, add and search).
        norm: how ‖x̂‖² is stored where L2 needs it: ``"uint8"`` (one byte, learned levels), ``"float32"``, or
            ``"auto"``: one byte where needed, else nothing.
    """

    kind = "flat"

    def __init__(self, quantizer: Quantizer, metric: str = "l2", norm: Norm = "auto") -> None:
        super().__init__(quantizer, metric, norm)
        self._codes: npt.NDArray[Any] = np.empty((0, quantizer.M), dtype=quantizer.code_dtype)
        self._norms: npt.NDArray[Any] = np.empty(0, dtype=np.float32 if self.norm == "float32" else np.uint8)
        self._ids: I64 = np.empty(0, dtype=np.int64)
        self._next_id = 0
        self._blocks: kernels.Blocks | None = None  # the codes laid out for the fast scan, made by the first search

    @property
    def ram_bits_per_vector(self) -> int:
        rows = 8 * self._codes.itemsize * self.quantizer.M + self.norm_bits
        return rows + (8 * (self.quantizer.M + bool(self.norm)) if self._scans_blocks() else 0)

    def _scans_blocks(self) -> bool:
        return self._codes.dtype == np.uint8 and self.norm != "float32" and kernels.has_blocked_scan()

    def __len__(self) -> int:
        return len(self._ids)

    def fit(self, x: Array, *, seed: int = 0, progress: bool = False) -> Self:
        check_vectors(x, self.dim)
        if not bool(self.quantizer.fitted):
            rows = self.prepared(x, "x") if self.metric == "cosine" else x
            self.quantizer.fit(rows, seed=seed, progress=progress)
        return self

    def add(self, x: Array, ids: Array | None = None) -> Self:
        self.require_fitted("add")
        check_vectors(x, self.dim)
        n = int(x.shape[0])
        if ids is None:
            new_ids = np.arange(self._next_id, self._next_id + n, dtype=np.int64)
        else:
            new_ids = check_ids(ids, n)
            repeated = new_ids[np.isin(new_ids, self._ids)]
            if len(repeated) or len(np.unique(new_ids)) != n:
                raise ValueError(f"ids must be new and differ from one another; repeated: {repeated[:5].tolist()}")
        codes, norms = self._encode(x)
        self._codes, self._blocks = np.concatenate([self._codes, codes]), None
        self._norms = np.concatenate([self._norms, norms])
        self._ids = np.concatenate([self._ids, new_ids])
        self._next_id = max(self._next_id, int(new_ids.max(initial=-1)) + 1)
        return self

    def _encode(self, x: Array) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        n = int(x.shape[0])
        codes = np.empty((n, self.quantizer.M), dtype=self._codes.dtype)
        norms = np.empty(n if self.norm else 0, dtype=self._norms.dtype)
        view = self.quantizer.scan_view()
        for start, stop in chunks(n, self.dim):
            rows = self.prepared(x[start:stop], "x") if self.metric == "cosine" else rows_to_numpy(x, start, stop)
            if self.norm == "uint8":
                codes[start:stop], norms[start:stop] = self.quantizer.encode_with_norm(rows)
                continue
            codes[start:stop] = self.quantizer.encode(rows)
            if self.norm:
                norms[start:stop] = view.norms(codes[start:stop])
        return codes, norms

    def _norm_values(self) -> F32 | None:
        if self.norm == "uint8":
            return self.quantizer.scan_view().norm_byte.levels[self._norms]
        return self._norms if self.norm else None

    def search(self, queries: Array, k: int, *, filter: Array | None = None) -> tuple[Any, Any]:
        q, k = check_search(self, queries, k)
        allowed = check_filter(filter, self._ids)
        view = self.quantizer.scan_view()
        tables = view.tables(q, self.metric)
        if self.norm == "uint8":
            view.norm_byte.fold(tables.luts)
        distances, ids = self._scan(tables.luts, tables.bias, k, allowed)
        return like(distances, queries), like(ids, queries)

    def _scan(self, luts: F32, bias: F32, k: int, keep: npt.NDArray[np.bool_] | None) -> tuple[F32, I64]:
        if not self._scans_blocks():
            return kernels.scan(self._codes, luts, bias, k, norms=self._norm_values(), ids=self._ids, keep=keep)
        if self._blocks is None:
            self._blocks = kernels.pack_blocks(self._codes, self._norms if self.norm else None)
        levels = self.quantizer.scan_view().norm_byte.levels if self.norm else None
        return kernels.scan_blocks(self._blocks, luts, bias, k, norm_levels=levels, ids=self._ids, keep=keep)

    def _rows(self, ids: Array) -> I64:
        wanted = check_ids(ids, None)
        order = np.argsort(self._ids, kind="stable")
        at = np.searchsorted(self._ids, wanted, sorter=order)
        rows = order[np.minimum(at, max(0, len(order) - 1))] if len(order) else np.zeros(len(wanted), np.int64)
        missing = wanted[self._ids[rows] != wanted] if len(order) else wanted
        if len(missing):
            raise ValueError(f"ids must be stored in the index; not there: {missing[:5].tolist()}")
        return rows

    def remove(self, ids: Array) -> int:
        rows = np.unique(self._rows(ids))
        keep = np.ones(len(self._ids), dtype=np.bool_)
        keep[rows] = False
        self._codes, self._ids, self._blocks = self._codes[keep], self._ids[keep], None
        if self.norm:
            self._norms = self._norms[keep]
        return len(rows)

    def reconstruct(self, ids: Array) -> Any:
        self.require_fitted("reconstruct")
        return self.quantizer.decode(self._codes[self._rows(ids)])

    def _to_stored(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        packed = pack(self._codes, self.quantizer.bits_per_codebook)
        tensors = {"codes": packed, "norms": self._norms, "ids": self._ids}
        return {"n": len(self._ids), "next_id": self._next_id}, tensors

    @classmethod
    def _from_stored(cls, quantizer: Quantizer, config: dict[str, Any], tensors: dict[str, npt.NDArray[Any]]) -> Self:
        index = cls(quantizer, config["metric"], config["norm"])
        n = positive_int(config["n"], "n", low=0)
        bits = quantizer.bits_per_codebook
        expected = {
            "codes": (np.dtype(np.uint8), (packed_bytes(n, bits),)),
            "norms": (index._norms.dtype, (n if index.norm else 0,)),
            "ids": (np.dtype(np.int64), (n,)),
        }
        found = {name: (a.dtype, a.shape) for name, a in tensors.items()}
        if found != expected:
            raise ValueError(f"its tensors are {found}, expected {expected}")
        index._codes = unpack(tensors["codes"], n, bits, quantizer.code_dtype)
        index._norms, index._ids = tensors["norms"], check_ids(tensors["ids"], n)
        if len(np.unique(index._ids)) != n:
            raise ValueError("its ids repeat")
        index._next_id = positive_int(config["next_id"], "next_id", low=int(index._ids.max(initial=-1)) + 1)
        return index
