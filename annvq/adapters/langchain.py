"""LangChain's ``VectorStore``."""

import asyncio
import os
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from annvq.adapters.collection import Collection, Found
from annvq.adapters.growing import LEARN_AT
from annvq.arrays import positive_int
from annvq.indexes.contract import Index
from annvq.optional import needed_by
from annvq.types import Self

with needed_by("annvq.adapters.langchain"):
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import VectorStore
    from langchain_core.vectorstores.utils import maximal_marginal_relevance

Filter = Callable[[Document], bool] | Mapping[str, Any] | None
"""A function of a document, or what its metadata must be: ``{"lang": "en", "year": {"$gte": 2020}}``."""

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": lambda held, asked: held == asked,
    "$ne": lambda held, asked: held != asked,
    "$gt": lambda held, asked: held is not None and held > asked,
    "$gte": lambda held, asked: held is not None and held >= asked,
    "$lt": lambda held, asked: held is not None and held < asked,
    "$lte": lambda held, asked: held is not None and held <= asked,
    "$in": lambda held, asked: held in asked,
    "$nin": lambda held, asked: held not in asked,
}


class AnnvqVectorStore(VectorStore):
    """Texts, embedded by ``embedding`` and searched by annvq.

    Few texts are compared exactly; once there are ``learn_at``, an index learns from their vectors and codes them and
    all later ones (:class:`~annvq.adapters.growing.GrowingIndex`). Documents live in memory; :meth:`save` writes them.

    Args:
        embedding: LangChain's embedding model.
        index: an annvq index to put vectors into, empty, fitted or not; None: annvq's choice.
        metric: ``"cosine"``, ``"ip"`` or ``"l2"``.
        learn_at: so many texts are learned from; None: none until ``store.collection.vectors.learn()``.
    """

    def __init__(
        self,
        embedding: Embeddings,
        *,
        index: Index | None = None,
        metric: str | None = None,
        learn_at: int | None = LEARN_AT,
    ) -> None:
        self.embedding = embedding
        self.collection = Collection(index, metric=metric, learn_at=learn_at)

    @property
    def embeddings(self) -> Embeddings:
        """The embedding model."""
        return self.embedding

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **settings: Any,
    ) -> Self:
        """A store of these texts; ``settings`` are the constructor's."""
        store = cls(embedding, **settings)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    # -- changes -------------------------------------------------------------------------------------------------

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Embed texts and keep them, in place of those that have their ids; returns the ids, made where none is given.

        Raises:
            ValueError, TypeError: unequal numbers, metadata that JSON does not hold, bad vectors.
        """
        held = _texts(texts)
        return self._put(held, metadatas, ids, self.embedding.embed_documents(held) if held else [])

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """:meth:`add_texts`, with the model's own asynchronous embedding."""
        held = _texts(texts)
        vectors = await self.embedding.aembed_documents(held) if held else []
        return await asyncio.to_thread(self._put, held, metadatas, ids, vectors)

    def _put(
        self,
        texts: list[str],
        metadatas: list[dict[str, Any]] | None,
        ids: Sequence[str | None] | None,
        vectors: Sequence[Any],
    ) -> list[str]:
        about = [{}] * len(texts) if metadatas is None else [{} if m is None else m for m in metadatas]
        if wrong := [m for m in about if not isinstance(m, Mapping)]:
            raise TypeError(f"metadatas must be mappings, got {wrong[0]!r}")
        keys = [given or str(uuid.uuid4()) for given in (ids or [None] * len(texts))]
        if len(about) != len(texts) or len(keys) != len(texts):
            raise ValueError(
                f"metadatas and ids must be one for each of the {len(texts)} texts, got {len(about)} and {len(keys)}"
            )
        last = {key: i for i, key in enumerate(keys)}  # of texts with the same id the last one stays
        rows = list(last.values())
        documents = [{"text": texts[i], "metadata": dict(about[i])} for i in rows]
        self.collection.put(list(last), documents, [vectors[i] for i in rows])
        return keys

    def delete(self, ids: Sequence[str] | None = None, **kwargs: Any) -> bool:
        """Forget the documents of these ids, all of them where none are given; those that are not there are passed
        over."""
        if ids is None:
            self.collection.clear()
        else:
            self.collection.delete(ids)
        return True

    # -- reading -------------------------------------------------------------------------------------------------

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The documents of these ids; those that are not there are passed over."""
        found = ((key, self.collection.get(key)) for key in ids)
        return [_document(key, held) for key, held in found if held is not None]

    def similarity_search_with_score_by_vector(
        self, embedding: Sequence[float], k: int = 4, *, filter: Filter = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """The ``k`` nearest documents to a vector with their similarities, which are higher for nearer ones: cosines,
        inner products, or squared distances times −1."""
        return [(_document(f.key, f.document), f.similarity) for f in self._found(embedding, k, filter)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, *, filter: Filter = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """The ``k`` nearest documents to a text, with their similarities."""
        return self.similarity_search_with_score_by_vector(self.embedding.embed_query(query), k, filter=filter)

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, *, filter: Filter = None, **kwargs: Any
    ) -> list[Document]:
        """The ``k`` nearest documents to a vector."""
        return [document for document, _ in self.similarity_search_with_score_by_vector(embedding, k, filter=filter)]

    def similarity_search(self, query: str, k: int = 4, *, filter: Filter = None, **kwargs: Any) -> list[Document]:
        """The ``k`` nearest documents to a text."""
        return self.similarity_search_by_vector(self.embedding.embed_query(query), k, filter=filter)

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Filter = None,
        **kwargs: Any,
    ) -> list[Document]:
        """``k`` of the ``fetch_k`` nearest documents, near to the vector and far from one another (Carbonell and
        Goldstein, SIGIR 1998)."""
        positive_int(k, "k")
        found = self._found(embedding, positive_int(fetch_k, "fetch_k"), filter)
        if not found:
            return []
        vectors = self.collection.vectors_of([f.key for f in found])
        rows = maximal_marginal_relevance(np.asarray(embedding, np.float32), list(vectors), lambda_mult, k)
        return [_document(found[i].key, found[i].document) for i in rows]

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Filter = None,
        **kwargs: Any,
    ) -> list[Document]:
        """:meth:`max_marginal_relevance_search_by_vector` of a text."""
        vector = self.embedding.embed_query(query)
        return self.max_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, filter=filter)

    def _found(self, embedding: Sequence[float], k: int, filter: Filter) -> list[Found]:
        return self.collection.search(embedding, k, None if filter is None else _judge(filter))

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        if self.collection.vectors.metric == "l2":
            return lambda similarity: 1 / (1 - similarity)
        return lambda similarity: min(1.0, max(0.0, similarity))

    # -- files ---------------------------------------------------------------------------------------------------

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write all to a folder, see :meth:`~annvq.adapters.collection.Collection.save`; no pickle."""
        self.collection.save(folder)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], embedding: Embeddings, *, mmap: bool = False) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: no such folder.
            FormatError: not such a folder, or damaged.
        """
        store = cls(embedding)
        store.collection = Collection.load(folder, mmap=mmap)
        return store


def _document(key: str, held: dict[str, Any]) -> Document:
    return Document(id=key, page_content=held["text"], metadata=dict(held["metadata"]))


def _judge(filter: Callable[[Document], bool] | Mapping[str, Any]) -> Callable[[str, dict[str, Any]], bool]:
    if callable(filter):
        return lambda key, held: bool(filter(_document(key, held)))
    if not isinstance(filter, Mapping):
        raise TypeError(f"filter must be a function of a document, or a mapping, got {filter!r}")
    for name, asked in filter.items():
        if str(name).startswith("$"):
            raise ValueError(
                f"filter must name metadata, as {{'year': {{'$gte': 2020}}}} does, got {name!r}; all that it names "
                "must fit, and for other combinations it may be a function of a document"
            )
        unknown = [op for op in asked if op not in _OPERATORS] if isinstance(asked, Mapping) else []
        if unknown:
            raise ValueError(f"filter of {name!r} must use {', '.join(_OPERATORS)}, got {unknown[0]!r}")
        for op in ("$in", "$nin"):
            if isinstance(asked, Mapping) and op in asked and not isinstance(asked[op], (list, tuple, set, frozenset)):
                raise TypeError(f"filter of {name!r} must have a list after {op}, got {asked[op]!r}")
    return lambda key, held: all(_fits(name, held["metadata"].get(name), asked) for name, asked in filter.items())


def _fits(name: str, held: Any, asked: Any) -> bool:
    conditions = asked if isinstance(asked, Mapping) else {"$eq": asked}
    try:
        return all(_OPERATORS[op](held, value) for op, value in conditions.items())
    except TypeError as error:
        raise TypeError(f"filter of {name!r} must ask what its values can be compared with: {error}") from None


def _texts(texts: Iterable[str]) -> list[str]:
    held = [] if isinstance(texts, str) else list(texts)
    if isinstance(texts, str) or not all(isinstance(text, str) for text in held):
        raise TypeError(f"texts must be a list of str, got {str(texts)[:80]!r}")
    return held
