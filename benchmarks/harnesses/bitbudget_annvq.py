"""annvq in BitBudget (``pip install bitbudget``): its command line with annvq's codes among the methods and indexes.

    python benchmarks/harnesses/bitbudget_annvq.py methods
    python benchmarks/harnesses/bitbudget_annvq.py run --embedder minilm --corpus scifact
    python benchmarks/harnesses/bitbudget_annvq.py bench-index --npz vectors.npz --indexes flat ivfpq annvq-ivf

Codes learn from the documents, as BitBudget's own product codes do. See docs/harnesses.md.
"""

import time
from functools import partial

import numpy as np
from bitbudget.cli import main
from bitbudget.indexes import index
from bitbudget.methods import method

import annvq
from annvq.bits import split_bits

QUANTIZERS = {"product": "pvq", "principal-product": "principal", "residual": "rvq", "additive": "avq"}
BYTES_OF_FLOATS = (32, 64)  # a code takes one byte for so many bytes of float32


def quantizer(kind, dim, share):
    """Untrained: dim / ``share`` · 4 bytes."""
    nbits = split_bits(8 * max(1, 4 * dim // share), 8)
    return annvq.make(kind, dim=dim, M=len(nbits), nbits=nbits[0] if len(set(nbits)) == 1 else nbits)


def scores(kind, share, demb, qemb):
    """Inner products of queries and decoded documents, (nq, n), and bytes a document. No norm is needed for them."""
    coder = quantizer(kind, demb.shape[1], share).fit(demb)
    decoded = coder.decode(coder.encode(demb))
    return qemb @ decoded.T, coder.bits / 8


def lists(xb, xq, k, *, refine, nprobe=32):
    """``IVFIndex`` over product codes of half a byte a dimension; ``refine``: re-ranked by a byte a dimension."""
    made = annvq.IVFIndex(quantizer("product", xb.shape[1], 8), metric="cosine")
    made = annvq.RerankIndex(made, "int8") if refine else made
    made.fit(xb).add(xb)
    search = partial(made.search, xq, k, nprobe=nprobe)
    ids, best = search()[1], float("inf")
    for _ in range(3):
        start = time.perf_counter()
        search()
        best = min(best, time.perf_counter() - start)
    return np.maximum(ids, 0), made.bits_per_vector / 8, len(xq) / best


for share in BYTES_OF_FLOATS:
    for kind, short in QUANTIZERS.items():
        method(f"annvq-{short}-{share}x", bits=32 / share)(partial(scores, kind, share))
index("annvq-ivf")(partial(lists, refine=False))
index("annvq-ivf-int8")(partial(lists, refine=True))

if __name__ == "__main__":
    main()
