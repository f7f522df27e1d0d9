"""Facts of the installation, and the number of threads."""

import pytest
import torch

import annvq
from annvq import facts, threads


def test_facts():
    found = facts.config()
    assert found["versions"]["annvq"] == annvq.__version__
    assert found["simd"] in found["simd_available"]
    assert found["cores"] >= 1


def test_show_config_prints_every_fact(capsys):
    facts.show_config()
    shown = capsys.readouterr().out
    for word in ("annvq", "numpy", "cpu", "simd", "threads"):
        assert word in shown


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "2", None])
def test_bad_thread_counts_change_nothing(n):
    before = threads.get_num_threads()
    with pytest.raises(ValueError, match="n must be a positive integer"):
        threads.set_num_threads(n)
    assert threads.get_num_threads() == before


def test_one_torch_thread_ends_with_the_last_of_the_blocks_that_overlap():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        first, second = threads.one_torch_thread(), threads.one_torch_thread()
        first.__enter__()
        second.__enter__()
        assert torch.get_num_threads() == 1
        first.__exit__(None, None, None)
        assert torch.get_num_threads() == 1
        second.__exit__(None, None, None)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
