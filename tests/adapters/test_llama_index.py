"""The LlamaIndex store: nodes by embeddings, filters, ids and documents, alone and under a VectorStoreIndex."""

import asyncio
import warnings

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    adapter = pytest.importorskip("annvq.adapters.llama_index", exc_type=ImportError)
    from llama_index.core import MockEmbedding, StorageContext, VectorStoreIndex
    from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
    from llama_index.core.vector_stores.types import (
        FilterOperator,
        MetadataFilter,
        MetadataFilters,
        VectorStoreQuery,
        VectorStoreQueryMode,
    )

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

X = np.random.default_rng(1).normal(size=(400, 8))


def node(i, **more):
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"book {i // 100}")}
    about = {"lang": ["en", "fi"][i % 2], "page": i}
    return TextNode(id_=str(i), text=f"text {i}", metadata=about, relationships=source, embedding=X[i].tolist(), **more)


@pytest.fixture(params=["exact", "learned"])
def store(request):
    made = adapter.AnnvqVectorStore(learn_at=10_000 if request.param == "exact" else 300)
    assert made.add([node(i) for i in range(400)]) == [str(i) for i in range(400)]
    assert made.client.vectors.learned == (request.param == "learned")
    return made


def where(*conditions, **more):
    return MetadataFilters(filters=[MetadataFilter(key=k, operator=op, value=v) for k, op, v in conditions], **more)


IS, AT_LEAST = FilterOperator.EQ, FilterOperator.GTE


@pytest.mark.parametrize(
    ("asked", "allowed"),
    [
        ({}, lambda i: True),
        ({"filters": where(("lang", IS, "fi"))}, lambda i: i % 2 == 1),
        ({"filters": where(("lang", IS, "fi"), ("page", AT_LEAST, 150))}, lambda i: i % 2 == 1 and i >= 150),
        ({"filters": where(("lang", IS, "fi"), ("page", AT_LEAST, 350), condition="or")}, lambda i: i % 2 or i >= 350),
        ({"node_ids": [str(i) for i in range(0, 400, 7)]}, lambda i: i % 7 == 0),
        ({"doc_ids": ["book 0", "book 2"]}, lambda i: i // 100 in (0, 2)),
    ],
)
def test_the_nearest_that_are_allowed(store, asked, allowed, require_nearest):
    q = np.random.default_rng(2).normal(size=8)
    cosines = X @ q / np.linalg.norm(X, axis=1) / np.linalg.norm(q)
    cosines[[i for i in range(400) if not allowed(i)]] = -2
    query = VectorStoreQuery(query_embedding=q.tolist(), similarity_top_k=6, **asked)
    for result in (store.query(query), asyncio.run(store.aquery(query))):
        require_nearest([int(i) for i in result.ids], result.similarities, cosines, store.client.vectors.learned)
        assert len(result.ids) == 6
        assert [found.node_id for found in result.nodes] == result.ids
        for found in result.nodes:
            expected = node(int(found.node_id))
            assert (found.text, found.metadata, found.ref_doc_id) == (
                expected.text,
                expected.metadata,
                expected.ref_doc_id,
            )


def test_diverse_results(store):
    query = VectorStoreQuery(query_embedding=X[3].tolist(), similarity_top_k=5, mode=VectorStoreQueryMode.MMR)
    near = store.query(VectorStoreQuery(query_embedding=X[3].tolist(), similarity_top_k=5))
    diverse = store.query(query, mmr_threshold=0.1)
    assert diverse.ids[0] == near.ids[0] == "3"
    assert len(set(diverse.ids) - set(near.ids)) >= 2
    assert len(diverse.nodes) == 5
    with pytest.raises(ValueError, match=r"query.mode must be DEFAULT or MMR"):
        store.query(VectorStoreQuery(query_embedding=X[3].tolist(), mode=VectorStoreQueryMode.SPARSE))
    with pytest.raises(ValueError, match="query must have a query_embedding"):
        store.query(VectorStoreQuery())


@pytest.mark.parametrize("mode", [VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR])
@pytest.mark.parametrize("k", [0, -2])
def test_how_many_must_be_at_least_one(store, mode, k):
    with pytest.raises(ValueError, match=f"similarity_top_k must be at least 1, got {k}"):
        store.query(VectorStoreQuery(query_embedding=X[3].tolist(), similarity_top_k=k, mode=mode))


def test_changes(store):
    store.delete("book 1")
    assert len(store.client) == 300
    store.delete_nodes(["1", "2", "absent"], where(("lang", IS, "fi")))
    store.delete_nodes(filters=where(("page", AT_LEAST, 390)))
    store.delete_nodes()
    with pytest.raises(TypeError, match="node_ids must be a list of str, got '12'"):
        store.delete_nodes("12")
    with pytest.raises(TypeError, match="nodes must be a list of nodes, got 'Node ID: 3"):
        store.add(node(3))
    with pytest.raises(TypeError, match="nodes must be a list of nodes"):
        store.add([node(3), "text"])
    assert len(store.get_nodes()) == len(store.client.vectors) == 289
    assert [found.node_id for found in store.get_nodes(["2", "1", "3"])] == ["2", "3"]
    store.add([TextNode(id_="2", text="new", embedding=X[390].tolist())])
    result = store.query(VectorStoreQuery(query_embedding=X[390].tolist()))
    assert (result.ids, result.nodes[0].text) == (["2"], "new")
    store.clear()
    assert store.query(VectorStoreQuery(query_embedding=X[3].tolist())).ids == []


def test_written_and_read(store, tmp_path):
    store.persist(str(tmp_path / "saved"))
    loaded = adapter.AnnvqVectorStore.from_persist_path(str(tmp_path / "saved"))
    query = VectorStoreQuery(query_embedding=X[3].tolist(), similarity_top_k=9)
    assert loaded.query(query) == store.query(query)
    memory = type("Remote", (), {"protocol": ("memory",)})()
    with pytest.raises(ValueError, match="fs must be the local file system, got"):
        store.persist(str(tmp_path / "x"), memory)


def test_under_an_index(tmp_path):
    store = adapter.AnnvqVectorStore()
    context = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex([], storage_context=context, embed_model=MockEmbedding(embed_dim=8))
    index.insert_nodes([node(i) for i in range(20)])
    assert len(index.as_retriever(similarity_top_k=4).retrieve("what?")) == 4
    index.delete_ref_doc("book 0")
    assert len(store.client) == 0
