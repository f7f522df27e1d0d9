"""Learning over several processes: what they learn does not depend on how many there are."""

import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import fit_over_processes
import numpy as np
import pytest

import annvq
from annvq.training import KMeans, Processes, Recipe, Trainer, TrainerPart
from annvq.training.data import prepare
from annvq.training.learn.alternating import Alternation, train_additive
from annvq.training.learn.least_squares import least_squares_entries, revive_unused
from annvq.training.sharing import prepare_shares

PROGRAM = fit_over_processes.__file__
KINDS = (
    "product",
    "unequal",
    "residual",
    "rotated-residual",
    "additive",
    "product-additive",
    "rotated-product",
    "principal-additive",
    "residual-norm-free",
    "additive-norm-free",
)
PATIENCE = 120  # seconds for what takes a few, on a busy machine


def run(count, out, *kinds, **environment):
    """Start ``count`` processes of the program and wait for the first, and for others unless it failed: (exit code,
    standard error) of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", **environment}
    started = [
        subprocess.Popen(
            [sys.executable, PROGRAM, str(out), *kinds], env={**shared, "RANK": str(rank)}, stderr=subprocess.PIPE
        )
        for rank in range(count)
    ]
    try:
        told = [started[0].communicate(timeout=PATIENCE)[1].decode()]
        if started[0].returncode:
            for process in started[1:]:
                process.kill()
        told += [process.communicate(timeout=PATIENCE)[1].decode() for process in started[1:]]
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, text) for process, text in zip(started, told, strict=True)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process learns: the files of all kinds."""
    out = tmp_path_factory.mktemp("one")
    fit_over_processes.fit_all(out, KINDS)
    return out


@pytest.mark.processes
@pytest.mark.parametrize(("count", "kinds"), [(2, KINDS), (4, ("residual", "residual-norm-free"))])
def test_as_many_as_there_are_learn_the_same_bit_for_bit(count, kinds, alone, tmp_path):
    ended = run(count, tmp_path, *kinds)
    assert [code for code, _ in ended] == [0] * count, ended
    for kind in kinds:
        assert (tmp_path / f"{kind}.annvq").read_bytes() == (alone / f"{kind}.annvq").read_bytes(), kind


@pytest.mark.processes
def test_a_killed_process_ends_the_run_and_the_checkpoint_goes_on(alone, tmp_path):
    (code, told), _ = run(2, tmp_path, "residual", DIES="1", KEEP="1")
    assert code == 1
    assert "LostProcessError: process 0 of 2: another one has ended" in told
    assert not (tmp_path / "residual.annvq").exists()
    assert fit_over_processes.parts_done(tmp_path, "residual") == 1
    ended = run(2, tmp_path, "residual", DIES="none", KEEP="1")
    assert [code for code, _ in ended] == [0, 0], ended
    assert fit_over_processes.parts_done(tmp_path, "residual") == 4
    assert (tmp_path / "residual.annvq").read_bytes() == (alone / "residual.annvq").read_bytes()


@pytest.mark.processes
def test_a_process_that_hangs_is_not_waited_for_for_ever(tmp_path):
    (code, told), _ = run(2, tmp_path, "product", DIES="1", HANGS="1", TIMEOUT="5")
    assert code == 1
    assert "LostProcessError: process 0 of 2: another one has ended, or did not answer within 5 s" in told


@pytest.mark.processes
def test_torchrun_learns_what_one_process_learns(tmp_path):
    np.save(tmp_path / "x.npy", fit_over_processes.vectors())
    learn = ["annvq.train", "x.npy", "--kind", "product", "--bits", "8", "--nbits", "4", "--out"]
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    for command, out in ((torchrun, "two.annvq"), ([], "one.annvq")):
        done = subprocess.run(
            [sys.executable, "-m", *command, *learn, out], capture_output=True, timeout=PATIENCE, env=environment
        )
        assert done.returncode == 0, done.stderr.decode()
        assert done.stdout.decode().startswith(f"wrote {out}: product, 8 bits a code, learned from 1,500 vectors\n")
    assert Path("one.annvq").read_bytes() == Path("two.annvq").read_bytes()


@pytest.fixture
def processes():
    with Processes.started() as one:
        yield one


@pytest.mark.parametrize("kind", KINDS)
def test_codebooks_are_as_good_as_those_of_fit(kind, alone):
    x = fit_over_processes.vectors()
    near = np.delete(x, [7, 8, 9], axis=0)
    together = annvq.load_quantizer(alone / f"{kind}.annvq")
    usual = fit_over_processes.untrained(kind).fit(x, seed=3)
    error, its = (np.square(near - q.decode(q.encode(near))).sum(1).mean() for q in (together, usual))
    assert error < 1.06 * its


@pytest.mark.parametrize("far", [1.0, 1e9])
def test_sums_are_exact_in_any_order(processes, far):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(5000, 3)).astype(np.float32)
    rows[17] *= np.float32(far)
    parts = processes.summable(rows)
    assert len(parts) == (1 if far == 1 else 2)
    # A sum of float64 numbers is exact where it equals the one that Python rounds only once, in every order.
    for part in parts:
        exact = [math.fsum(column) for column in part.T]
        for _ in range(5):
            order = rng.permutation(len(part))
            np.testing.assert_array_equal(np.add.reduce(part[order], axis=0), exact)
            np.testing.assert_array_equal(part[order[:2000]].sum(0) + part[order[2000:]].sum(0), exact)
    np.testing.assert_allclose(np.sum(parts, axis=0), rows, rtol=0, atol=1e-7)


def test_nothing_is_summable_of_zeros(processes):
    (part,) = processes.summable(np.zeros((3, 2), np.float32))
    np.testing.assert_array_equal(part, np.zeros((3, 2)))


def test_least_squares_and_revived_entries_are_those_of_one_process(processes):
    rng = np.random.default_rng(1)
    sizes = (8, 8)
    x = rng.normal(size=(300, 4)).astype(np.float32)
    codes = rng.integers(0, 7, (300, 2)).astype(np.uint8)  # entry 7 of each is unused
    entries = rng.normal(size=(16, 4)).astype(np.float32)
    found, usual = (least_squares_entries(x, codes, entries, sizes, **more) for more in ({"processes": processes}, {}))
    np.testing.assert_allclose(found, usual, rtol=1e-6, atol=1e-6)
    (revived, count), (usual, its) = (
        revive_unused(x, codes, entries, sizes, np.random.default_rng(2), *more) for more in ([processes], [])
    )
    assert count == its == 2
    np.testing.assert_array_equal(revived, usual)
    with pytest.raises(ValueError, match="at most 8192 in all, got 16384"):
        least_squares_entries(x, codes, np.zeros((16384, 4), np.float32), (8192, 8192), processes=processes)


def test_alternation_is_as_good_as_that_of_one_process(processes):
    x = np.random.default_rng(0).normal(size=(800, 6)).astype(np.float32)
    plan = Alternation(iterations=8, rounds=2)
    errors = [train_additive(x, (16, 16), plan, **more)[1].mse[-1] for more in ({"processes": processes}, {})]
    assert errors[0] == pytest.approx(errors[1], rel=0.02)


@pytest.mark.parametrize(
    ("quantizer", "part"),
    [
        (annvq.Transformed(annvq.LinearMap(12), annvq.ProductVQ(12, M=3, nbits=4)), "LearnLinearMap"),
        (annvq.ConditionalVQ(12, M=3, nbits=4), "LearnNetwork"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.kind,
)
def test_what_several_processes_cannot_learn_is_refused_by_name(quantizer, part, processes):
    with pytest.raises(ValueError, match=f"{type(quantizer).__name__} is learned by {part}, which one process"):
        quantizer.fit(fit_over_processes.vectors(), processes=processes)
    assert not quantizer.fitted


def test_far_out_rows_have_no_say_in_where_data_are_centred(processes):
    x = fit_over_processes.vectors()
    settings = {"least": 16, "max_rows": 1200, "validation": 0.1, "seed": 5, "progress": False}
    found, usual = prepare_shares(x, 12, **settings, processes=processes), prepare(x, 12, **settings)
    assert found.scale == usual.scale
    np.testing.assert_allclose(found.mean, usual.mean, rtol=1e-6)
    for mine, its in ((found.train, usual.train), (found.validation, usual.validation)):
        assert mine.shape == its.shape
        np.testing.assert_allclose(mine, its, rtol=1e-5, atol=1e-5)


def test_a_sample_of_very_many_is_drawn_without_a_list_of_all(processes):
    """Rows are read by their numbers: a billion of them here, which are nowhere."""

    class Endless:
        shape, dtype = (10**9, 2), np.dtype(np.float32)

        def __getitem__(self, rows):
            return np.stack([rows % 1009, rows % 1013], axis=1).astype(np.float32)

    found = prepare_shares(
        Endless(), 2, least=4, max_rows=3000, validation=0.1, seed=0, progress=False, processes=processes
    )
    assert found.train.shape == (2700, 2)
    rows = np.concatenate([found.train, found.validation]) * found.scale + found.mean
    np.testing.assert_allclose(rows, np.rint(rows), atol=1e-3)  # rows of Endless
    np.testing.assert_allclose(rows.mean(0), [504, 506], rtol=0.05)


def test_few_rows_are_learned_from_and_validated_on(processes):
    x = fit_over_processes.vectors()[20:36]  # as many as entries
    recipe = Recipe((KMeans(2), TrainerPart(Trainer(steps=3, batch_size=4))))
    assert annvq.ProductVQ(12, M=3, nbits=4).fit(x, recipe=recipe, processes=processes).fitted


def test_arguments(processes):
    with (
        pytest.raises(ValueError, match="timeout must be a positive number of seconds, got 0"),
        Processes.started(timeout=0),
    ):
        pass
    with pytest.raises(TypeError, match=r"processes must be annvq\.training\.Processes, got int"):
        annvq.ProductVQ(12, M=3, nbits=4).fit(fit_over_processes.vectors(), processes=2)
    trainer = Trainer(steps=3, checkpoint="state")
    with pytest.raises(ValueError, match="checkpoint must be None over several processes"):
        trainer.run(annvq.ProductVQ(12, M=3, nbits=4), fit_over_processes.vectors(), processes=processes)
