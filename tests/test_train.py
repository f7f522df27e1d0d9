"""``python -m annvq.train``, in one process; tests/training/test_processes.py has several."""

import numpy as np
import pytest

import annvq
from annvq.cli import main
from annvq.train import train


@pytest.fixture
def run(capsys):
    """Run the command in this process: (exit code, standard output, standard error)."""

    def call(*arguments):
        with pytest.raises(SystemExit) as stop:
            main([str(a) for a in arguments], command=train, name="annvq.train")
        captured = capsys.readouterr()
        return stop.value.code or 0, captured.out, captured.err

    return call


@pytest.fixture
def vectors(tmp_path):
    path = tmp_path / "mine.npy"
    np.save(path, np.random.default_rng(0).standard_normal((600, 8)).astype(np.float32))
    return path


def test_it_writes_what_it_says_and_goes_on_from_its_checkpoint(run, vectors, tmp_path):
    learn = (vectors, "--kind", "product", "--bits", "8", "--nbits", "4", "--threads", "1", "--seed", "3")
    code, out, _ = run(*learn, "--out", tmp_path / "q.annvq", "--checkpoint", tmp_path / "kept")
    assert code == 0
    assert f"wrote {tmp_path / 'q.annvq'}: product, 8 bits a code, learned from 600 vectors" in out
    assert "processes: 1, threads of each: 1;" in out
    assert annvq.load_quantizer(tmp_path / "q.annvq").config == {"dim": 8, "M": 2, "nbits": 4}
    assert run(*learn, "--out", tmp_path / "again.annvq", "--checkpoint", tmp_path / "kept")[0] == 0
    assert (tmp_path / "again.annvq").read_bytes() == (tmp_path / "q.annvq").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--kind", "conditional", "--bits", "16"), "ConditionalVQ is learned by LearnNetwork"),
        (("--kind", "product", "--bits", "8", "--checkpoint", "nowhere/kept"), "nowhere"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(arguments, message, run, vectors):
    code, _, error = run(vectors, "--out", "q.annvq", *arguments)
    assert code == 1
    assert error.startswith("annvq.train: error: ")
    assert message in error
