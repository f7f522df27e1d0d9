"""Quantizers and indexes go through file objects and bytes as through files: the same bytes, the same checks."""

import gzip
import io

import numpy as np
import pytest

import annvq
from annvq.errors import FormatError, NotFittedError

D = 8
X = np.random.default_rng(0).normal(size=(600, D)).astype(np.float32)


def quantizer():
    return annvq.ResidualVQ(D, 2, 4).fit(X)


MADE = {
    "quantizer": (quantizer, annvq.load_quantizer),
    "flat": (lambda: annvq.FlatIndex(quantizer()).add(X), annvq.load_index),
    "ivf": (lambda: annvq.IVFIndex(annvq.ProductVQ(D, 2, 4), nlist=4).fit(X).add(X), annvq.load_index),
    "rerank": (
        lambda: annvq.RerankIndex(annvq.FlatIndex(annvq.ProductVQ(D, 2, 8)), "float32").fit(X).add(X),
        annvq.load_index,
    ),
}


@pytest.fixture(params=MADE)
def made(request):
    make, load = MADE[request.param]
    return make(), load


def require_alike(one, other):
    assert type(one) is type(other)
    if hasattr(one, "search"):
        for a, b in zip(one.search(X[:20], 5), other.search(X[:20], 5), strict=True):
            np.testing.assert_array_equal(a, b)
    else:
        np.testing.assert_array_equal(one.encode(X), other.encode(X))


class InParts(io.RawIOBase):
    """A raw file object that takes and gives a few bytes at a time."""

    def __init__(self):
        self.data = bytearray()

    def write(self, part):
        taken = bytes(part[:1000])
        self.data += taken
        return len(taken)


class OnlyWrites:
    """Says nothing of how much it has written."""

    def __init__(self):
        self.data = b""

    def write(self, part):
        self.data += bytes(part)


def test_bytes_are_those_of_the_file(made, tmp_path):
    thing, load = made
    thing.save(tmp_path / "x")
    written = (tmp_path / "x").read_bytes()
    assert thing.to_bytes() == written
    for target in (InParts(), OnlyWrites()):
        thing.save(target)
        assert bytes(target.data) == written
    for data in (written, bytearray(written), memoryview(written)):
        require_alike(load(data), thing)


def test_file_objects(made, tmp_path):
    thing, load = made
    buffer = io.BytesIO(b"before")
    buffer.seek(6)
    thing.save(buffer)
    assert buffer.getvalue() == b"before" + thing.to_bytes()
    buffer.seek(6)
    require_alike(load(buffer), thing)
    with gzip.open(tmp_path / "x.gz", "wb") as file:
        thing.save(file)
    with gzip.open(tmp_path / "x.gz", "rb") as file:
        require_alike(load(file), thing)


def test_what_was_given_may_change_afterwards(made):
    thing, load = made
    data = bytearray(thing.to_bytes())
    loaded = load(data)
    data[:] = bytes(len(data))
    require_alike(loaded, thing)


def test_damage_is_found_and_named(made, tmp_path):
    thing, load = made
    data = thing.to_bytes()
    for cut in (0, 7, 100, len(data) - 1):
        with pytest.raises(FormatError, match="the given bytes"):
            load(data[:cut])
    flipped = bytearray(data)
    flipped[-1] ^= 1
    with pytest.raises(FormatError, match=r"the given BytesIO is corrupt: tensor .* fails its checksum"):
        load(io.BytesIO(flipped))
    (tmp_path / "cut").write_bytes(data[:100])
    with open(tmp_path / "cut", "rb") as file, pytest.raises(FormatError, match="/cut is not an annvq file"):
        load(file)


def test_other_things_are_refused(made, tmp_path):
    thing, load = made
    for wrong in (3, None, ["x"]):
        with pytest.raises(TypeError, match="source must be a path, bytes, or a file object opened in binary mode"):
            load(wrong)
        with pytest.raises(TypeError, match="target must be a path or a file object opened in binary mode"):
            thing.save(wrong)
    with pytest.raises(TypeError, match="one that reads str"):
        load(io.StringIO("text"))
    with pytest.raises(TypeError, match="target must be a path or a file object opened in binary mode, got StringIO"):
        thing.save(io.StringIO())


def test_only_paths_can_be_mapped(made):
    thing, load = made
    if load is annvq.load_index:
        with pytest.raises(ValueError, match=r"only files can be mapped .* got the given bytes"):
            load(thing.to_bytes(), mmap=True)
        require_alike(load(thing.to_bytes(), verify=True), thing)


def test_an_untrained_quantizer_has_no_bytes():
    with pytest.raises(NotFittedError):
        annvq.ProductVQ(D, 2, 4).to_bytes()
