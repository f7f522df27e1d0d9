"""Conditional quantization, learned: additive codes with a network behind their sum."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, linear

from annvq.arrays import check_vectors, to_numpy
from annvq.kernels import squared_norms
from annvq.quantizers.conditional import CANDIDATES, SWEEPS, ConditionalCoder, Network
from annvq.quantizers.modules.additive import AdditiveVQ
from annvq.quantizers.modules.contract import Kept, Quantizer
from annvq.quantizers.modules.registry import register
from annvq.training.data import TrainingData
from annvq.training.estimators import Estimator
from annvq.training.learn.alternating import Alternation
from annvq.training.learn.errors import expected_error
from annvq.training.learn.least_squares import least_squares_entries
from annvq.training.learn.norms import bounded
from annvq.training.maps import Inside
from annvq.training.networks import LearnNetwork
from annvq.training.parts import Alternate
from annvq.training.recipe import Recipe
from annvq.types import F32, Array, Codes

TERM_ROWS = 1 << 16  # vectors that are enough for entries without the network and their norms
DECAY = 0.3  # of the network's weights, where they are learned
READ = 2048  # hidden units that tell how much error to expect: their squares are what it takes to learn that
SLOWER = 0.3  # of entries beside the network: they have been learned already


@register("conditional")
class ConditionalVQ(ConditionalCoder, Quantizer):
    """x̂ = s + U·relu(V·s + b), with s the sum of one entry of each of M codebooks.

    What an entry adds to a vector depends on the other entries of the code. Codes are those of :class:`AdditiveVQ` at
    first; the network learns to correct their sums, then codes are chosen for the network. It has less error for the
    same bits, and takes longer to encode and to decode. An index scans the codes without the network; re-ranked by
    ``"decoded"`` (:class:`~annvq.RerankIndex`), its results are ordered by distances to x̂.

    The idea is that of neural codes such as QINCo (Huijben et al., ICML 2024), with one small network for the whole
    sum, and codes found by local search rather than step by step.

    Args:
        dim: d.
        M: codebooks.
        nbits: bits per codebook, 1..16, or a sequence of M of them.
        hidden: hidden units of the network; default 4·d.
        rounds: iterations of local search for the code without the network, as of :class:`AdditiveVQ`.
        norm_free: norms that a scan under l2 needs are told by the code, roughly, and take no bits. Re-ranking makes up
            for that.
        recode: choose codes for the network. Without that they are those of :class:`AdditiveVQ`, which the network
            decodes with less error than a sum of entries has; see :meth:`behind`.
        estimator: how gradients pass in training mode; default NSVQ.
    """

    latent: AdditiveVQ
    view: AdditiveVQ
    shift: Tensor
    error_mean: Tensor
    error_weights: Tensor
    inward: nn.Parameter
    bias: nn.Parameter
    outward: nn.Parameter

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
        estimator: Estimator | None = None,
    ) -> None:
        nn.Module.__init__(self)
        super().__init__(dim, M, nbits, hidden=hidden, rounds=rounds, norm_free=norm_free, recode=recode)
        self._take_estimator(estimator)
        self._kept = Kept()
        self.reset_parameters()

    def _sums(self, **options: Any) -> Any:
        return AdditiveVQ(self.dim, self.M, list(self.bits_per_codebook), **options)

    def _declare_network(self) -> None:
        for name, shape in self._network_shapes().items():
            if name == "shift":
                self._declare(name, "float32", shape)
            else:
                setattr(self, name, nn.Parameter(torch.zeros(shape)))

    shapes, fill, _arrays = Quantizer.shapes, Quantizer.fill, Quantizer._arrays

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Random entries, and a network that corrects nothing yet."""
        if self.inward.is_meta:
            return
        self.latent.reset_parameters()
        self._reset_network()
        self.fitted.fill_(False)

    def _reset_network(self) -> None:
        self.inward.uniform_(-1, 1).mul_(self.dim**-0.5)
        self.bias.uniform_(-1, 1).mul_(self.dim**-0.5)
        self.outward.zero_()
        self._forget_errors()

    def _forget_errors(self) -> None:
        self.error_mean.zero_()
        self.error_weights.zero_()

    def mark_fitted(self) -> None:
        super().mark_fitted()
        self.latent.mark_fitted()

    # -- learning --------------------------------------------------------------------------------------------------

    def default_recipe(self) -> Recipe:
        """Additive codes, then the network and codes for it in turn."""
        inner = self.latent.default_recipe()
        return replace(inner, parts=(*(Inside(part) for part in inner.parts), LearnNetwork()))

    def quick_recipe(self) -> Recipe:
        """In half the time and less: fewer steps of what learns the additive codes, which are not refined then, and
        fewer vectors made of neighbours. On image descriptors it ends 3 % behind."""
        start = Alternate(Alternation(iterations=16))
        return replace(self.default_recipe(), parts=(Inside(start), LearnNetwork(added=1.0)))

    @classmethod
    def behind(
        cls,
        additive: AdditiveVQ,
        x: Array,
        *,
        hidden: int | None = None,
        part: LearnNetwork | None = None,
        seed: int = 0,
        progress: bool = False,
    ) -> "ConditionalVQ":
        """A fitted quantizer of the same codes as ``additive``, bit for bit, and with a network that decodes them
        better: an index of it, re-ranked by ``"decoded"``, finds more for no bits.

        Args:
            additive: fitted, with the default ``beam``.
            x: (n, d) learn vectors.
            hidden: hidden units of the network; default 4·d.
            part: how the network is learned; default ``LearnNetwork()``, without choosing codes.
            seed: of learning.
            progress: show progress bars.

        Raises:
            NotFittedError: ``additive`` is not fitted.
            TypeError, ValueError: it is no AdditiveVQ, or has another beam; x is not such an array.
        """
        if not isinstance(additive, AdditiveVQ):
            raise TypeError(f"additive must be an AdditiveVQ, got {type(additive).__name__}")
        additive.require_encodes("behind")
        q = cls(
            additive.dim,
            additive.M,
            list(additive.bits_per_codebook),
            hidden=hidden,
            rounds=additive.rounds,
            norm_free=additive.norm_free,
            recode=False,
        )
        if additive.beam != q.view.beam:
            raise ValueError(f"additive must have beam={q.view.beam}, got {additive.beam}")
        q.fit(x, seed=seed, recipe=Recipe((_Entries(additive), part or LearnNetwork())), progress=progress)
        q.view.load_state_dict(additive.state_dict())
        sample = q._sample(x, seed)
        q._learn_errors(sample, q.encode_rows(sample))
        return q

    def in_own_coordinates(self, x: F32) -> tuple[AdditiveVQ, F32]:
        """What holds the codebooks, and rows (n, d) as it sees them."""
        return self.latent, x

    def begin(self) -> None:
        """Forget network and view, and where vectors lie: what is left are the sums of entries."""
        with torch.no_grad():
            self._reset_network()
            self.shift.zero_()
        self.mark_fitted()
        self.view.set_codebooks(_split(self, self.latent.codebooks_copy()))
        self._put("view_of", self._network().checksum)

    def trained_parameters(self) -> list[nn.Parameter]:
        return [self.latent.weight, self.inward, self.bias, self.outward]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What learns, for :class:`torch.optim.AdamW`."""
        network = [self.inward, self.bias, self.outward]
        return [
            {"params": [self.latent.weight], "weight_decay": 0.0, "factor": SLOWER},
            {"params": network, "weight_decay": DECAY, "factor": 1.0},
        ]

    def plain_codes(self, x: F32) -> Codes:
        """Codes (n, M) of rows without the network."""
        return self._start(x)

    def refit_view(self, x: F32, codes: Codes) -> None:
        """Take the entries whose sums come nearest to rows (n, d) with these codes."""
        if self.recode:  # the view chooses the codes otherwise
            entries = least_squares_entries(x, codes, self.latent.codebooks_copy(), self.sizes)
            self.view.set_codebooks(_split(self, entries))
        self._put("view_of", self._network().checksum)

    @property
    def _view_follows(self) -> bool:
        """Whether the view was fitted to entries and network as they are."""
        fitted = bool(self.view.fitted)
        return fitted and (not self.recode or int(self._array("view_of")) == self._network().checksum)

    @torch.no_grad()
    def restore(self, mean: F32, scale: float) -> None:
        follows = self._view_follows
        self.latent.restore(np.zeros_like(mean), scale)
        self.inward.div_(scale)
        self.outward.mul_(scale)
        self.error_mean.mul_(scale**2)
        self.error_weights.mul_(scale**2)
        self.shift.copy_(torch.from_numpy(mean))
        if follows:
            self.view.restore(mean, scale)
            self._put("view_of", self._network().checksum)
        self.mark_fitted()

    def learn_terms(self, x: Array, *, seed: int = 0) -> None:
        sample = self._sample(x, seed)
        if not self._view_follows:
            moved = sample - self._array("shift")
            self.refit_view(moved, self.improved(moved, self.latent.plain_codes(moved)))
            self.view.restore(self._array("shift"), 1.0)
        if not self.recode:
            self.view.fit_norms(sample, seed=seed)
            self._learn_errors(sample, self.encode_rows(sample))
            return
        codes = self.encode_rows(sample)
        self.view.fit_norms(sample, seed=seed, codes=codes)
        self._learn_errors(sample, codes)

    def _sample(self, x: Array, seed: int) -> F32:
        x = check_vectors(x, self.dim, "x")
        rows = np.sort(np.random.default_rng(seed).permutation(int(x.shape[0]))[:TERM_ROWS])
        return to_numpy(x if len(rows) == int(x.shape[0]) else x[rows], self.dim)

    def _learn_errors(self, x: F32, codes: Codes) -> None:
        """Learn how much error to expect of codes, from those (n, M) of rows (n, d)."""
        self._forget_errors()
        network = self._network()
        hidden = network.coder.hidden_units(codes)[:, :READ]
        mean, weights = expected_error(hidden, bounded(squared_norms(x - self.decode_rows(codes))))
        self._put("error_mean", mean)
        with torch.no_grad():
            self.error_weights[: len(weights)] = torch.from_numpy(weights)

    # -- codes -----------------------------------------------------------------------------------------------------

    def _network(self) -> Network:
        parts = [np.ascontiguousarray(self._array(name)) for name in ("inward", "bias", "outward")]
        books, plain, kept = self.latent.books(), self._plain(), self._kept.value
        if kept is None or not kept.hold(books, plain, *parts):
            self._kept.value = kept = Network(books, plain, *(part.copy() for part in parts))
        network: Network = kept
        return network

    def decode_rows(self, codes: Codes) -> F32:
        return super().decode_rows(codes) if self._on_cpu else Quantizer.decode_rows(self, codes)

    def _start(self, x: F32) -> Codes:
        if not self._view_follows:
            return self.latent.plain_codes(x - self._array("shift"))
        return super()._start(x)

    def decoded(self, codes: Tensor) -> Tensor:
        """Vectors (n, d) of int64 codes (n, M) less the shift, differentiable; no validation."""
        first = torch.as_tensor(self.latent.offsets[:-1], device=codes.device)
        sums = embedding_bag(codes + first, self.latent.weight, mode="sum")
        return sums + linear(torch.relu(linear(sums, self.inward, self.bias)), self.outward)

    def _decode(self, codes: Tensor) -> Tensor:
        return self.decoded(codes) + self.shift

    @torch.no_grad()
    def _encode(self, x: Tensor) -> Tensor:
        if not self.recode:
            return self.view._encode(x)
        return self._swept(x - self.shift, self.latent._encode(x - self.shift))

    @torch.no_grad()
    def _traced_codes(self, rows: Tensor) -> Tensor:
        if not self.recode:
            return self.view._traced_codes(rows)
        return self._swept(rows - self.shift, self.latent._traced_codes(rows - self.shift))

    def _swept(self, x: Tensor, codes: Tensor) -> Tensor:
        """Codes (n, M) chosen anew as :meth:`NetworkCoder.sweep` does, among entries of the sum."""
        errors = (x - self.decoded(codes)).square().sum(1)
        for _ in range(SWEEPS):
            for m, book in enumerate(self.latent.codebooks):
                rest = x - self.decoded(codes) + book[codes[:, m]]
                near = book.square().sum(1) - 2 * rest @ book.T
                tried = near.topk(min(CANDIDATES, len(book)), dim=1, largest=False).indices
                for candidate in tried.unbind(1):
                    changed = torch.cat([codes[:, :m], candidate[:, None], codes[:, m + 1 :]], 1)
                    found = (x - self.decoded(changed)).square().sum(1)
                    codes = torch.where((found < errors)[:, None], changed, codes)
                    errors = torch.minimum(found, errors)
        return codes


@dataclass(frozen=True)
class _Entries:
    """A recipe part: the entries of a fitted quantizer, as prepared data have them."""

    additive: AdditiveVQ

    def __call__(self, quantizer: "ConditionalVQ", data: TrainingData) -> None:
        books = np.split(self.additive.codebooks_copy(), quantizer.latent.offsets[1:-1])
        books[0] = books[0] - data.mean
        quantizer.latent.set_codebooks([book / np.float32(data.scale) for book in books])
        quantizer.mark_fitted()


def _split(quantizer: ConditionalVQ, entries: F32) -> list[F32]:
    return np.split(entries, quantizer.latent.offsets[1:-1])
