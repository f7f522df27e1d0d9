"""Haystack's document store, and the retriever that goes with it."""

import asyncio
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from annvq.adapters.collection import Collection, Found
from annvq.adapters.growing import LEARN_AT
from annvq.arrays import positive_int
from annvq.indexes.contract import Index
from annvq.optional import needed_by

with needed_by("annvq.adapters.haystack"):
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.document_stores.errors import DuplicateDocumentError
    from haystack.document_stores.types import DuplicatePolicy, FilterPolicy, apply_filter_policy
    from haystack.utils.filters import document_matches_filter

Filters = dict[str, Any] | None


class AnnvqDocumentStore:
    """Documents, of which those with embeddings are searched by annvq.

    Few embeddings are compared exactly; once there are ``learn_at``, an index learns from them and codes them and all
    later ones (:class:`~annvq.adapters.growing.GrowingIndex`). Documents live in memory; :meth:`save_to_disk` writes
    them. They come back without embeddings unless ``return_embedding``, and then with those that the index holds:
    float32 before it has learned, decoded ones after.

    Args:
        path: a folder that :meth:`save_to_disk` wrote, which is read if it is there, and where it writes by default.
        metric: ``"cosine"``, ``"ip"`` or ``"l2"``.
        learn_at: so many embeddings are learned from; None: none until ``store.collection.vectors.learn()``.
        index: path of an annvq index to put embeddings into, empty, fitted or not; None: annvq's choice.
        return_embedding: whether documents come back with embeddings.
    """

    def __init__(
        self,
        path: str | None = None,
        metric: str | None = None,
        learn_at: int | None = LEARN_AT,
        index: str | None = None,
        return_embedding: bool = False,
    ) -> None:
        self.path, self.metric, self.learn_at, self.index = path, metric, learn_at, index
        self.return_embedding = return_embedding
        if path is not None and (Path(path) / "collection.json").is_file():
            self.collection = Collection.load(path)
        else:
            empty = None if index is None else Index.load(index)
            self.collection = Collection(empty, metric=metric, learn_at=learn_at)

    def to_dict(self) -> dict[str, Any]:
        """The arguments; documents are in the folder at ``path``."""
        given = {name: getattr(self, name) for name in ("path", "metric", "learn_at", "index", "return_embedding")}
        made: dict[str, Any] = default_to_dict(self, **given)
        return made

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "AnnvqDocumentStore":
        """The inverse of :meth:`to_dict`."""
        made: AnnvqDocumentStore = default_from_dict(cls, data)
        return made

    # -- changes -------------------------------------------------------------------------------------------------

    def write_documents(self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE) -> int:
        """Keep documents. With the policies NONE and FAIL one whose id is there is an error, and nothing is written.

        Returns:
            how many were written.

        Raises:
            ValueError: no documents, or embeddings that cannot be kept.
            DuplicateDocumentError: as the policy says.
        """
        given: Any = documents
        if not isinstance(given, Iterable) or isinstance(given, str):
            raise ValueError(f"documents must be a list of Documents, got {type(documents).__name__}")
        given = list(given)
        if any(not isinstance(document, Document) for document in given):
            raise ValueError("documents must be a list of Documents")
        chosen: dict[str, Document] = {}
        for document in given:
            if policy != DuplicatePolicy.OVERWRITE and (document.id in self.collection or document.id in chosen):
                if policy == DuplicatePolicy.SKIP:
                    continue
                raise DuplicateDocumentError(f"ID '{document.id}' already exists.")
            chosen[document.id] = document
        held = [replace(document, embedding=None, score=None).to_dict(flatten=False) for document in chosen.values()]
        self.collection.put(list(chosen), held, [document.embedding for document in chosen.values()])
        return len(given) if policy == DuplicatePolicy.OVERWRITE else len(chosen)

    def delete_documents(self, document_ids: list[str]) -> None:
        """Forget the documents of these ids; those that are not there are passed over."""
        self.collection.delete(document_ids)

    def delete_all_documents(self) -> None:
        """Forget all documents; what was learned stays."""
        self.collection.clear()

    def delete_by_filter(self, filters: dict[str, Any]) -> int:
        """Forget the documents that filters match; returns how many."""
        return self.collection.delete([key for key, _ in self._matching(filters)])

    def update_by_filter(self, filters: dict[str, Any], meta: dict[str, Any]) -> int:
        """Put ``meta`` into the metadata of the documents that filters match; returns how many."""
        matching = self._matching(filters)
        for key, held in matching:
            self.collection.update(key, {**held, "meta": {**held["meta"], **meta}})
        return len(matching)

    # -- reading -------------------------------------------------------------------------------------------------

    def count_documents(self) -> int:
        """How many documents there are."""
        return len(self.collection)

    def count_documents_by_filter(self, filters: dict[str, Any]) -> int:
        """How many documents filters match."""
        return len(self._matching(filters))

    def filter_documents(self, filters: Filters = None) -> list[Document]:
        """The documents that filters match, in the order in which they came.

        Raises:
            FilterError, ValueError: filters that are none.
        """
        return [self._document(key, held, None, self.return_embedding) for key, held in self._matching(filters)]

    def _matching(self, filters: Filters) -> list[tuple[str, dict[str, Any]]]:
        judge = _judge(filters)
        return [(key, held) for key, held in self.collection.items() if judge is None or judge(key, held)]

    def embedding_retrieval(
        self,
        query_embedding: list[float],
        filters: Filters = None,
        top_k: int = 10,
        return_embedding: bool | None = None,
    ) -> list[Document]:
        """The ``top_k`` documents whose embeddings are nearest. ``score`` is higher for nearer ones: the cosine, the
        inner product, or the squared distance times −1.

        Raises:
            FilterError, ValueError, TypeError: bad filters, an embedding of another dimension, ``top_k`` below 1.
        """
        k = positive_int(top_k, "top_k")
        found: list[Found] = self.collection.search(query_embedding, k, _judge(filters))
        embedded = self.return_embedding if return_embedding is None else return_embedding
        return [self._document(f.key, f.document, f.similarity, embedded) for f in found]

    def _document(self, key: str, held: dict[str, Any], score: float | None, embedded: bool) -> Document:
        document: Document = Document.from_dict({**held, "meta": dict(held["meta"])})
        if embedded and self.collection.has_vector(key):
            document = replace(document, embedding=self.collection.vectors_of([key])[0].tolist())
        return document if score is None else replace(document, score=score)

    # -- asynchronously ------------------------------------------------------------------------------------------

    async def count_documents_async(self) -> int:
        """:meth:`count_documents`."""
        return self.count_documents()

    async def write_documents_async(
        self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE
    ) -> int:
        """:meth:`write_documents`, in a thread."""
        return await asyncio.to_thread(self.write_documents, documents, policy)

    async def delete_documents_async(self, document_ids: list[str]) -> None:
        """:meth:`delete_documents`, in a thread."""
        await asyncio.to_thread(self.delete_documents, document_ids)

    async def filter_documents_async(self, filters: Filters = None) -> list[Document]:
        """:meth:`filter_documents`, in a thread."""
        return await asyncio.to_thread(self.filter_documents, filters)

    async def embedding_retrieval_async(self, query_embedding: list[float], **settings: Any) -> list[Document]:
        """:meth:`embedding_retrieval`, in a thread."""
        return await asyncio.to_thread(self.embedding_retrieval, query_embedding, **settings)

    # -- files ---------------------------------------------------------------------------------------------------

    def save_to_disk(self, path: str | os.PathLike[str] | None = None) -> None:
        """Write all to a folder, by default the one that the store was made with; no pickle. See
        :meth:`~annvq.adapters.collection.Collection.save`.

        Raises:
            ValueError: no folder was named.
        """
        target = self.path if path is None else path
        if target is None:
            raise ValueError("path must be given, as the store was made without one")
        self.collection.save(target)


def _judge(filters: Filters) -> Callable[[str, dict[str, Any]], bool] | None:
    if not filters:
        return None
    if "operator" not in filters and "conditions" not in filters:
        raise ValueError("filters must have Haystack's form: a comparison or a logical condition")
    return lambda key, held: bool(document_matches_filter(filters=filters, document=Document.from_dict(dict(held))))


@component
class AnnvqEmbeddingRetriever:
    """The documents of an :class:`AnnvqDocumentStore` that are nearest to the embedding of a query.

    Args:
        document_store: the store.
        filters: which documents may be found, unless a run says otherwise.
        top_k: how many, unless a run says otherwise.
        return_embedding: whether they come with embeddings; None: as the store says.
        filter_policy: whether the filters of a run take the place of these, or are added.
    """

    def __init__(
        self,
        document_store: AnnvqDocumentStore,
        filters: Filters = None,
        top_k: int = 10,
        return_embedding: bool | None = None,
        filter_policy: str | FilterPolicy = FilterPolicy.REPLACE,
    ) -> None:
        if not isinstance(document_store, AnnvqDocumentStore):
            raise TypeError(f"document_store must be an AnnvqDocumentStore, got {type(document_store).__name__}")
        self.document_store, self.filters, self.top_k = document_store, filters, positive_int(top_k, "top_k")
        self.return_embedding = return_embedding
        self.filter_policy = FilterPolicy.from_str(filter_policy) if isinstance(filter_policy, str) else filter_policy

    def to_dict(self) -> dict[str, Any]:
        """The arguments."""
        made: dict[str, Any] = default_to_dict(
            self,
            document_store=self.document_store.to_dict(),
            filters=self.filters,
            top_k=self.top_k,
            return_embedding=self.return_embedding,
            filter_policy=self.filter_policy.value,
        )
        return made

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "AnnvqEmbeddingRetriever":
        """The inverse of :meth:`to_dict`."""
        arguments = dict(data["init_parameters"])
        if isinstance(arguments["document_store"], dict):
            arguments["document_store"] = AnnvqDocumentStore.from_dict(arguments["document_store"])
        made: AnnvqEmbeddingRetriever = default_from_dict(cls, {**data, "init_parameters": arguments})
        return made

    @component.output_types(documents=list[Document])
    def run(
        self, query_embedding: list[float], filters: Filters = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """The nearest documents."""
        return {"documents": self.document_store.embedding_retrieval(query_embedding, **self._asked(filters, top_k))}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query_embedding: list[float], filters: Filters = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """:meth:`run`, in a thread."""
        store = self.document_store
        return {"documents": await store.embedding_retrieval_async(query_embedding, **self._asked(filters, top_k))}

    def _asked(self, filters: Filters, top_k: int | None) -> dict[str, Any]:
        return {
            "filters": apply_filter_policy(self.filter_policy, self.filters, filters),
            "top_k": self.top_k if top_k is None else top_k,
            "return_embedding": self.return_embedding,
        }
