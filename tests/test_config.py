"""Facts of the installation, and the number of threads."""

import pytest

import annvq
from annvq import config


def test_facts():
    facts = config.config()
    assert facts["versions"]["annvq"] == annvq.__version__
    assert facts["simd"] in facts["simd_available"]
    assert facts["cores"] >= 1


def test_show_config_prints_every_fact(capsys):
    config.show_config()
    shown = capsys.readouterr().out
    for word in ("annvq", "numpy", "cpu", "simd", "threads"):
        assert word in shown


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "2", None])
def test_bad_thread_counts_change_nothing(n):
    before = config.get_num_threads()
    with pytest.raises(ValueError, match="n must be a positive integer"):
        config.set_num_threads(n)
    assert config.get_num_threads() == before
