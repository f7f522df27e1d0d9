"""annvq in CoRECT (a checkout of it, installed): its command line with annvq's codes among the compressions.

    python benchmarks/harnesses/corect_annvq.py evaluate snowflakev2 beir

CoRECT compares decoded queries with decoded documents, so queries lose as much as documents do. See docs/harnesses.md.
"""

import torch
from corect.compression_registry import CompressionRegistry
from corect.quantization.AbstractCompression import AbstractCompression

import annvq
from annvq.bits import split_bits

BITS = (128, 256, 512, 1024)  # of a vector
KINDS = ("product", "principal-product")


class AnnvqCompression(AbstractCompression):
    """Vectors as a code of so many bits brings them back."""

    def __init__(self, kind, bits):
        self.kind, self.bits = kind, bits
        self.coder = None

    def compute_threshold(self, embeddings):
        """Learn from the whole data set; CoRECT calls this where it is asked not to learn batch by batch."""
        x = embeddings.detach().cpu().float()
        nbits = split_bits(self.bits, 8)
        self.coder = annvq.make(self.kind, dim=x.shape[1], M=len(nbits), nbits=list(nbits)).fit(x)

    def compress(self, embeddings):
        """(n, d) as (n, d); without :meth:`compute_threshold` the first vectors are learned from."""
        x = embeddings.detach().cpu().float()
        if self.coder is None:
            self.compute_threshold(x)
        return torch.as_tensor(self.coder.decode(self.coder.encode(x)))


def register():
    """Add annvq's codes to those that CoRECT evaluates."""
    theirs = CompressionRegistry.add_compressions.__func__

    def add_compressions(cls):
        theirs(cls)
        for kind in KINDS:
            for bits in BITS:
                cls._compression_methods[f"{bits}_annvq_{kind}"] = AnnvqCompression(kind, bits)

    CompressionRegistry.add_compressions = classmethod(add_compressions)


if __name__ == "__main__":
    from corect.corect import main

    register()
    main()
