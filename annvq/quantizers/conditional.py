"""Conditional codes: additive codes whose entries mean different things in different company.

A sum of entries is only a first guess of the vector. A small network knows what vectors with such sums look like, and
corrects it; so what an entry adds to a vector depends on the other entries of its code.
"""

from collections.abc import Sequence
from typing import Any
from zlib import crc32

import numpy as np

from annvq.arrays import chunks, positive_int
from annvq.codebooks import Codebooks
from annvq.complexity import OperationCounts, linear_map, network_search
from annvq.forks import made_once
from annvq.kernels import squared_norms
from annvq.kernels.network import NetworkCoder
from annvq.norms import Length, NormTerm
from annvq.quantizers.additive import AdditiveCoder
from annvq.quantizers.nested import Nested
from annvq.types import F32, Codes

SWEEPS = 1  # over the codebooks, each entry chosen anew by what the network makes of it
CANDIDATES = 4  # entries of a codebook that a sweep tries, those nearest without the network
AIMS = 5  # searches for the sum of which the network makes the vector, before the sweeps
REACH = 0.7  # of these: below one, as the sum that is found lies short of what is sought


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
        recode: bool = True,
    ) -> None:
        super().__init__(dim, M, nbits)
        if not isinstance(recode, bool):
            raise TypeError(f"recode must be True or False, got {recode!r}")
        self.recode = recode
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
        own = {name: value for name, value, usual in self._options() if value != usual}
        return {**super().config, "hidden": self.hidden, "rounds": self.view.rounds, **own}

    def _options(self) -> list[tuple[str, bool, bool]]:
        """Names, values and usual values of what files name only where it is not as usual."""
        return [("norm_free", self.norm_free, False), ("recode", self.recode, True)]

    def costs(self) -> OperationCounts:
        start: OperationCounts = self.view.costs()
        if not self.recode:
            return start
        tried = [min(CANDIDATES, size) for size in self.sizes]
        search = network_search(dim=self.dim, hidden=self.hidden, sizes=self.sizes, tried=tried, sweeps=SWEEPS)
        there, back = linear_map(self.dim, self.hidden), linear_map(self.hidden, self.dim)
        # Decoded before and after, the error's gradient, and what the network makes of that.
        aim: OperationCounts = self.latent.costs() + 2 * back + 2 * (there + back)
        return start + AIMS * aim + search

    def scan_view(self) -> Any:
        return self.view

    # -- codes -----------------------------------------------------------------------------------------------------

    def require_encodes(self, what: str) -> None:
        super().require_encodes(what)
        if not self.recode:
            self.view.require_encodes(what)

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
        xhat, told = self._network().coder.decode_and_read(codes, self._array("error_weights"))
        return xhat + self._array("shift"), np.maximum(told + np.float32(mean), 0)

    def _plain(self) -> Codebooks:
        """Entries whose sums come near without the network."""
        books: Codebooks = (self.view if bool(self.view.fitted) else self.latent).books()
        return books

    def decode_rows(self, codes: Codes) -> F32:
        return self._network().coder.decode(codes) + self._array("shift")

    def _encode_rows(self, x: F32, term: NormTerm | None, centres: F32 | None) -> Codes:
        if not self.recode:
            codes: Codes = self.view._encode_rows(x, term, centres)
            return codes
        if not self._on_cpu:
            return self._encode_in_torch(x)
        start, moved = self._start(x), x - self._array("shift")
        return self.improved(moved, start, AIMS)

    def _start(self, x: F32) -> Codes:
        """Codes (n, M) of rows without the network."""
        codes: Codes = self.view.plain_codes(x)
        return codes

    def improved(self, x: F32, codes: Codes, aims: int = 1) -> Codes:
        """Codes (n, M) of rows (n, d) less :attr:`shift`, at least as near as those given, after so many searches for a
        sum; one is enough to learn from."""
        if not self.recode:
            return codes
        network, found = self._network(), codes.copy()
        for start, stop in chunks(len(x), self.dim):
            for seed in range(1, aims + 1):  # (0 is that of the start)
                network.aim(x[start:stop], found[start:stop], self.latent, seed)
        return network.coder.sweep(x, found, candidates=CANDIDATES, sweeps=SWEEPS)

    def _codes_of_length(self, x: F32, length: Length, centres: F32 | None) -> Codes:
        """The codes themselves: the network makes of a sum what it will, so lengths are left as they come."""
        if not self.recode:
            codes: Codes = self.view._codes_of_length(x, length, centres)
            return codes
        return self._encode_rows(x, None, centres)


class Network:
    """Entries and the network behind them, as they were at one time, and what is made of them once.

    Args:
        entries: codebooks whose entries are added to s.
        plain: codebooks whose sums come near to vectors without the network, wherever these lie.
        inward, bias, outward: V (hidden, d), b (hidden,), U (d, hidden).
    """

    def __init__(self, entries: Codebooks, plain: Codebooks, inward: F32, bias: F32, outward: F32) -> None:
        self.entries, self.plain = entries, plain
        self._weights = tuple(np.ascontiguousarray(part, np.float32) for part in (inward, bias, outward))

    def hold(self, entries: Codebooks, plain: Codebooks, *weights: F32) -> bool:
        """Whether they are still what they were, bit for bit."""
        same = entries is self.entries and plain is self.plain
        return same and all(map(_same_bits, weights, self._weights))

    @made_once
    def checksum(self) -> int:
        """The same for the same entries and network."""
        value = 0
        for array in (self.entries.entries, *self._weights):
            value = crc32(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data, value)
        return value

    @made_once
    def coder(self) -> NetworkCoder:
        """What decodes and chooses codes."""
        plain = self.plain.centred.entries
        return NetworkCoder(self.entries.entries, plain, self.entries.sizes, *self._weights)

    def aim(self, x: F32, codes: Codes, latent: AdditiveCoder, seed: int) -> None:
        """Search for a sum of which the network would make something nearer to x (n, d), by what it does near the
        present one; codes (n, M) that come nearer replace those given."""
        wanted, errors = self.coder.aim(x, codes, REACH)
        found = latent.searched_from(self.entries, wanted, codes, seed)
        nearer = squared_norms(x - self.coder.decode(found)) < errors
        codes[nearer] = found[nearer]


def _same_bits(a: F32, b: F32) -> bool:
    return a.shape == b.shape and np.array_equal(a.view(np.uint32), b.view(np.uint32))
