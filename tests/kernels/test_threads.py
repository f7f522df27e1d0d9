"""Threads that wait between calls: in processes that fork, end, or search from several threads at once."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from annvq import set_num_threads
from annvq.kernels.store import CodeStore
from annvq.threads import get_num_threads

FORKS = """
import os, sys
import numpy as np
from annvq import set_num_threads
from annvq.kernels.store import CodeStore

set_num_threads(3)
rng = np.random.default_rng(0)
store = CodeStore(4, [256] * 4)
store.append(rng.integers(0, 256, (5000, 4)).astype(np.uint8), None, np.arange(5000))
luts, bias = rng.random((50, 4, 256), np.float32), np.zeros(50, np.float32)
before = store.search(luts, bias, 5)
child = os.fork()
if child == 0:
    same = all((a == b).all() for _ in range(20) for a, b in zip(store.search(luts, bias, 5), before))
    os._exit(0 if same else 1)
assert os.waitpid(child, 0)[1] == 0
assert (store.search(luts, bias, 5)[1] == before[1]).all()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_searches_and_processes_end():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORKS], timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def threads():
    before = get_num_threads()
    set_num_threads(3)
    yield
    set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_searches_from_several_threads_share_the_helpers():
    rng = np.random.default_rng(0)
    store = CodeStore(4, [256] * 4)
    store.append(rng.integers(0, 256, (300_000, 4)).astype(np.uint8), None, np.arange(300_000))
    luts, bias = rng.random((40, 4, 256), np.float32), np.zeros(40, np.float32)
    expected = store.search(luts, bias, 5)
    bad = luts.copy()
    bad[30, 2, 7] = np.nan

    def one(i: int) -> None:
        if i % 10 == 9:
            with pytest.raises(ValueError, match="NaN"):
                store.search(bad, bias, 5)
        nq = (1, 2, 40)[i % 3]  # parts of one query, one query each, groups
        for a, b in zip(store.search(luts[:nq], bias[:nq], 5), expected, strict=True):
            np.testing.assert_array_equal(a, b[:nq])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(one, range(120)))


DAEMONS = """
import threading, time
import numpy as np
import annvq

rng = np.random.default_rng(0)
quantizer = annvq.ProductVQ(8, 8, 8).set_codebooks(rng.normal(size=(8, 256, 1)).astype(np.float32))
index = annvq.FlatIndex(quantizer).add(rng.normal(size=(20_000, 8)).astype(np.float32))
queries = rng.normal(size=(64, 8)).astype(np.float32)

def search():
    while True:
        index.search(queries, 5)

for _ in range(3):
    threading.Thread(target=search, daemon=True).start()
time.sleep(0.2)
"""


def test_daemon_threads_do_not_abort_a_process_that_ends():
    done = subprocess.run([sys.executable, "-c", DAEMONS], timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
