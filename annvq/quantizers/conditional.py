"""Conditional codes: additive codes whose entries mean different things in different company.

A sum of entries is only a first guess of the vector. A small network knows what vectors with such sums look like, and
corrects it; so what an entry adds to a vector depends on the other entries of its code.
"""

from collections.abc import Sequence
from typing import Any
from zlib import crc32

import numpy as np

from annvq.arrays import chunks, positive_int
from annvq.codebooks import Codebooks, RowProducts
from annvq.complexity import OperationCounts, linear_map, network_search
from annvq.forks import made_once
from annvq.kernels import squared_norms
from annvq.norms import Length, NormTerm
from annvq.quantizers.additive import AdditiveCoder
from annvq.quantizers.nested import Nested
from annvq.types import F32, I64, Codes

SWEEPS = 1  # over the codebooks, each entry chosen anew by what the network makes of it
CANDIDATES = 4  # entries of a codebook that a sweep tries, those nearest without the network
AIMS = 1  # searches for the sum that the network makes the vector of, before the sweeps
_CHUNK_FLOATS = 1 << 20  # of hidden units at a time


class ConditionalCoder(Nested):
    """x̂ = s + U·relu(V·s + b), with s the sum of one entry of each codebook: see :class:`~annvq.ConditionalVQ`."""

    kind = "conditional"
    part_names = ("latent", "view")

    latent: Any  # additive: the entries whose sum is s, about `shift`
    view: Any  # additive: entries whose sum comes nearest to x̂ without the network
    view_of: Any  # checksum of the entries and the network that the view was fitted to
    shift: Any  # (d,): where vectors lie
    inward: Any  # V (hidden, d)
    bias: Any  # b (hidden,)
    outward: Any  # U (d, hidden)
    error_mean: Any  # of ‖x − x̂‖², zero before it is learned
    error_weights: Any  # (hidden,): what a hidden unit adds to it

    def __init__(
        self,
        dim: int,
        M: int,
        nbits: int | Sequence[int] = 8,
        *,
        hidden: int | None = None,
        rounds: int = 64,
        norm_free: bool = False,
    ) -> None:
        super().__init__(dim, M, nbits)
        self.hidden = positive_int(4 * self.dim if hidden is None else hidden, "hidden", high=1 << 16)
        self.latent = self._sums(rounds=rounds)
        self.view = self._sums(rounds=rounds, norm_free=norm_free)
        self.needs_norm = self.view.needs_norm
        self._declare("view_of", "int64", ())
        self._declare("error_mean", "float32", ())
        self._declare("error_weights", "float32", (self.hidden,))
        self._declare_network()

    def _sums(self, **options: Any) -> Any:
        """Additive codes of as many codebooks."""
        return AdditiveCoder(self.dim, self.M, list(self.bits_per_codebook), **options)

    def _declare_network(self) -> None:
        for name, shape in self._network_shapes().items():
            self._declare(name, "float32", shape)

    def _network_shapes(self) -> dict[str, tuple[int, ...]]:
        d, h = self.dim, self.hidden
        return {"shift": (d,), "inward": (h, d), "bias": (h,), "outward": (d, h)}

    # -- facts -----------------------------------------------------------------------------------------------------

    @property
    def norm_free(self) -> bool:
        """Whether the norms that a scan needs follow from the codes, so that an index stores none."""
        free: bool = self.view.norm_free
        return free

    @property
    def config(self) -> dict[str, Any]:
        own = {"norm_free": True} if self.norm_free else {}
        return {**super().config, "hidden": self.hidden, "rounds": self.view.rounds, **own}

    def costs(self) -> OperationCounts:
        tried = [min(CANDIDATES, size) for size in self.sizes]
        search = network_search(dim=self.dim, hidden=self.hidden, sizes=self.sizes, tried=tried, sweeps=SWEEPS)
        aims: OperationCounts = (
            self.latent.costs() + linear_map(self.dim, self.hidden) + linear_map(self.hidden, self.dim)
        )
        start: OperationCounts = self.view.costs()
        return start + AIMS * aims + search

    def scan_view(self) -> Any:
        return self.view

    # -- codes -----------------------------------------------------------------------------------------------------

    def _network(self) -> "Network":
        """Entries and network as they are now."""
        return self._made_network

    @made_once
    def _made_network(self) -> "Network":
        return Network(self.latent.books(), self._plain(), self.inward, self.bias, self.outward)

    def decode_with_errors(self, codes: Codes) -> tuple[F32, F32 | None]:
        mean = float(self._array("error_mean"))
        if not mean or not self._on_cpu:
            return self.decode_rows(codes), None
        xhat, told = self._network().decode_and_read(codes, self._array("error_weights"))
        return xhat + self._array("shift"), np.maximum(told + np.float32(mean), 0)

    def _plain(self) -> Codebooks:
        """Entries whose sums come near without the network."""
        books: Codebooks = (self.view if bool(self.view.fitted) else self.latent).books()
        return books

    def decode_rows(self, codes: Codes) -> F32:
        return self._network().decode(codes) + self._array("shift")

    def _encode_rows(self, x: F32, term: NormTerm | None, centres: F32 | None) -> Codes:
        if not self._on_cpu:
            return self._encode_in_torch(x)
        start, moved = self._start(x), x - self._array("shift")
        return self.improved(moved, start)

    def _start(self, x: F32) -> Codes:
        """Codes (n, M) of rows without the network."""
        codes: Codes = self.view.plain_codes(x)
        return codes

    def improved(self, x: F32, codes: Codes) -> Codes:
        """Codes (n, M) of rows (n, d) less :attr:`shift`, at least as near as those given."""
        network, found = self._network(), codes.copy()
        for start, stop in chunks(len(x), self.hidden * CANDIDATES, chunk_bytes=4 * _CHUNK_FLOATS):
            part, own = x[start:stop], found[start:stop]
            for seed in range(1, AIMS + 1):  # (0 is that of the start)
                network.aim(part, own, self.latent, seed)
            network.sweep(part, own, SWEEPS)
        return found

    def _codes_of_length(self, x: F32, length: Length, centres: F32 | None) -> Codes:
        """The codes themselves: the network makes of a sum what it will, so lengths are left as they come."""
        return self._encode_rows(x, None, centres)


class Network:
    """Entries and the network behind them, as they were at one time, and what is made of them once.

    Args:
        entries: codebooks whose entries are added to s.
        plain: codebooks whose sums come near to vectors without the network, wherever these lie.
        inward, bias, outward: V (hidden, d), b (hidden,), U (d, hidden).
    """

    def __init__(self, entries: Codebooks, plain: Codebooks, inward: F32, bias: F32, outward: F32) -> None:
        self.entries, self.plain, self.bias = entries, plain, np.ascontiguousarray(bias, np.float32)
        self._inward, self._outward = RowProducts(inward), RowProducts(outward)

    def hold(self, entries: Codebooks, plain: Codebooks, inward: F32, bias: F32, outward: F32) -> bool:
        """Whether they are still what they were, bit for bit."""
        same = entries is self.entries and plain is self.plain and np.array_equal(bias, self.bias)
        return same and self._inward.holds(inward) and self._outward.holds(outward)

    @made_once
    def checksum(self) -> int:
        """The same for the same entries and network."""
        value = 0
        for array in (self.entries.entries, self._inward.rows, self.bias, self._outward.rows):
            value = crc32(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data, value)
        return value

    @made_once
    def hidden_entries(self) -> F32:
        """(ΣK, hidden): what each entry adds to the hidden units."""
        return self._inward(self.entries.entries)

    @made_once
    def _books(self) -> list[tuple[F32, RowProducts, F32]]:
        """Of each codebook: its plain entries about their mean, products with them, and their squared lengths."""
        books = self.plain.centred.split()
        return [(book, RowProducts(book), squared_norms(book)) for book in books]

    def hidden_units(self, sums: F32) -> F32:
        """relu(V·s + b) of sums (n, d), (n, hidden)."""
        hidden = self._inward(sums)
        hidden += self.bias
        return np.maximum(hidden, 0, out=hidden)

    def correction(self, sums: F32) -> F32:
        """U·relu(V·s + b) of sums (n, d)."""
        return self._outward(self.hidden_units(sums))

    def decode(self, codes: Codes) -> F32:
        """Vectors (n, d) of codes (n, M), less the shift."""
        return self.decode_and_read(codes, np.zeros(len(self.bias), np.float32))[0]

    def decode_and_read(self, codes: Codes, weights: F32) -> tuple[F32, F32]:
        """Vectors (n, d) of codes (n, M), less the shift, and sums of their hidden units by ``weights``, (n,)."""
        out, told = np.empty((len(codes), self.entries.dim), np.float32), np.empty(len(codes), np.float32)
        for start, stop in chunks(len(codes), len(self.bias), chunk_bytes=4 * _CHUNK_FLOATS):
            sums = self.entries.decode(codes[start:stop])
            hidden = self.hidden_units(sums)
            out[start:stop] = sums + self._outward(hidden)
            told[start:stop] = np.einsum("nh,h->n", hidden, weights)
        return out, told

    def aim(self, x: F32, codes: Codes, latent: AdditiveCoder, seed: int) -> None:
        """Search for the sum that the network would make x (n, d) of, if its correction stayed what it is now; codes
        (n, M) that come nearer replace those given."""
        correction = self.correction(self.entries.decode(codes))
        found = latent.searched_from(self.entries, x - correction, codes, seed)
        changed = np.flatnonzero((found != codes).any(axis=1))
        errors = [squared_norms(x[changed] - self.decode(tried[changed])) for tried in (codes, found)]
        nearer = changed[errors[1] < errors[0]]
        codes[nearer] = found[nearer]

    def sweep(self, x: F32, codes: Codes, sweeps: int) -> None:
        """Choose each code anew among the entries that are nearest without the network, by what the network makes of
        them; codes (n, M) that come nearer to x (n, d) replace those given."""
        sums = self.entries.decode(codes)
        rest = x - sums - self.correction(sums)
        errors = squared_norms(rest)
        left = np.arange(len(x))
        for _ in range(sweeps):
            before = codes[left].copy()
            for m in range(codes.shape[1]):
                self._choose(m, left, x, codes, rest, errors)
            left = left[(codes[left] != before).any(axis=1)]
            if not len(left):
                return

    def _choose(self, m: int, rows: I64, x: F32, codes: Codes, rest: F32, errors: F32) -> None:
        """Choose codes of codebook ``m`` anew for some rows; ``rest`` is x − x̂ and ``errors`` its squared length."""
        first, at = self.entries.offsets[m], np.arange(len(rows))
        count = min(CANDIDATES, self.entries.sizes[m] - 1)
        if not count:
            return
        (book, products, norms), now = self._books[m], codes[rows, m].astype(np.int64)
        scores = norms - 2 * products(rest[rows] + book[now])
        scores[at, now] = np.inf  # it is known what the present one gives
        tried = np.sort(np.argpartition(scores, count - 1, axis=1)[:, :count], axis=1)
        others = self.entries.decode(codes[rows]) - self.entries.entries[first + now]
        sums = others[:, None] + self.entries.entries[first + tried]
        hidden = (self._inward(others) + self.bias)[:, None] + self.hidden_entries[first + tried]
        np.maximum(hidden, 0, out=hidden)
        made = self._outward(hidden.reshape(len(rows) * count, -1)).reshape(sums.shape)
        made += sums
        np.subtract(x[rows][:, None], made, out=made)
        found = squared_norms(made.reshape(-1, made.shape[2])).reshape(len(rows), count)
        best = found.argmin(axis=1)
        nearer = np.flatnonzero(found[at, best] < errors[rows])
        changed, best = rows[nearer], best[nearer]
        codes[changed, m] = tried[nearer, best]
        errors[changed], rest[changed] = found[nearer, best], made[nearer, best]
