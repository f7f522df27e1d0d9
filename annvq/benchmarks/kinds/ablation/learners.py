"""Learning for a given time by different means, for comparing them at equal cost.

Time is the processor's (``process_time``): what else the machine does takes none of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from time import process_time

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.optim import Adam

from annvq.quantizers import TableQuantizer
from annvq.training.estimators import Estimator
from annvq.training.learn.least_squares import indicator, least_squares_entries, revive_unused
from annvq.training.replacement import Replacement
from annvq.training.trainer import warm_cosine
from annvq.types import F32

_MAPS_RATE = 2e-3


class Model(nn.Module):
    """A quantizer, or one between two linear maps: x̂ = D · quantize(E · x), at first with E = D = 1."""

    def __init__(self, quantizer: TableQuantizer, *, maps: bool) -> None:
        super().__init__()
        self.quantizer = quantizer
        unit = torch.eye(quantizer.dim) if maps else None
        self.into = None if unit is None else nn.Parameter(unit.clone())
        self.back = None if unit is None else nn.Parameter(unit.clone())

    def forward(self, x: Tensor) -> Tensor:
        """What training sees: the estimator's output, mapped back."""
        inner = x if self.into is None else x @ self.into.T
        out: Tensor = self.quantizer(inner).xhat
        return out if self.back is None else out @ self.back.T

    @torch.no_grad()
    def codes(self, x: F32) -> npt.NDArray[np.int64]:
        """Codes (n, M) of vectors."""
        inner = x if self.into is None else x @ self.into.numpy().T
        return self.quantizer.encode(np.ascontiguousarray(inner)).astype(np.int64)

    @torch.no_grad()
    def decode(self, codes: npt.NDArray[np.int64]) -> F32:
        """Vectors (n, d) of codes."""
        out: F32 = self.quantizer.decode(codes)
        return out if self.back is None else out @ self.back.numpy().T


def _size(parameter: Tensor) -> float:
    return float(parameter.detach().square().mean().sqrt())


@dataclass(frozen=True)
class Gradient:
    """Adam on ‖x − x̂‖² through an estimator, by a schedule over the time there is.

    Args:
        estimator: how the gradient passes the quantizer.
        learning_rate: step size for entries, relative to their root mean square.
        batch_size: vectors of a batch.
        replacement: of entries that fall out of use, or None.
    """

    estimator: Estimator
    learning_rate: float = 2e-3
    batch_size: int = 1024
    replacement: Replacement | None = None

    def __call__(self, model: Model, x: F32, seconds: float, seed: int) -> int:
        """Train ``model`` on ``x`` for ``seconds``. Returns the steps made."""
        quantizer, generator = model.quantizer, torch.Generator().manual_seed(seed)
        rows = torch.from_numpy(x)
        rates = {quantizer.weight: self.learning_rate}
        groups = [{"params": [p], "base": rates.get(p, _MAPS_RATE) * _size(p)} for p in model.parameters()]
        optimizer = Adam(groups, lr=0.0)
        used = torch.zeros(len(quantizer.weight), dtype=torch.int64)
        before, start, steps = quantizer.estimator, process_time(), 0
        quantizer.estimator = self.estimator
        model.train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            while (spent := (process_time() - start) / seconds) < 1:
                batch = rows[torch.randint(len(rows), (self.batch_size,), generator=generator)]
                for group in optimizer.param_groups:
                    group["lr"] = group["base"] * warm_cosine(spent)
                loss = (model(batch) - batch).square().sum(1).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                steps += 1
                self._replace(model, batch, optimizer, used, steps, spent, generator)
        quantizer.estimator = before
        model.eval()
        return steps

    def _replace(
        self,
        model: Model,
        batch: Tensor,
        optimizer: Adam,
        used: Tensor,
        steps: int,
        spent: float,
        generator: torch.Generator,
    ) -> None:
        quantizer = model.quantizer
        if self.replacement is None:
            return
        flat = torch.from_numpy(model.codes(batch.numpy()) + np.asarray(quantizer.offsets[:-1])).reshape(-1)
        used += torch.bincount(flat, minlength=len(used)) > 0
        # Time stands for steps here: replacement ends with the same share of it left.
        if steps % self.replacement.period == 0 and spent <= self.replacement.stop:
            moments = [t for t in optimizer.state[quantizer.weight].values() if t.shape == quantizer.weight.shape]
            self.replacement(quantizer, used, generator, moments)
            used.zero_()


@dataclass(frozen=True)
class Alternation:
    """Encode everything, refit everything in closed form, again: k-means (Lloyd) for product codes, least squares for
    sums of entries. Maps become the orthogonal one that fits best (Procrustes), as in OPQ. Unused entries are put
    where they help."""

    def __call__(self, model: Model, x: F32, seconds: float, seed: int) -> int:
        """Train ``model`` on ``x`` for ``seconds``. Returns the rounds made."""
        model.eval()
        rng, start, rounds = np.random.default_rng(seed), process_time(), 0
        while process_time() - start < seconds:
            codes = model.codes(x)
            inner = x if model.into is None else np.ascontiguousarray(x @ model.into.detach().numpy().T)
            refit = _refit_sums if model.quantizer.needs_norm else _refit_products
            refit(model.quantizer, inner, codes, rng)
            if model.into is not None and model.back is not None:
                u, _, vt = np.linalg.svd(model.quantizer.decode(codes).T @ x)
                with torch.no_grad():
                    model.into.copy_(torch.from_numpy(u @ vt))
                    model.back.copy_(model.into.T)
            rounds += 1
        return rounds


def _refit_sums(q: TableQuantizer, x: F32, codes: npt.NDArray[np.int64], rng: np.random.Generator) -> None:
    entries = least_squares_entries(x, codes, q.codebooks_copy(), q.sizes)
    entries, _ = revive_unused(x, codes, entries, q.sizes, rng)
    q.set_codebooks(np.split(entries, q.offsets[1:-1]))


def _refit_products(q: TableQuantizer, x: F32, codes: npt.NDArray[np.int64], rng: np.random.Generator) -> None:
    books = []
    for m, (start, width) in enumerate(zip(q.starts, q.widths, strict=True)):
        part = x[:, start : start + width]
        members = indicator(codes[:, m : m + 1], q.sizes[m : m + 1])
        counts = np.asarray(members.sum(axis=0)).ravel()
        means = (members.T @ part) / np.maximum(counts, 1)[:, None]
        unused = np.flatnonzero(counts == 0)
        means[unused] = part[rng.integers(len(part), size=len(unused))]
        books.append(means.astype(np.float32))
    q.set_codebooks(books)


Learner = Callable[[Model, F32, float, int], int]
"""``learner(model, x, seconds, seed) -> steps``."""
