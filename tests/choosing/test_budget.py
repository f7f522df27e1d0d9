"""Budgets in their forms, and that what fits a memory budget fits into memory."""

import numpy as np
import pytest

from annvq import FlatIndex, ProductVQ
from annvq.choosing.budget import bits_of, parse_bytes, parse_count
from annvq.training import KMeans, Recipe


def test_forms_of_a_budget():
    assert bits_of(bits=7) == 7
    assert bits_of(bytes_per_vector=48) == 384
    # 80 bytes a vector, less 3 % and the id: 73.7.
    assert bits_of(memory=8_000_000_000, n=100_000_000) == 8 * 73


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give one of bits, bytes_per_vector and memory; got none"),
        ({"bits": 8, "bytes_per_vector": 1}, "got bits, bytes_per_vector"),
        ({"memory": 100}, "go together; got memory without n"),
        ({"bits": 8, "n": 100}, "go together; got bits and n"),
        ({"memory": 500, "n": 100}, "memory=500 leaves no byte for a code: 100 vectors take 400 bytes of ids"),
        ({"bits": 0}, "bits must be"),
        ({"memory": 100, "n": -1}, "n must be"),
    ],
)
def test_what_is_no_budget(given, message):
    with pytest.raises(ValueError, match=message):
        bits_of(**given)


def test_what_fits_the_budget_fits_into_memory():
    n, memory = 200_000, 2_000_000
    bits = bits_of(memory=memory, n=n)
    assert bits == 40  # of 80
    x = np.random.default_rng(0).standard_normal((n, 10)).astype(np.float32)
    quantizer = ProductVQ(dim=10, M=bits // 4, nbits=4).fit(x[:2000], recipe=Recipe((KMeans(1),)))
    index = FlatIndex(quantizer).add(x, np.random.default_rng(0).permutation(10 * n)[:n])
    assert index.bits_per_vector == bits
    assert index.ram_bits_per_vector * n / 8 <= memory


def test_sizes_and_counts():
    assert [parse_bytes(text) for text in ("8GB", "7.5 GiB", "500mb", "2T", "1024", "1k")] == [
        8_000_000_000, 8_053_063_680, 500_000_000, 2_000_000_000_000, 1024, 1000,
    ]  # fmt: skip
    assert [parse_count(text) for text in ("100e6", "12")] == [100_000_000, 12]
    for text in ("", "GB", "8 XB", "nan", "inf", "1e400", "0", "-1GB"):
        with pytest.raises(ValueError, match="expected a"):
            parse_bytes(text)
    for text in ("", "1.5", "0", "nan", "inf", "x"):
        with pytest.raises(ValueError, match="expected a"):
            parse_count(text)
