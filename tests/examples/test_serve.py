"""examples/serve.py, asked over HTTP on loopback."""

import http.client
import json
import runpy
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import annvq

pytest.importorskip("starlette", reason="starlette is not installed")
uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is not installed")

EXAMPLE = str(Path(__file__).parents[2] / "examples" / "serve.py")
RNG = np.random.default_rng(0)
X, Q = (RNG.normal(size=(n, 8)).astype(np.float32) for n in (500, 40))


def index_of(rows, **settings):
    return annvq.FlatIndex(annvq.ProductVQ(8, M=2, nbits=4), **settings).fit(X).add(rows)


class Served:
    """An index file and the application over it, in a thread of this process."""

    def __init__(self, path, **settings):
        self.path = path
        self.app = runpy.run_path(EXAMPLE)["application"](str(path), **settings)
        self.server = uvicorn.Server(uvicorn.Config(self.app, port=0, log_level="error", ws="none"))
        self.thread = threading.Thread(target=self.server.run)

    def __enter__(self):
        self.thread.start()
        while not self.server.started:
            assert self.thread.is_alive()
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        return self

    def __exit__(self, *error):
        self.server.should_exit = True
        self.thread.join(30)

    def ask(self, method, path, body=None):
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        line.request(method, path, body if isinstance(body, str | bytes | None) else json.dumps(body))
        answer = line.getresponse()
        told = answer.read()
        line.close()
        return answer.status, json.loads(told)

    def search(self, queries, k=10):
        return self.ask("POST", "/search", {"queries": np.asarray(queries).tolist(), "k": k})


@pytest.fixture
def served(tmp_path):
    index_of(X).save(tmp_path / "index.annvq")
    with Served(tmp_path / "index.annvq") as up:
        yield up


def test_answers_are_those_of_the_index(served):
    distances, ids = index_of(X).search(Q, 5)
    assert served.search(Q, 5) == (200, {"ids": ids.tolist(), "distances": distances.tolist()})
    assert (
        served.ask("POST", "/search", {"queries": Q[:1].tolist()})[1]["ids"]
        == index_of(X).search(Q[:1], 10)[1].tolist()
    )


def test_queries_that_arrive_together_are_one_batch(tmp_path):
    index_of(X).save(tmp_path / "index.annvq")
    ids = {k: index_of(X).search(Q, k)[1] for k in (3, 7)}
    with Served(tmp_path / "index.annvq", window=0.2) as up, ThreadPoolExecutor(20) as clients:
        found = list(clients.map(lambda i: (i, up.search(Q[i : i + 1], (3, 7)[i % 2])), range(len(Q))))
        facts = up.ask("GET", "/health")[1]
    for i, (status, told) in found:
        assert (status, told["ids"]) == (200, [ids[(3, 7)[i % 2]][i].tolist()])
    assert facts["requests"] == len(Q)
    assert facts["batches"] < len(Q)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("{", "the body must be JSON"),
        ([], 'the body must be an object with "queries"'),
        ({"k": 3}, 'the body must be an object with "queries"'),
        ({"queries": [[0] * 8], "nprobe": 3}, 'the body must be an object with "queries"'),
        ({"queries": [[0] * 8], "k": 0}, "k must be a whole number in 1..1000, got 0"),
        ({"queries": [[0] * 8], "k": True}, "k must be a whole number in 1..1000, got True"),
        ({"queries": [[0] * 8, [0]]}, "queries must be a list of vectors"),
        ({"queries": [["x"] * 8]}, "queries must be a list of vectors"),
        ({"queries": []}, "queries must be a list of 1 to 1000 vectors"),
        ({"queries": [[0] * 8] * 1001}, "queries must be a list of 1 to 1000 vectors"),
        ({"queries": [[0] * 7]}, r"queries must be float32 of shape (nq, 8)"),
        ('{"queries": [[NaN, 0, 0, 0, 0, 0, 0, 0]]}', "queries must be finite"),
        (b"\xff" * ((64 << 20) + 1), "the body must have at most"),
    ],
)
def test_bad_requests_are_refused_with_a_message(body, message, served):
    status, told = served.ask("POST", "/search", body)
    assert status == 400
    assert message in told["error"]
    assert served.search(Q[:1])[0] == 200


def test_a_bad_query_spoils_no_other(tmp_path):
    index_of(X, metric="cosine").save(tmp_path / "index.annvq")
    asked = Q.copy()
    asked[13] = 0  # has no direction
    with Served(tmp_path / "index.annvq", window=0.2) as up, ThreadPoolExecutor(len(Q)) as clients:
        found = list(clients.map(lambda q: up.search(q[None]), asked))
    assert [status for status, _ in found] == [400 if i == 13 else 200 for i in range(len(Q))]
    assert "zero vectors under cosine" in found[13][1]["error"]


@pytest.mark.parametrize(("keys", "shown"), [(["one", "two"], ["one", "two"]), ([b"\x0a", b"\x01"], ["01", "0a"])])
def test_keys_are_text_and_rows_as_long_as_there_are_vectors(keys, shown, tmp_path):
    keyed = annvq.KeyedIndex(annvq.FlatIndex(annvq.ProductVQ(8, M=2, nbits=4))).fit(X)
    keyed.add(X[:2], keys=keys)
    keyed.save(tmp_path / "index.annvq")
    with Served(tmp_path / "index.annvq") as up:
        status, told = up.search(Q[:1])
    assert status == 200
    assert sorted(told["ids"][0]) == shown
    assert len(told["distances"][0]) == 2


def test_a_new_file_is_taken_and_a_broken_one_is_not(served):
    assert served.ask("GET", "/health")[1] == {
        "ok": True, "vectors": 500, "dim": 8, "waiting": 0, "requests": 0, "batches": 0, "reloads": 0
    }  # fmt: skip
    index_of(X[:100]).save(served.path)
    assert served.search(Q)[1]["ids"] == index_of(X).search(Q, 10)[1].tolist()
    assert served.ask("POST", "/reload") == (200, {"vectors": 100})
    ids = index_of(X[:100]).search(Q, 10)[1].tolist()
    assert served.search(Q)[1]["ids"] == ids
    served.path.unlink()
    served.path.write_bytes(b"no index")
    status, told = served.ask("POST", "/reload")
    assert status == 500
    assert told["error"].startswith("the index before stays: ")
    assert served.search(Q)[1]["ids"] == ids


class Slow:
    """An index whose searches wait until they may go on."""

    dim = 8

    def __init__(self, index):
        self.index, self.began, self.go_on = index, threading.Event(), threading.Event()

    def __len__(self):
        return len(self.index)

    def search(self, queries, k):
        self.began.set()
        assert self.go_on.wait(30)
        return self.index.search(queries, k)


def test_requests_under_way_end_with_the_index_they_began_with(served):
    slow = served.app.state.server.index = Slow(served.app.state.server.index)
    index_of(X[:100]).save(served.path)
    with ThreadPoolExecutor(2) as clients:
        first = clients.submit(served.search, Q)
        assert slow.began.wait(30)
        reload = clients.submit(served.ask, "POST", "/reload")
        assert served.ask("GET", "/health")[0] == 200
        slow.go_on.set()
        assert first.result()[1]["ids"] == index_of(X).search(Q, 10)[1].tolist()
        assert reload.result() == (200, {"vectors": 100})
    assert served.search(Q)[1]["ids"] == index_of(X[:100]).search(Q, 10)[1].tolist()


def test_more_requests_than_can_wait_are_told_to_come_back(tmp_path):
    index_of(X).save(tmp_path / "index.annvq")
    with Served(tmp_path / "index.annvq", waiting=1) as up, ThreadPoolExecutor(2) as clients:
        slow = up.app.state.server.index = Slow(up.app.state.server.index)
        first = clients.submit(up.search, Q)
        assert slow.began.wait(30)
        second = clients.submit(up.search, Q)
        while up.ask("GET", "/health")[1]["waiting"] < 1:
            assert not second.done()
        status, told = up.search(Q)
        slow.go_on.set()
        assert (status, told) == (503, {"error": "too many requests wait; come back in a second"})
        assert first.result()[0] == second.result()[0] == 200


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no SIGHUP here")
def test_load_test(monkeypatch):
    monkeypatch.setattr("sys.argv", ["serve.py", "--load-test", "--vectors=2000", "--clients=4", "--seconds=0.5"])
    totals = runpy.run_path(EXAMPLE)["main"]()
    assert set(totals) == {"one at a time", "in batches", "in batches, waiting 1 ms"}
    for counted in totals.values():
        assert counted["asked"] > 0
        assert counted["wrong"] == 0
        assert counted["reloads"] == 1


def test_a_sharded_index_is_served_too(tmp_path):
    ray = pytest.importorskip("ray", reason="ray is not installed")
    from annvq.distributed import ShardedIndex

    ray.init(num_cpus=2, object_store_memory=80 << 20, include_dashboard=False, log_to_driver=False)
    try:
        ShardedIndex.create(tmp_path / "sharded", index_of(X), 2).close()
        ids = index_of(X).search(Q, 10)[1].tolist()
        with Served(tmp_path / "sharded") as up:
            assert up.search(Q)[1]["ids"] == ids
            assert up.ask("POST", "/reload") == (200, {"vectors": 500})
            assert up.search(Q)[1]["ids"] == ids
    finally:
        ray.shutdown()
