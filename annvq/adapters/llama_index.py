"""LlamaIndex's ``BasePydanticVectorStore``."""

import os
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from annvq.adapters.collection import Collection, Document
from annvq.adapters.growing import LEARN_AT
from annvq.arrays import positive_int
from annvq.indexes.contract import Index
from annvq.optional import needed_by
from annvq.types import Self

with needed_by("annvq.adapters.llama_index"):
    from llama_index.core.bridge.pydantic import PrivateAttr
    from llama_index.core.indices.query.embedding_utils import get_top_k_mmr_embeddings
    from llama_index.core.schema import BaseNode
    from llama_index.core.vector_stores.types import (
        BasePydanticVectorStore,
        MetadataFilters,
        VectorStoreQuery,
        VectorStoreQueryMode,
        VectorStoreQueryResult,
    )
    from llama_index.core.vector_stores.utils import (
        build_metadata_filter_fn,
        metadata_dict_to_node,
        node_to_metadata_dict,
    )

_FETCHED = 4  # times as many nodes as asked for are compared with one another in MMR mode


class AnnvqVectorStore(BasePydanticVectorStore):
    """Nodes with their embeddings, searched by annvq.

    Few nodes are compared exactly; once there are ``learn_at``, an index learns from their embeddings and codes them
    and all later ones (:class:`~annvq.adapters.growing.GrowingIndex`). Nodes live in memory; :meth:`persist` writes
    them.

    Args:
        index: an annvq index to put embeddings into, empty, fitted or not; None: annvq's choice.
        metric: ``"cosine"``, ``"ip"`` or ``"l2"``.
        learn_at: so many nodes are learned from; None: none until ``store.client.vectors.learn()``.
    """

    stores_text: bool = True
    flat_metadata: ClassVar[bool] = False
    _collection: Collection = PrivateAttr()

    def __init__(
        self, index: Index | None = None, *, metric: str | None = None, learn_at: int | None = LEARN_AT
    ) -> None:
        super().__init__(stores_text=True)
        self._collection = Collection(index, metric=metric, learn_at=learn_at)

    @classmethod
    def class_name(cls) -> str:
        """What LlamaIndex calls it."""
        return "AnnvqVectorStore"

    @property
    def client(self) -> Collection:
        """The collection of nodes."""
        return self._collection

    # -- changes -------------------------------------------------------------------------------------------------

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Keep nodes, in place of those that have their ids; returns the ids.

        Raises:
            ValueError, TypeError: nodes without embeddings, or metadata that JSON does not hold.
        """
        if not isinstance(nodes, Sequence) or not all(isinstance(node, BaseNode) for node in nodes):
            raise TypeError(f"nodes must be a list of nodes, got {str(nodes)[:80]!r}")
        last = {node.node_id: node for node in nodes}  # of nodes with the same id the last one stays
        documents = [node_to_metadata_dict(node, flat_metadata=False) for node in last.values()]
        self._collection.put(list(last), documents, [node.get_embedding() for node in last.values()])
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Forget the nodes of a document."""
        self._collection.delete([key for key, held in self._collection.items() if held["ref_doc_id"] == ref_doc_id])

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Forget the nodes of these ids that ``filters`` match; with neither, none."""
        if node_ids is not None or filters is not None:
            self._collection.delete([key for key, _ in self._matching(node_ids, filters)])

    def clear(self) -> None:
        """Forget all nodes; what was learned stays."""
        self._collection.clear()

    # -- reading -------------------------------------------------------------------------------------------------

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """The nodes of these ids that ``filters`` match, without embeddings."""
        return [metadata_dict_to_node(held) for _, held in self._matching(node_ids, filters)]

    def _matching(self, node_ids: list[str] | None, filters: MetadataFilters | None) -> list[tuple[str, Document]]:
        judge = _judge(filters, node_ids, None)
        return [(key, held) for key, held in self._collection.items() if judge is None or judge(key, held)]

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """The nearest nodes to ``query.query_embedding``, in mode DEFAULT or MMR, of those that its filters, node ids
        and document ids allow. Similarities are higher for nearer ones: cosines, inner products, or squared distances
        times −1.

        Raises:
            ValueError: another mode, no embedding, or ``similarity_top_k`` below 1.
        """
        if query.query_embedding is None:
            raise ValueError("query must have a query_embedding, got None")
        if query.mode not in (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR):
            raise ValueError(f"query.mode must be DEFAULT or MMR, got {query.mode}")
        # An index over a store that holds the nodes asks with an empty list of ids, and means all.
        judge = _judge(query.filters, query.node_ids or None, query.doc_ids or None)
        k = positive_int(query.similarity_top_k, "similarity_top_k")
        diverse = query.mode == VectorStoreQueryMode.MMR
        found = self._collection.search(query.query_embedding, _FETCHED * k if diverse else k, judge)
        similarities = [f.similarity for f in found]
        if diverse and found:
            vectors = self._collection.vectors_of([f.key for f in found]).tolist()
            similarities, rows = get_top_k_mmr_embeddings(
                query.query_embedding,
                vectors,
                similarity_top_k=k,
                embedding_ids=list(range(len(found))),
                mmr_threshold=kwargs.get("mmr_threshold", query.mmr_threshold),
            )
            found = [found[i] for i in rows]
        nodes = [metadata_dict_to_node(f.document) for f in found]
        return VectorStoreQueryResult(nodes=nodes, similarities=similarities, ids=[f.key for f in found])

    # -- files ---------------------------------------------------------------------------------------------------

    def persist(self, persist_path: str | os.PathLike[str], fs: Any = None) -> None:
        """Write all to a folder, see :meth:`~annvq.adapters.collection.Collection.save`; no pickle.

        Raises:
            ValueError: ``fs`` is not the local file system.
        """
        _require_local(fs)
        self._collection.save(persist_path)

    @classmethod
    def from_persist_path(cls, persist_path: str | os.PathLike[str], fs: Any = None, *, mmap: bool = False) -> Self:
        """Read what :meth:`persist` wrote.

        Raises:
            FileNotFoundError: no such folder.
            FormatError: not such a folder, or damaged.
            ValueError: ``fs`` is not the local file system.
        """
        _require_local(fs)
        store = cls()
        store._collection = Collection.load(persist_path, mmap=mmap)
        return store


def _require_local(fs: Any) -> None:
    protocol = getattr(fs, "protocol", "file")
    if "file" not in ((protocol,) if isinstance(protocol, str) else protocol):
        raise ValueError(f"fs must be the local file system, got {protocol!r}: copy the folder from there, or to it")


def _judge(
    filters: MetadataFilters | None, node_ids: list[str] | None, doc_ids: list[str] | None
) -> Callable[[str, Document], bool] | None:
    """Which nodes are allowed; None: all."""
    if filters is None and node_ids is None and doc_ids is None:
        return None
    for name, given in (("node_ids", node_ids), ("doc_ids", doc_ids)):
        if isinstance(given, str):
            raise TypeError(f"{name} must be a list of str, got {given!r}")
    keys = None if node_ids is None else set(node_ids)
    sources = None if doc_ids is None else set(doc_ids)

    def judge(key: str, held: Document) -> bool:
        if (keys is not None and key not in keys) or (sources is not None and held["ref_doc_id"] not in sources):
            return False
        return filters is None or bool(build_metadata_filter_fn(lambda _: held, filters)(key))

    return judge
