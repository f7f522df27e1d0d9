"""An index behind HTTP. Queries that arrive together are searched as one batch; a new file is taken without a pause.

pip install starlette uvicorn
python examples/serve.py index.annvq --port 8000          # or the folder of a ShardedIndex
curl -d '{"queries": [[0.1, 0.2, …]], "k": 10}' localhost:8000/search
curl localhost:8000/health
curl -X POST localhost:8000/reload                        # or kill -HUP: after a new index.annvq has been saved
python examples/serve.py --load-test                      # latencies on this machine, of vectors made up here
"""

import argparse
import asyncio
import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

import annvq

MOST_K, MOST_QUERIES, MOST_BYTES = 1000, 1000, 64 << 20  # of one request


class BusyError(Exception):
    """More requests wait than the server takes."""


def open_index(path):
    """The index of a file, mapped, or of a ShardedIndex's folder."""
    if not Path(path).is_dir():
        return annvq.load_index(path, mmap=True)
    from annvq.distributed import ShardedIndex

    return ShardedIndex.open(path)


class Server:
    """An index and the queue of those who ask it.

    One batch is searched at a time, by all threads that annvq has, and what arrives meanwhile is the next one. Where
    nothing has arrived, the first query goes alone, or waits ``window`` seconds for company.
    """

    def __init__(self, path, window=0.0, most=256, waiting=4096):
        self.path, self.window, self.most = path, window, most
        self.index = open_index(path)
        self.queue = asyncio.Queue(waiting)
        self.turn = asyncio.Lock()  # held while the index is searched, or replaced
        self.worker = ThreadPoolExecutor(1)
        self.counts = {"requests": 0, "batches": 0, "reloads": 0}

    async def search(self, queries, k):
        """Distances and ids (nq, k) of queries (nq, d); ValueError says what is wrong with them."""
        answer = asyncio.get_running_loop().create_future()
        try:
            self.queue.put_nowait((queries, k, answer))
        except asyncio.QueueFull:
            raise BusyError("too many requests wait; come back in a second") from None
        return await answer

    async def run(self):
        """Search batch after batch, for ever."""
        while True:
            batch = [await self.queue.get()]
            if self.queue.empty() and self.window:
                await asyncio.sleep(self.window)
            rows = len(batch[0][0])
            while not self.queue.empty() and rows < self.most:
                batch.append(self.queue.get_nowait())
                rows += len(batch[-1][0])
            self.counts["requests"] += len(batch)
            async with self.turn:
                for k in {k for _, k, _ in batch}:
                    await self._answer([one for one in batch if one[1] == k], k)

    async def _answer(self, batch, k):
        """Search requests for the same k at once; where that is refused, each by itself, so that none spoils others."""
        self.counts["batches"] += 1
        parts = [queries for queries, _, _ in batch]
        try:
            if len({part.shape[1] for part in parts}) > 1:
                raise ValueError("queries must have the same dimensions")
            found = await self._in_worker(self.index.search, np.concatenate(parts), k)
        except Exception as error:
            if len(batch) > 1:
                for one in batch:
                    await self._answer([one], k)
            elif not batch[0][2].cancelled():
                batch[0][2].set_exception(error)
            return
        ends = np.cumsum([len(part) for part in parts])[:-1]
        for (_, _, answer), *both in zip(batch, *(np.split(a, ends) for a in found), strict=True):
            if not answer.cancelled():  # whoever asked has hung up
                answer.set_result(both)

    async def reload(self):
        """Open what lies at the path now, while the old index is searched; then take it. One that is broken is refused,
        and the old one stays. A folder has one driver at a time: it is closed first, and requests wait."""
        if not Path(self.path).is_dir():
            new = await asyncio.to_thread(open_index, self.path)
        async with self.turn:
            if Path(self.path).is_dir():
                await self._in_worker(self.index.close)
                new = await self._in_worker(open_index, self.path)
            self.index = new
            self.counts["reloads"] += 1

    async def _in_worker(self, function, *arguments):
        return await asyncio.get_running_loop().run_in_executor(self.worker, function, *arguments)


def numbers(body):
    """Queries (nq, d) float32 and k of a request's body.

    Raises:
        ValueError: what is wrong with it.
    """
    try:
        asked = json.loads(body)
    except ValueError as error:
        raise ValueError(f"the body must be JSON: {error}") from None
    if not isinstance(asked, dict) or "queries" not in asked or asked.keys() - {"queries", "k"}:
        raise ValueError('the body must be an object with "queries", a list of vectors, and, if you like, "k"')
    k = asked.get("k", 10)
    if type(k) is not int or not 1 <= k <= MOST_K:
        raise ValueError(f"k must be a whole number in 1..{MOST_K}, got {k!r}")
    try:
        queries = np.array(asked["queries"], np.float32)
    except (ValueError, TypeError, OverflowError):
        raise ValueError("queries must be a list of vectors, each a list of as many numbers") from None
    if queries.ndim != 2 or not 1 <= len(queries) <= MOST_QUERIES or not queries.shape[1]:
        raise ValueError(f"queries must be a list of 1 to {MOST_QUERIES} vectors, got the shape {queries.shape}")
    return queries, k


def plain(found):
    """Distances and ids (or keys) as JSON holds them, fewer than k of a query where there are no more."""
    rows = {"ids": [], "distances": []}
    for distances, ids in zip(*found, strict=True):
        here = np.isfinite(distances)
        rows["ids"].append([_shown(key) for key in ids[here].tolist()])
        rows["distances"].append(distances[here].tolist())
    return rows


def _shown(key):
    """An id, or a key as text."""
    return key if isinstance(key, int) else key.hex() if isinstance(key, bytes) else str(key)


async def body_of(request):
    """What a request brings; ValueError where that is too much."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise ValueError(f"the body must have at most {MOST_BYTES:,} bytes")
    return body


def application(path, window=0.0, most=256, waiting=4096, hangup=False):
    """The ASGI application; with ``hangup`` SIGHUP reloads the index too."""

    @contextlib.asynccontextmanager
    async def lifespan(app):
        server = app.state.server = Server(path, window, most, waiting)
        app.state.running = asyncio.create_task(server.run())
        if hangup:
            reloads = set()  # tasks that nobody holds may be collected
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGHUP, lambda: reloads.add(asyncio.create_task(reloaded(server))))
        yield
        app.state.running.cancel()
        if hasattr(server.index, "close"):
            server.index.close()

    async def reloaded(server):
        try:
            await server.reload()
        except Exception as error:
            return JSONResponse({"error": f"the index before stays: {error}"}, 500)
        return JSONResponse({"vectors": len(server.index)})

    async def search(request):
        try:
            queries, k = numbers(await body_of(request))
            return JSONResponse(plain(await request.app.state.server.search(queries, k)))
        except (ValueError, TypeError) as error:
            return JSONResponse({"error": str(error)}, 400)
        except (BusyError, RuntimeError, OSError) as error:  # a shard that is away is among these
            return JSONResponse({"error": str(error)}, 503, {"Retry-After": "1"})

    async def reload(request):
        return await reloaded(request.app.state.server)

    async def health(request):
        server, alive = request.app.state.server, not request.app.state.running.done()
        facts = {
            "vectors": len(server.index),
            "dim": server.index.dim,
            "waiting": server.queue.qsize(),
            **server.counts,
        }
        return JSONResponse({"ok": alive, **facts}, 200 if alive else 503)

    routes = [
        Route("/search", search, methods=["POST"]),
        Route("/reload", reload, methods=["POST"]),
        Route("/health", health),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


# -- load test -------------------------------------------------------------------------------------------------------


def connected(port):
    """A connection on loopback that ends with a block."""
    return contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30))


def asked(line, method, path, body=None):
    """(status, answer) of one request."""
    line.request(method, path, body)
    answer = line.getresponse()
    return answer.status, json.loads(answer.read())


def health_of(port):
    """What GET /health says."""
    with connected(port) as line:
        return asked(line, "GET", "/health")[1]


@contextlib.contextmanager
def another_process(path, *options):
    """This program, serving ``path`` in a process of its own: (port, process)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, __file__, str(path), "--port", str(port), *options])
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                health_of(port)
                break
            time.sleep(0.1)
        yield port, process
    finally:
        process.terminate()
        process.wait()


def load(port, queries, k, clients, seconds, right):
    """Latencies in s of single queries of ``clients`` threads, and how many answers were not ``right``."""
    times, wrong, end = [], [], time.perf_counter() + seconds

    def ask(number):
        with connected(port) as line:
            while time.perf_counter() < end:
                number = (number + 1) % len(queries)
                body = json.dumps({"queries": [queries[number].tolist()], "k": k})
                began = time.perf_counter()
                status, answer = asked(line, "POST", "/search", body)
                times.append(time.perf_counter() - began)
                if status != 200 or answer["ids"][0] != right[number].tolist():
                    wrong.append(answer)

    threads = [threading.Thread(target=ask, args=(number * 7,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return np.sort(times), wrong


def load_test(vectors, clients, seconds):
    """Latencies with and without batches, and with the index replaced in the middle; what went wrong."""
    rng = np.random.default_rng(0)
    base, queries = (rng.normal(size=(n, 64)).astype(np.float32) for n in (vectors, 200))
    totals = {}
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "index.annvq"
        index = annvq.FlatIndex(annvq.ProductVQ(64, M=8)).fit(base[:20_000]).add(base)
        index.save(path)
        right = index.search(queries, 10)[1]
        for name, *options in (
            ("one at a time", "--most", "1"),
            ("in batches",),
            ("in batches, waiting 1 ms", "--window", "0.001"),
        ):
            with another_process(path, *options) as (port, process):
                load(port, queries, 10, clients, seconds / 5, right)  # for warmth
                before = health_of(port)
                timer = threading.Timer(seconds / 2, lambda: (index.save(path), process.send_signal(signal.SIGHUP)))
                timer.start()
                times, wrong = load(port, queries, 10, clients, seconds, right)
                timer.join()
                after = health_of(port)
            batch = (after["requests"] - before["requests"]) / max(1, after["batches"] - before["batches"])
            p50, p99 = (1000 * times[int(len(times) * share)] for share in (0.5, 0.99))
            print(
                f"{name}: {len(times) / seconds:,.0f} queries/s from {clients} clients, {batch:.1f} a batch, "
                f"p50 {p50:.2f} ms, p99 {p99:.2f} ms, {len(wrong)} wrong, {after['reloads']} reload"
            )
            totals[name] = {"asked": len(times), "wrong": len(wrong), "reloads": after["reloads"]}
    return totals


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", nargs="?", help="file of an index, or folder of a ShardedIndex")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--window", type=float, default=0.0, help="seconds that a query waits for company")
    parser.add_argument("--most", type=int, default=256, help="queries of a batch")
    parser.add_argument("--threads", type=int, help="of annvq; default: all cores")
    parser.add_argument("--load-test", action="store_true", help="measure on this machine, and stop")
    parser.add_argument("--vectors", type=int, default=100_000, help="of the load test")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    if options.load_test:
        return load_test(options.vectors, options.clients, options.seconds)
    if options.index is None:
        parser.error("give an index, or --load-test")
    if options.threads:
        annvq.set_num_threads(options.threads)
    app = application(options.index, options.window, options.most, hangup=True)
    uvicorn.run(app, host=options.host, port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
