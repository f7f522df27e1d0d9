"""Workers: what they say of themselves, how they end, and who takes their place."""

import os
import signal
from functools import partial

import pytest

from annvq.benchmarks.processes import EndedError, Pool, Worker

# A library with three levels, of which the processor lacks one and the build another.
MODULE = """
import os, signal, sys
from annvq.benchmarks.processes import own_pipe, serve

pipe = own_pipe()
level = os.environ.get("FAISS_SIMD_LEVEL", "FAST")
if level == "ILLEGAL":
    os.kill(os.getpid(), signal.SIGILL)
if level == "UNBUILT":
    sys.exit("there is no level UNBUILT")

def answer(asked):
    if asked["do"] == "raise":
        raise KeyError("spoon")
    if asked["do"] == "die":
        print("oh", "no", sep="\\n", file=sys.stderr)
        os._exit(3)
    if asked["do"] == "half":
        pipe.write('{"half an ')
        pipe.flush()
        os.kill(os.getpid(), signal.SIGSEGV)
    return {"said": asked["do"], "level": level}

serve(level, ["SLOW", "FAST", "ILLEGAL", "UNBUILT"], answer, pipe)
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    (tmp_path / "a_library.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("FAISS_SIMD_LEVEL", raising=False)
    return partial(Worker, command=["a_library"], variables=["FAISS_SIMD_LEVEL"])


def test_a_worker_answers_until_it_ends(start):
    worker = start("faiss")
    assert (worker.level, worker.levels) == ("FAST", ("SLOW", "FAST", "ILLEGAL", "UNBUILT"))
    with pytest.raises(RuntimeError, match="faiss: KeyError: 'spoon'"):
        worker.ask(do="raise")
    assert worker.ask(do="this")["said"] == "this"
    assert worker.ended is None
    how = r"the faiss process \(SIMD level FAST\) ended in request 'die': exit code 3; its last words: no"
    with pytest.raises(EndedError, match=how):
        worker.ask(do="die")
    with pytest.raises(EndedError, match=how):  # and ever after
        worker.ask(do="this")
    worker.close()


@pytest.mark.parametrize(
    ("level", "how"),
    [
        ("ILLEGAL", r"ended at its start: SIGILL \(.+\); it said nothing"),
        ("UNBUILT", "ended at its start: exit code 1; its last words: there is no level UNBUILT"),
    ],
)
def test_what_does_not_start_says_why(start, level, how):
    with pytest.raises(EndedError, match=how):
        start("faiss", level)


def test_an_answer_cut_short_is_an_end(start):
    worker = start("faiss")
    with pytest.raises(EndedError, match="in request 'half': SIGSEGV"):
        worker.ask(do="half")


def test_a_pool_replaces_what_has_ended(start):
    pool = Pool(start)
    first = pool.worker("faiss")
    assert pool.worker("faiss") is pool.worker("faiss", "fast") is first
    os.kill(first.pid, signal.SIGKILL)
    first._process.wait()
    second = pool.worker("faiss")
    assert second is not first
    assert second.ask(do="this")["said"] == "this"
    assert "ended while it was not asked: SIGKILL" in first.ended
    pool.close()
    assert second.ended == "the faiss process was closed"


def test_a_pool_measures_at_the_levels_that_start(start, caplog):
    pool = Pool(start)
    workers = pool.at_every_level("faiss")
    assert [worker.level for worker in workers] == ["SLOW", "FAST"]
    assert workers[1] is pool.worker("faiss")
    assert workers[0].ask(do="this")["level"] == "SLOW"
    assert len(caplog.records) == 2
    with pytest.raises(RuntimeError, match="faiss has no SIMD level AVX2 on this machine; it has SLOW, FAST"):
        pool.worker("faiss", "AVX2")
    pool.close()


def test_a_level_that_the_environment_names_is_the_one(start, monkeypatch):
    monkeypatch.setenv("FAISS_SIMD_LEVEL", "SLOW")
    worker = start("faiss")
    assert worker.level == "SLOW"
    worker.close()
