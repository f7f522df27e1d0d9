"""Suites: what is accepted, and what is refused by name."""

import numpy as np
import pytest

from annvq.benchmarks import kinds, load_suite, rivals, suite_names
from annvq.benchmarks.kinds import toy
from annvq.benchmarks.roles import Budget

GOOD = """
kind = "codes"
title = "a test"
bits = [32]
[[methods]]
use = "faiss.pq"
[quick]
bits = [16]
"""


def written(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


def test_shipped_suites_plan():
    assert set(suite_names()) >= {
        "ablation",
        "codes",
        "embeddings",
        "embeddings-flat",
        "embeddings-index",
        "embeddings-lists",
        "index",
        "quickstart",
        "scan",
        "toy",
    }
    for name in suite_names():
        suite = load_suite(name)
        assert suite.kind in kinds.names()
    (whole,) = kinds.kind("toy").plan(load_suite("toy"), None).parts
    assert whole.count == len(whole.points()) == 6 * 6 * 3
    (quick,) = kinds.kind("toy").plan(load_suite("toy", quick=True), None).parts
    assert quick.count < whole.count


def test_quickstart_charges_equal_bits_in_all():
    settings = load_suite("quickstart").settings
    for entry in settings["methods"]:
        for bits in settings["bits"]:
            budget = Budget(64, bits)
            method = rivals.make_code(entry["use"], budget, entry.get("options", {}), 0)
            assert method.bits_per_vector() == bits, entry


def test_quick_replaces(tmp_path):
    path = written(tmp_path, GOOD)
    assert load_suite(path).settings["bits"] == [32]
    assert load_suite(path, quick=True).settings["bits"] == [16]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bits = [", "not readable TOML"),
        ("threads = -1", "threads must be 0"),
        ("seeds = []", "seeds must be non-negative integers"),
        ("seeds = [-1]", "seeds must be non-negative integers"),
        ('threads = "two"', "threads must be int"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        load_suite(written(tmp_path, text))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('use = "faiss.pq"', 'use = "faiss.pk"', "Did you mean 'faiss.pq'"),
        ('use = "faiss.pq"', 'used = "faiss.pq"', "a method has use, label, options, bits, bits_per_dimension"),
        ("bits = [32]", "bits = []", "bits must be a list of at least one"),
        ('use = "faiss.pq"', 'use = "faiss.pq"\nbits_per_dimension = 0', "bits must be positive integers"),
        ('use = "faiss.pq"', 'use = "faiss.pq"\nbits = [8]\nbits_per_dimension = 1', "not both"),
        ("bits = [32]", "bits = [0]", "bits must be positive integers"),
        ("bits = [32]", "bits = [32]\nbit = 3", "unknown key 'bit'"),
        ("bits = [32]", "bits = [32]\nlimits = { base = 0 }", "limits holds positive"),
        ("bits = [32]", "bits = [32]\ntiming = { rounds = 1 }", "timing holds positive"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(tmp_path, old, new, message):
    suite = load_suite(written(tmp_path, GOOD.replace(old, new)))
    with pytest.raises(ValueError, match=message):
        kinds.kind(suite.kind).plan(suite, None)


def test_methods_may_have_bits_of_their_own(tmp_path):
    """Bits of the suite first, in its order, then what others take; so many bits a dimension once for each set."""
    text = """
kind = "codes"
bits = [128, 64]
[[methods]]
use = "faiss.pq"
[[methods]]
use = "faiss.rq"
bits = [64]
[[methods]]
use = "faiss.rabitq"
bits_per_dimension = 1
[[methods]]
use = "faiss.sq"
bits_per_dimension = 4
"""
    suite = load_suite(written(tmp_path, text))
    x = np.random.default_rng(0).standard_normal((300, 64)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    (part,) = kinds.kind("codes").plan(suite, str(tmp_path / "x.npy")).parts
    found = [(point.identity["use"], point.identity["bits"]) for point in part.points()]
    assert found == [
        ("faiss.pq", 128), ("faiss.pq", 64), ("faiss.rq", 64), ("faiss.rabitq", 64), ("faiss.sq", 256),
    ]  # fmt: skip
    assert part.count == len(found)


def test_unknown_names():
    with pytest.raises(ValueError, match=r"unknown suite 'quickstar'.*Did you mean 'quickstart'"):
        load_suite("quickstar")
    with pytest.raises(ValueError, match="no suite file"):
        load_suite("nowhere.toml")
    with pytest.raises(ValueError, match="no \\[quick\\] table"):
        load_suite("quickstart", quick=True)
    with pytest.raises(ValueError, match=r"unknown kind of suite 'code'.*Did you mean 'codes'"):
        kinds.kind("code")


@pytest.mark.parametrize("data", toy.DATA)
def test_toy_samples_have_the_variance_that_they_say(data):
    x = toy.sample(data, 16, 20_000, seed=3, which=0)
    assert x.dtype == np.float32
    assert not np.array_equal(x, toy.sample(data, 16, 20_000, seed=3, which=1))
    covariance = np.cov(x, rowvar=False)
    if data == "correlated":
        assert np.linalg.matrix_rank(covariance, tol=1e-3) == 4
    else:
        np.testing.assert_allclose(covariance, np.eye(16), atol=0.05)
