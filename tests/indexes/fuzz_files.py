"""Mutated index files: each is refused with FormatError, or loads and answers as its contents say.

    python tests/indexes/fuzz_files.py --count 10000 --seed 1

Bits are flipped, files cut, spliced and padded, archive headers edited, and contents edited with their checksums made
right again. Every file is loaded as a whole and as a memory map, by a process whose memory and time are limited: a
crash, a hang or a huge allocation ends it, and the file that did it stays.
"""

import argparse
import json
import resource
import signal
import sys
import tempfile
import uuid
import zlib
from collections import Counter
from pathlib import Path

import numpy as np

import annvq
from annvq.errors import FormatError
from annvq.indexes import Index
from annvq.training import KMeans, Recipe

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
import scan_reference as reference

GOLDEN = Path(__file__).parents[1] / "golden"
MEMORY = 1 << 30  # bytes beyond those that the process starts from
SECONDS = 20  # for one file
VALUES = (None, True, -1, 0, 1, 2, 255, 256, 1 << 31, 1 << 63, 1 << 70, 0.5, 1e308, float("nan"), "", "x", "l2", [], {})


def seeds(folder: Path) -> list[Path]:
    """Small files of every layout, golden ones among them."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(700, 8)).astype(np.float32)
    cases = [("product", 8, "auto"), ("residual", 8, "uint8"), ("residual", 8, "float32"), ("additive", 4, "uint8")]
    for number, (kind, nbits, norm) in enumerate([*cases, ("residual", (2, 9, 4, 5), "uint8")]):
        q = annvq.make(kind, dim=8, M=4, nbits=nbits).fit(x, recipe=Recipe((KMeans(2),)))
        ids = rng.permutation(2000)[:700] if number % 2 else None
        annvq.FlatIndex(q, norm=norm).add(x, ids).save(folder / f"{number}")
    for number, refine in enumerate([None, "float16", None, "uint8"]):
        q = annvq.make("residual", dim=8, M=2, nbits=8 if number < 2 else 4)
        rows = x if refine != "uint8" else np.abs(x * 40).astype(np.uint8)
        index = annvq.IVFIndex(q, nlist=5)
        whole = index if refine is None else annvq.RerankIndex(index, refine, shortlist=50)
        whole.fit(rows, recipe=Recipe((KMeans(2),))).add(rows, rng.permutation(2000)[:700])
        whole.save(folder / f"ivf{number}")
        keyed = annvq.KeyedIndex(
            whole, [f"é{i}" for i in range(700)] if number % 2 else [uuid.UUID(int=i) for i in range(700)]
        )
        keyed.remove(list(keyed.keys)[5:9])
        keyed.save(folder / f"keyed{number}")
    return [*sorted(folder.iterdir()), *sorted(GOLDEN.glob("v*/*.annvq"))]


# -- mutations ---------------------------------------------------------------------------------------------------


def flip(data: bytearray, rng: np.random.Generator, _: list[bytes]) -> bytes:
    # Half of the flips go to the front, where the headers are.
    end = len(data) if rng.random() < 0.5 else min(len(data), 3000)
    for _ in range(int(rng.integers(1, 9))):
        data[int(rng.integers(end))] ^= 1 << int(rng.integers(8))
    return bytes(data)


def cut(data: bytearray, rng: np.random.Generator, _: list[bytes]) -> bytes:
    return bytes(data[: int(rng.integers(len(data)))])


def pad(data: bytearray, rng: np.random.Generator, _: list[bytes]) -> bytes:
    return bytes(data) + rng.bytes(int(rng.integers(1, 100)))


def splice(data: bytearray, rng: np.random.Generator, others: list[bytes]) -> bytes:
    other = others[int(rng.integers(len(others)))]
    a, b = sorted(rng.integers(0, len(other), 2).tolist())
    at = int(rng.integers(len(data)))
    stop = at + (b - a if rng.random() < 0.5 else int(rng.integers(0, 200)))
    return bytes(data[:at]) + other[a:b] + bytes(data[stop:])


def edit_archive(data: bytearray, rng: np.random.Generator, _: list[bytes]) -> bytes:
    head, rest = parsed(data)
    edit(head, rng)
    return assembled(head, rest)


def edit_contents(data: bytearray, rng: np.random.Generator, _: list[bytes]) -> bytes:
    """Config and tensors changed, sizes and checksums made right again."""
    head, rest = parsed(data)
    header = json.loads(head.pop("__metadata__")["annvq"])
    tensors = {n: rest[e["data_offsets"][0] : e["data_offsets"][1]] for n, e in head.items()}
    if rng.random() < 0.5:
        edit(header["config"] if rng.random() < 0.9 else header, rng)
    else:
        name = list(tensors)[int(rng.integers(len(tensors)))]
        kind = int(rng.integers(4))
        if kind == 0:
            del tensors[name], head[name]
        elif kind == 1:
            edit(head[name], rng)
        else:
            changed = bytearray(tensors[name])
            for _ in range(int(rng.integers(1, 5)) if changed else 0):
                value = rng.choice([b"\xff" * 8, b"\x00" * 8, b"\x00\x00\xc0\x7f" * 2, rng.bytes(8)])
                at = int(rng.integers(max(1, len(changed)))) // 8 * 8
                changed[at : at + 8] = bytes(value)[: len(changed[at : at + 8])]
            tensors[name] = bytes(changed)
    at, body, listed = 0, b"", {}
    for name, content in tensors.items():
        entry = head[name]
        entry["data_offsets"] = [at, at + len(content)]
        at += len(content)
        body += content
        dtype = {"I64": "int64", "F32": "float32", "U8": "uint8", "BOOL": "bool"}.get(str(entry.get("dtype")), "x")
        crc = zlib.crc32(content) if content else 0
        listed[name] = {"dtype": dtype, "shape": entry.get("shape"), "crc32": crc}
    header["tensors"] = listed
    text = json.dumps(header)
    head["__metadata__"] = {"annvq": text, "crc32": str(zlib.crc32(text.encode()))}
    return assembled(head, body)


def parsed(data: bytearray) -> tuple[dict, bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(bytes(data[8 : 8 + length])), bytes(data[8 + length :])


def assembled(head: dict, body: bytes) -> bytes:
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + body


def edit(tree: dict, rng: np.random.Generator) -> None:
    """Change, drop or add one thing somewhere in a tree of JSON."""
    places: list[tuple] = []

    def walk(node: object) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, value in items:
            places.append((node, key, value))
            walk(value)

    walk(tree)
    if not places:
        return
    node, key, value = places[int(rng.integers(len(places)))]
    kind = rng.random()
    if kind < 0.15 and isinstance(node, dict):
        del node[key]
    elif kind < 0.2 and isinstance(node, dict):
        node[f"{key}x"] = value
    elif kind < 0.6 and type(value) is int:
        node[key] = value + int(rng.choice([-1, 1, 7, -value * 2, 1 << 33]))
    else:
        node[key] = VALUES[int(rng.integers(len(VALUES)))]


MUTATIONS = (flip, cut, pad, splice, edit_archive, edit_contents, edit_contents)


# -- what must hold ----------------------------------------------------------------------------------------------


def judge(path: Path, queries: np.ndarray, *, mmap: bool) -> str:
    """``"refused"`` or ``"loaded"``; AssertionError where an index answers otherwise than its contents say."""
    try:
        index = annvq.load_index(path, mmap=mmap)
    except FormatError:
        return "refused"
    if index.dim != queries.shape[1]:
        return "loaded"
    try:
        if isinstance(index, annvq.KeyedIndex):
            keys, index = has_keys(index, queries, mmap=mmap), index.index
            np.testing.assert_array_equal(keys, index.search(queries, 9)[1])
        distances, ids = index.search(queries, 9)
    except ValueError:  # tables that overflow, mapped ids without a key
        return "loaded"
    assert (distances[:, 1:] >= distances[:, :-1]).all()
    assert ((ids >= 0) == (distances < np.inf)).all() or mmap
    if index.kind == "flat":
        answers_as_its_contents(index, queries, distances, ids)
    if not mmap:
        goes_on(index, path, queries, (distances, ids))
    return "loaded"


def has_keys(index: annvq.KeyedIndex, queries: np.ndarray, *, mmap: bool) -> np.ndarray:
    """The ids of the keys that a search finds; a file that was read whole has one for each vector."""
    found = index.search(queries, 9)[1]
    listed = [key for key in found.ravel().tolist() if key is not None]
    ids = np.full(found.shape, -1)
    ids[np.not_equal(found, None)] = index.keys.ids_of(listed)
    if not mmap:
        keys = list(index.keys)
        assert len(set(keys)) == len(keys) == len(index)
        assert list(annvq.load_index(index.to_bytes()).keys) == keys
    return ids


def answers_as_its_contents(
    index: annvq.FlatIndex, queries: np.ndarray, distances: np.ndarray, ids: np.ndarray
) -> None:
    codes, norms, stored, _ = index._store.export()
    assert len(index) == len(codes)
    tables, bias, levels = index.coding.tables(index.asked(queries, 9)[0])
    values = norms if levels is None or norms is None else levels[norms]
    with np.errstate(all="ignore"):
        expected = reference.scan(codes, tables.build(), bias, 9, norms=values, ids=stored)
    np.testing.assert_array_equal(ids, expected[1])
    np.testing.assert_array_equal(distances, np.maximum(expected[0], 0) if index.metric == "l2" else expected[0])


def goes_on(index: Index, path: Path, queries: np.ndarray, before: tuple[np.ndarray, np.ndarray]) -> None:
    """A file that was read whole gives an index that can be saved, read again and changed."""
    stored = index.ids
    assert len(np.unique(stored)) == len(stored) == len(index)
    assert stored.min(initial=0) >= 0
    assert np.isin(before[1][before[1] >= 0], stored).all()
    index.save(path.with_name("again"))
    again = annvq.load_index(path.with_name("again"))
    for a, b in zip(before, again.search(queries, 9), strict=True):
        np.testing.assert_array_equal(a, b)
    index.remove(stored[:1])


def limit_memory() -> None:
    statm = Path("/proc/self/statm")
    if not statm.exists():  # not Linux: what is in use is not known, nor what the limit would bound
        return
    used = int(statm.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="mutated files")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    queries = rng.normal(size=(3, 8)).astype(np.float32)
    annvq.set_num_threads(1)
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        files = [f.read_bytes() for f in seeds(Path(folder))]
        bad = Path(folder) / "mutated"
        for original in files:
            bad.write_bytes(original)
            assert judge(bad, queries, mmap=False) == judge(bad, queries, mmap=True) == "loaded"
        limit_memory()
        for number in range(arguments.count):
            mutation = MUTATIONS[int(rng.integers(len(MUTATIONS)))]
            original = files[int(rng.integers(len(files)))]
            content = mutation(bytearray(original), rng, files)
            bad.write_bytes(content)
            if number % 500 == 0:
                print(f"{number} of {arguments.count}, in {bad}", file=sys.stderr, flush=True)
            signal.alarm(SECONDS)
            try:
                for mmap in (False, True):
                    outcome = judge(bad, queries, mmap=mmap)
                    outcomes[f"{mutation.__name__}, {'mapped' if mmap else 'read'}: {outcome}"] += 1
                    checked = mutation in (flip, cut, pad, splice) and content != original and not mmap
                    assert not (checked and outcome == "loaded" and not same_contents(bad, original)), "wrong contents"
            except BaseException:
                Path("mutated.annvq").write_bytes(content)
                print(f"file {number} ({mutation.__name__}) is kept as mutated.annvq", file=sys.stderr)
                raise
            signal.alarm(0)
    for what, times in sorted(outcomes.items()):
        print(f"{what}: {times}")
    print(f"{arguments.count} mutated files, each read and mapped: no crash, hang or wrong answer")
    return 0


def same_contents(path: Path, original: bytes) -> bool:
    """Whether what loads is what was saved, as where only the archive's padding changed."""
    other = path.with_name("original")
    other.write_bytes(original)
    a, b = annvq.load_index(path), annvq.load_index(other)
    if isinstance(a, annvq.KeyedIndex) or isinstance(b, annvq.KeyedIndex):
        if not isinstance(a, annvq.KeyedIndex) or list(a.keys) != list(b.keys):
            return False
        a, b = a.index, b.index
    return np.array_equal(a.ids, b.ids) and np.array_equal(a.reconstruct(a.ids), b.reconstruct(b.ids))


if __name__ == "__main__":
    sys.exit(main())
