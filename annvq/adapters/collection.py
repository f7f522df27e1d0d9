"""Documents with vectors, known by keys: what the adapters of document stores have in common."""

import json
import os
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from annvq.adapters.growing import LEARN_AT, GrowingIndex
from annvq.arrays import positive_int
from annvq.errors import FormatError
from annvq.forks import Lock
from annvq.indexes.contract import Index
from annvq.paths import check_path
from annvq.replacing import replacing
from annvq.storage import write_text
from annvq.types import F32, Self

FORMAT, VERSION = "annvq.collection", 1
_MANIFEST = "collection.json"

Document = dict[str, Any]
"""What JSON holds."""


class Found(NamedTuple):
    """A document that a search found; ``similarity`` is higher for nearer ones."""

    key: str
    document: Document
    similarity: float


class _Entry(NamedTuple):
    id: int
    document: Document
    coded: bool  # whether it has a vector


class Collection:
    """Documents by key, most of them with a vector, which are searched by :class:`GrowingIndex`.

    Documents are kept in memory as JSON holds them. Filters are functions that are asked of every document; the index
    is then searched for the ids that they allow. Methods may be called by several threads.

    Args:
        index, metric, learn_at: see :class:`GrowingIndex`.
    """

    def __init__(
        self, index: Index | None = None, *, metric: str | None = None, learn_at: int | None = LEARN_AT
    ) -> None:
        self.vectors = GrowingIndex(index, metric=metric, learn_at=learn_at)
        self._entries: dict[str, _Entry] = {}
        self._keys: dict[int, str] = {}  # of those with a vector, by id
        self._next = 0
        self._changing = Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def get(self, key: str) -> Document | None:
        """The document of a key; None where there is none."""
        entry = self._entries.get(key)
        return None if entry is None else entry.document

    def has_vector(self, key: str) -> bool:
        """Whether there is a document of this key, with a vector."""
        entry = self._entries.get(key)
        return entry is not None and entry.coded

    def items(self) -> Iterator[tuple[str, Document]]:
        """All keys with their documents, in the order in which keys came."""
        held = list(self._entries.items())  # (at once, so no lock is needed, which is held while an index learns)
        return ((key, entry.document) for key, entry in held)

    def put(self, keys: Sequence[str], documents: Sequence[Document], vectors: Sequence[Any]) -> None:
        """Keep documents, in place of those that have their keys.

        Args:
            keys: one for each document, each once.
            documents: what JSON holds; copied.
            vectors: for each document its vector (d,), or None where it has none.

        Raises:
            TypeError, ValueError: documents that JSON does not hold, bad vectors, keys that repeat or are no str;
                nothing has changed then.
        """
        if isinstance(keys, str):
            raise TypeError(f"keys must be a list of str, got {keys!r}")
        if not len(keys) == len(documents) == len(vectors):
            found = f"{len(keys)}, {len(documents)} and {len(vectors)}"
            raise ValueError(f"keys, documents and vectors must be equally many, got {found}")
        if not all(isinstance(key, str) for key in keys):
            raise TypeError(f"keys must be str, got {next(type(k).__name__ for k in keys if not isinstance(k, str))}")
        if len(set(keys)) < len(keys):
            raise ValueError(f"keys must differ, got {next(k for i, k in enumerate(keys) if k in keys[:i])!r} twice")
        copies = [_as_json(key, document) for key, document in zip(keys, documents, strict=True)]
        coded = [i for i, vector in enumerate(vectors) if vector is not None]
        rows = _matrix([vectors[i] for i in coded]) if coded else None
        with self._changing:
            ids, following = [], self._next
            for key in keys:
                entry = self._entries.get(key)
                ids.append(following if entry is None else entry.id)
                following += entry is None
            if rows is not None:
                self.vectors.upsert(rows, np.array([ids[i] for i in coded], np.int64))
            self._next = following
            bare = [key for i, key in enumerate(keys) if vectors[i] is None]
            self._forget_vectors([e for key in bare if (e := self._entries.get(key)) is not None])
            for key, number, copy, vector in zip(keys, ids, copies, vectors, strict=True):
                self._entries[key] = _Entry(number, copy, vector is not None)
                if vector is not None:
                    self._keys[number] = key

    def update(self, key: str, document: Document) -> None:
        """Replace a document and leave its vector as it is.

        Raises:
            KeyError: there is none of this key.
            TypeError, ValueError: JSON does not hold it.
        """
        copy = _as_json(key, document)
        with self._changing:
            self._entries[key] = self._entries[key]._replace(document=copy)

    def delete(self, keys: Sequence[str]) -> int:
        """Forget the documents of these keys; those that are not there are passed over. Returns how many were.

        Raises:
            TypeError: ``keys`` is one str: its letters are not meant.
        """
        if isinstance(keys, str):
            raise TypeError(f"keys must be a list of str, got {keys!r}")
        with self._changing:
            there = [key for key in dict.fromkeys(keys) if key in self._entries]
            self._forget_vectors([self._entries[key] for key in there])
            for key in there:
                del self._entries[key]
        return len(there)

    def _forget_vectors(self, entries: Sequence[_Entry]) -> None:
        ids = [entry.id for entry in entries if entry.coded]
        if ids:
            self.vectors.remove(np.array(ids, np.int64))
            for number in ids:
                del self._keys[number]

    def clear(self) -> None:
        """Forget all documents; what was learned stays."""
        with self._changing:
            self.vectors.reset()
            self._entries, self._keys, self._next = {}, {}, 0

    def search(self, query: Any, k: int, where: Callable[[str, Document], bool] | None = None) -> list[Found]:
        """The ``k`` nearest documents to a vector.

        Args:
            query: (d,).
            k: documents at most, at least 1.
            where: which documents may be found, by key and document; asked of all that have a vector.

        Returns:
            nearest first; similarities are cosines, inner products, or under l2 squared distances less than zero.

        Raises:
            TypeError, ValueError: no such vector, or ``k`` below 1.
        """
        rows, k = _matrix([query]), positive_int(k, "k")
        if not len(self.vectors):
            return []
        allowed = None
        if where is not None:
            ids = [entry.id for key, entry in list(self._entries.items()) if entry.coded and where(key, entry.document)]
            if not ids:
                return []
            allowed = np.array(ids, np.int64)
        distances, found = self.vectors.search(rows, min(k, len(self.vectors)), filter=allowed)
        offset = 1.0 if self.vectors.metric == "cosine" else 0.0
        results = []
        for number, distance in zip(found[0].tolist(), distances[0].tolist(), strict=True):
            key = self._keys.get(number)
            entry = None if key is None else self._entries.get(key)
            if key is not None and entry is not None:  # else removed meanwhile
                results.append(Found(key, entry.document, offset - distance))
        return results

    def vectors_of(self, keys: Sequence[str]) -> F32:
        """The vectors (n, d) of documents that have one: as they came, or decoded once an index has learned.

        Raises:
            ValueError: a key that is not there or has no vector.
        """
        entries = [self._entries.get(key) for key in keys]
        missing = [key for key, entry in zip(keys, entries, strict=True) if entry is None or not entry.coded]
        if missing:
            raise ValueError(f"keys must be of documents with a vector, got {missing[:5]}")
        return self.vectors.reconstruct(np.array([entry.id for entry in entries if entry is not None], np.int64))

    # -- files ---------------------------------------------------------------------------------------------------

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write a folder: ``documents-….jsonl``, ``vectors-….annvq`` (an index's file once one has learned) and
        ``collection.json``, which names the two. It is replaced last, so readers see the old state or the new one.

        Raises:
            OSError, ValueError: it cannot be written there.
        """
        where = Path(check_path(folder, "folder"))
        where.mkdir(parents=True, exist_ok=True)
        own = uuid.uuid4().hex[:12]  # a name no other save has, of this process or another
        files = {"documents": f"documents-{own}.jsonl", "vectors": f"vectors-{own}.annvq"}
        with self._changing:
            before: dict[str, Any] = {"generation": 0, "files": {}}
            if (where / _MANIFEST).is_file():
                before = _read_manifest(where)
            checksum = 0
            with replacing(where / files["documents"]) as temporary, open(temporary, "wb") as file:
                for key, entry in self._entries.items():
                    line = {"key": key, "id": entry.id, "coded": entry.coded, "document": entry.document}
                    data = json.dumps(line, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
                    checksum = zlib.crc32(data, checksum)
                    file.write(data)
            self.vectors.save(where / files["vectors"])
            manifest = {
                "format": FORMAT,
                "version": VERSION,
                "generation": before["generation"] + 1,
                "files": files,
                "documents": len(self._entries),
                "crc32": checksum,
                "next_id": self._next,
            }
            write_text(where / _MANIFEST, json.dumps(manifest, indent=1))
            for name in before["files"].values():
                (where / name).unlink(missing_ok=True)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, mmap: bool = False) -> Self:
        """Read what :meth:`save` wrote; ``mmap`` as :func:`annvq.load_index` has it.

        Raises:
            FileNotFoundError: no such folder.
            FormatError: not such a folder, or damaged.
        """
        where = Path(check_path(folder, "folder"))
        for _ in range(100):
            manifest = _read_manifest(where)
            try:
                return cls._loaded(where, manifest, mmap)
            except (FileNotFoundError, FormatError):  # saved anew meanwhile, its files gone while they were opened
                if _read_manifest(where) == manifest:
                    raise
        raise FormatError(f"{where} was saved again and again while it was read")

    @classmethod
    def _loaded(cls, where: Path, manifest: dict[str, Any], mmap: bool) -> Self:
        made = cls()
        made.vectors = GrowingIndex.load(where / manifest["files"]["vectors"], mmap=mmap)
        path, checksum = where / manifest["files"]["documents"], 0
        try:
            with open(path, "rb") as file:
                for line in file:
                    checksum = zlib.crc32(line, checksum)
                    held = json.loads(line.decode("utf-8", "surrogatepass"))
                    made._entries[held["key"]] = _Entry(held["id"], held["document"], held["coded"])
        except (ValueError, KeyError, TypeError) as error:
            raise FormatError(f"{path} is corrupt: {error!r}") from None
        made._keys = {entry.id: key for key, entry in made._entries.items() if entry.coded}
        made._next = manifest["next_id"]
        if checksum != manifest["crc32"] or len(made._entries) != manifest["documents"]:
            raise FormatError(f"{path} is corrupt: it fails its checksum")
        if len(made._keys) != len(made.vectors):
            raise FormatError(f"{where} is corrupt: {len(made._keys)} documents have vectors, of {len(made.vectors)}")
        return made


def _read_manifest(where: Path) -> dict[str, Any]:
    path = where / _MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"{where} holds no collection: there is no {_MANIFEST} in it")
    try:
        held: Any = json.loads(path.read_text(encoding="utf-8"))
        known = held["format"] == FORMAT and held["version"] == VERSION
        names = [held["files"]["documents"], held["files"]["vectors"]]
        plain = all(isinstance(name, str) and Path(name).name == name for name in names)
        numbers = all(type(held[key]) is int for key in ("generation", "documents", "crc32", "next_id"))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(f"{path} is corrupt: {error!r}") from None
    if not (known and plain and numbers):
        raise FormatError(f"{path} is no {FORMAT} of version {VERSION}")
    manifest: dict[str, Any] = held
    return manifest


def _as_json(key: str, document: Document) -> Document:
    try:
        copy: Document = json.loads(json.dumps(document))
    except (TypeError, ValueError, RecursionError) as error:
        raise type(error)(f"document {key!r} must hold only what JSON holds: {error}") from None
    return copy


def _matrix(vectors: Sequence[Any]) -> F32:
    """Vectors of one length as float32 (n, d)."""
    try:
        rows = np.asarray([np.asarray(vector, np.float32) for vector in vectors], np.float32)
    except ValueError as error:
        raise ValueError(f"vectors must be numbers, equally many in each: {error}") from None
    if rows.ndim != 2:
        raise ValueError(f"vectors must be of shape (d,) each, got {rows.shape[1:]}")
    return rows
