"""Operation counts: what encoding, searching, re-ranking and training cost, counted rather than timed.

Two conventions count the encoding of one vector:

``"full"`` (the default)
    every one of the ``M`` stages, no more candidates kept than there are, codebooks of unequal size and
    beam search for residual codes.
``"published"``
    the count of Vali and Bäckström, "Stochastic Optimization of Vector Quantization Methods in Application
    to Speech and Image Processing" (ICASSP 2023), bit for bit, so that figures can be compared with theirs.
    Its product and residual loops run over ``M - 1`` stages, and its sort goes negative where the beam
    exceeds the candidates; neither is mended.

Counts are weighted as the ITU-T software tool library does (G.191) and divided by 1e6: WMOPS. The weights
of single precision are the ones behind the published figures. See ``docs/complexity.md``.
"""

from annvq.bits import NORM_BITS
from annvq.complexity.arguments import ADDITIVE_BEAM, KINDS, METRICS
from annvq.complexity.counts import (
    WEIGHTS,
    OperationCounts,
    Weights,
    argmin,
    distance,
    mse,
    partial_sort,
)
from annvq.complexity.encoding import (
    CONVENTIONS,
    encode_counts,
    linear_map,
    local_search,
    network_search,
    norm_search,
    training,
    wmops,
)
from annvq.complexity.searching import Memory, SearchCosts, memory, rerank, search, tables

__all__ = [
    "ADDITIVE_BEAM",
    "CONVENTIONS",
    "KINDS",
    "METRICS",
    "NORM_BITS",
    "WEIGHTS",
    "Memory",
    "OperationCounts",
    "SearchCosts",
    "Weights",
    "argmin",
    "distance",
    "encode_counts",
    "linear_map",
    "local_search",
    "memory",
    "mse",
    "network_search",
    "norm_search",
    "partial_sort",
    "rerank",
    "search",
    "tables",
    "training",
    "wmops",
]
