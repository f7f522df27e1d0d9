"""What residual and additive quantizers share: how their codes are learned, and found in PyTorch."""

from abc import abstractmethod
from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor
from torch.nn.functional import embedding

from annvq.quantizers.modules.codebooks import TableQuantizer
from annvq.quantizers.sums import SumCoder
from annvq.training.learn.alternating import Alternation
from annvq.training.parts import BestOf, ByGrading, KMeans, LearnNormFree
from annvq.training.recipe import Part, Recipe
from annvq.types import Self

WORKSPACE_BYTES = 1 << 27

FLAT = 3.0
"""Where residual codebooks of a sample are graded less than this from coarse to fine, as on SIFT descriptors (2.3 at
8x8 bits; patches have 82), no direction stands out."""

WARM = Alternation(iterations=12, rounds=2, temperature=0.4)
"""From residual codebooks, which it must not undo: few steps, little noise."""


def residual_start(sizes: Sequence[int]) -> Part:
    """Residual k-means: on ever more principal components where no directions stand out. Where some do (image patches,
    flat or not), that has 1 % less error and a tenth less recall, as entries go to the few vectors that are far out.
    Small codebooks, which learn from few residuals of each vector, may miss those altogether: more are tried."""
    usual = ByGrading(flat=(KMeans(10, progressive=True),), graded=(KMeans(10),), limit=FLAT)
    return usual if min(sizes) >= 256 else BestOf((usual, KMeans(10, kept=5, progressive=True)), lead=0.1)


class SumQuantizer(SumCoder, TableQuantizer):
    """A quantizer of sums of entries: see :class:`~annvq.quantizers.sums.SumCoder`."""

    def with_norm(self) -> Self:
        """A twin whose codes need their norm stored: unfitted, it does not get these codebooks."""
        config = {name: value for name, value in self.config.items() if name != "norm_free"}
        twin = type(self)(**config)
        twin._take_estimator(self.estimator)
        return twin

    # -- learning --------------------------------------------------------------------------------------------------

    def default_recipe(self) -> Recipe:
        """:meth:`norm_recipe`; codebooks of norm-free codes are learned so first, then together with their offsets."""
        if self.norm_free:
            return Recipe((LearnNormFree(self.with_norm().norm_recipe().parts),))
        return self.norm_recipe()

    @abstractmethod
    def norm_recipe(self) -> Recipe:
        """How codebooks of codes whose norm is stored are learned."""

    # -- codes in PyTorch ------------------------------------------------------------------------------------------

    def _encode(self, x: Tensor) -> Tensor:
        # Codebooks are centred first: a partial sum then stands for what it will become with average entries from
        # the codebooks still to come, and cancellation stays small for data far from the origin.
        centres = self._own_widths(torch.from_numpy(self.books().centres).to(x.device))
        step = max(1, WORKSPACE_BYTES // self._workspace_per_row())
        if not len(x):
            return torch.empty(0, self.M, dtype=torch.int64, device=x.device)
        return torch.cat([self._searched(part, centres) for part in torch.split(x, step)])

    def _own_widths(self, rows: Tensor) -> list[Tensor]:
        """Rows (M, width) as M of as many dimensions as each codebook has."""
        return [row[:width] for row, width in zip(rows, self.widths, strict=True)]

    def _searched(self, x: Tensor, centres: Sequence[Tensor]) -> Tensor:
        """Codes (n, M) int64 of a chunk of rows (n, d), codebooks taken less their centres, M of (w_m,)."""
        codes = []
        for group in self._groups:
            books = [self.codebooks[m].detach() - centres[m] for m in group]
            first, last = self.starts[group[0]], self.starts[group[0]] + self.widths[group[0]]
            offsets = tuple(self.offsets[m] - self.offsets[group[0]] for m in (*group, group[-1] + 1))
            rows = x[:, first:last] - torch.stack([centres[m] for m in group]).sum(0)
            codes.append(self._search(rows, torch.cat(books), offsets))
        return torch.cat(codes, 1)

    @property
    def _groups(self) -> list[list[int]]:
        """Numbers of the codebooks that share their dimensions, group after group."""
        return [list(group) for _, group in groupby(range(self.M), key=self.starts.__getitem__)]

    def _traced_codes(self, rows: Tensor) -> Tensor:
        if self.norm_free:
            raise NotImplementedError("norm-free codes are chosen by a search that cannot be exported or compiled")
        return self._searched(rows, [book.detach().mean(0) for book in self.codebooks])

    @abstractmethod
    def _search(self, x: Tensor, weight: Tensor, offsets: tuple[int, ...]) -> Tensor:
        """Codes (n, m) int64 of a chunk of rows, by m codebooks that share their dimensions and begin at ``offsets``
        (m + 1,) of ``weight``."""

    @abstractmethod
    def _workspace_per_row(self) -> int:
        """Bytes of temporary memory that ``_search`` takes per row."""

    def _decode(self, codes: Tensor) -> Tensor:
        books, parts = self.codebooks, []
        for group in self._groups:
            total = embedding(codes[:, group[0]], books[group[0]])
            for m in group[1:]:
                total = total + embedding(codes[:, m], books[m])
            parts.append(total)
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)
