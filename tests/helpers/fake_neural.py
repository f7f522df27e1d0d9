"""A small quantizer without additive tables, as neural ones are, for tests: x̂ = shift + scale · (s + V tanh(s)), with s
the sum of one entry of each codebook."""

import numpy as np
import torch
from torch import nn

from annvq.complexity import OperationCounts
from annvq.quantizers import AdditiveVQ, Quantizer, register
from annvq.training import KMeans, Recipe, Trainer, TrainerPart
from annvq.training.learn.least_squares import least_squares_entries


def start(quantizer, data):
    """Entries by residual k-means, no network yet."""
    books = AdditiveVQ(quantizer.dim, quantizer.M, list(quantizer.bits_per_codebook))
    KMeans(4)(books, data)
    with torch.no_grad():
        quantizer.entries.copy_(books.weight)
        quantizer.mix.zero_()
        quantizer.shift.zero_()
        quantizer.scale.fill_(1)
    quantizer.mark_fitted()


@register("fake-neural")
class FakeNeural(Quantizer):
    def __init__(self, dim, M, nbits=8, *, estimator=None):
        super().__init__(dim, M, nbits, estimator)
        self.first = np.concatenate([[0], np.cumsum(self.sizes)])
        self.entries = nn.Parameter(torch.randn(int(self.first[-1]), dim))
        self.mix = nn.Parameter(torch.zeros(dim, dim))
        self.register_buffer("shift", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(()))
        self.decoder = AdditiveVQ(dim, M, nbits, rounds=0)

    def costs(self):
        return OperationCounts(multiplications=sum(self.sizes) * self.dim**2)

    def default_recipe(self):
        return Recipe((start, TrainerPart(Trainer(steps=20, batch_size=256, validate_every=10))))

    def trained_parameters(self):
        return [self.entries, self.mix]

    @torch.no_grad()
    def restore(self, mean, scale):
        self.shift.copy_(torch.from_numpy(mean))
        self.scale.fill_(scale)

    def learn_terms(self, x, *, seed=0):
        codes = self.encode(x)
        none = np.zeros((int(self.first[-1]), self.dim), np.float32)
        rows = np.asarray(x, np.float32)
        centre = rows.mean(0)
        entries = least_squares_entries(rows - centre, codes, none, self.sizes)
        entries[: self.sizes[0]] += centre
        self.decoder.set_codebooks(np.split(entries, self.first[1:-1]))
        self.decoder.fit_norms(x, seed=seed, codes=codes)

    def scan_view(self):
        return self.decoder

    def _sum(self, codes):
        return sum(nn.functional.embedding(codes[:, m], self.entries[a:]) for m, a in enumerate(self.first[:-1]))

    def _made(self, total):
        return self.shift + self.scale * (total + torch.tanh(total) @ self.mix)

    def _decode(self, codes):
        return self._made(self._sum(codes))

    def _encode(self, x):
        codes = torch.zeros(len(x), self.M, dtype=torch.int64)
        for _ in range(2):
            for m, (a, size) in enumerate(zip(self.first[:-1], self.sizes, strict=True)):
                rest = self._sum(codes) - self.entries[a + codes[:, m]]
                made = self._made(rest[:, None] + self.entries[None, a : a + size])
                codes[:, m] = (x[:, None] - made).square().sum(2).argmin(1)
        return codes
