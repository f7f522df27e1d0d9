"""Conditional codes in plain float64: what the native network coder must equal up to rounding."""

import numpy as np


class NetworkReference:
    """The arguments of :class:`annvq.kernels.network.NetworkCoder`, in float64."""

    def __init__(self, entries, plain, sizes, inward, bias, outward):
        arrays = (np.asarray(a, np.float64) for a in (entries, plain, inward, bias, outward))
        self.entries, self.plain, self.inward, self.bias, self.outward = arrays
        self.first = np.concatenate([[0], np.cumsum(sizes)])

    def hidden_units(self, codes):
        return np.maximum(self._sums(codes) @ self.inward.T + self.bias, 0)

    def decode(self, codes):
        return self._sums(codes) + self.hidden_units(codes) @ self.outward.T

    def errors(self, x, codes):
        return np.square(x - self.decode(codes)).sum(1)

    def aim(self, x, codes, reach):
        """Sums a step along the gradient of half the squared error away, the derivative written out for each row."""
        sums, out = self._sums(codes), []
        for s, r in zip(sums, x - self.decode(codes), strict=True):
            on = self.inward @ s + self.bias > 0
            slope = np.eye(len(s)) + self.outward[:, on] @ self.inward[on]
            g = slope.T @ r
            out.append(s + g * (g @ g) / (reach * np.square(slope @ g).sum()))
        return np.array(out)

    def sweep(self, x, codes, candidates, sweeps):
        """Codes, and of each row whether rounding could not have led elsewhere: no two candidates were about equal."""
        codes, clear = codes.astype(np.int64), np.ones(len(x), bool)
        for _ in range(sweeps):
            for m, (start, stop) in enumerate(zip(self.first, self.first[1:], strict=False)):
                for row in range(len(x)):
                    clear[row] &= self._choose(x[row], codes[row], m, self.plain[start:stop], candidates)
        return codes, clear

    def _choose(self, x, code, m, book, candidates):
        rest = x - self.decode(code[None])[0] + book[code[m]]
        distances = np.square(rest - book).sum(1)
        distances[code[m]] = np.inf
        order = np.argsort(distances, kind="stable")[: len(book) - 1]
        tried, left = order[:candidates], order[candidates:]
        changed = np.tile(code, (1 + len(tried), 1))
        changed[1:, m] = tried
        found = self.errors(x, changed)
        clear = not len(left) or distances[left[0]] - distances[tried[-1]] > 1e-5 * distances[left[0]]
        if len(found) > 1:
            least = np.sort(found)[:2]
            clear = clear and least[1] - least[0] > 1e-5 * least[1]
            best = int(np.argmin(found))
            if best:
                code[m] = tried[best - 1]
        return clear

    def _sums(self, codes):
        return self.entries[np.asarray(codes, np.int64) + self.first[:-1]].sum(1)
