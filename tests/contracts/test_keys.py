"""Keys in place of ids, beside every kind of index: the same results under other names."""

import copy
import pickle
import threading
import uuid

import numpy as np
import pytest
import torch
from safetensors.numpy import load

import annvq
from annvq.errors import FormatError, NotFittedError
from annvq.indexes.building import merge
from annvq.indexes.saved import registered

KINDS = {
    "str": [f"ключ {i}" for i in range(600)],
    "bytes": [b"\0" * (i % 3) + b"%d" % i for i in range(600)],
    "uuid": [uuid.uuid5(uuid.NAMESPACE_OID, str(i)) for i in range(600)],
}


@pytest.fixture(params=sorted(registered()))
def make_index(request, new_index):
    """Make an index of each kind in turn, trained on vectors that are given."""
    return lambda q, x, **settings: new_index(request.param, q, **settings).fit(x)


def require_named(found, expected, keys):
    """``found`` is what an index without keys finds, with ``keys[id]`` in place of ids."""
    *parts, names = found
    *others, ids = expected
    for part, other in zip(parts, others, strict=True):
        np.testing.assert_array_equal(part, other)
    wanted = [None if i < 0 else keys[i] for i in np.asarray(ids).ravel().tolist()]
    assert (names.dtype, names.shape) == (object, ids.shape)
    assert names.ravel().tolist() == wanted


@pytest.mark.parametrize("type", KINDS)
def test_finds_what_the_index_finds(make_index, small, type):
    q, x = small("residual")
    keys = KINDS[type]
    plain, keyed = make_index(q, x).add(x[:500]), annvq.KeyedIndex(make_index(q, x))
    assert keyed.add(x[:300], keys[:300]).add(x[300:500], keys[300:500]) is keyed
    assert len(keyed) == 500
    assert keys[499] in keyed
    assert keys[500] not in keyed
    np.testing.assert_array_equal(keyed.reconstruct(keys[7:9]), plain.reconstruct(np.arange(7, 9)))
    radius = float(plain.search(x[:5], 100)[0][:, 60].mean())
    allowed = [*range(0, 500, 7), 599]
    judged = lambda found: np.array([keys.index(key) % 2 == 0 for key in found], bool)  # noqa: E731
    for ids, names in ((None, None), (np.array(allowed), [keys[i] for i in allowed]), (lambda i: i % 2 == 0, judged)):
        require_named(keyed.search(x[:5], 10, filter=names), plain.search(x[:5], 10, filter=ids), keys)
        expected = plain.search_within(x[:5], radius, filter=ids)
        require_named(keyed.search_within(x[:5], radius, filter=names), expected, keys)
    require_named(keyed.search(x[:2], 505), plain.search(x[:2], 505), keys)
    assert keyed.search(x[:2], 3, filter=[])[1].tolist() == [[None] * 3] * 2
    assert (keyed.dim, keyed.metric, keyed.bits_per_vector) == (12, "l2", plain.bits_per_vector)
    facts = keyed.facts()
    assert (facts["keys"], facts["vectors"]) == (type, 500)
    assert facts["ram_bits_per_vector"] == plain.ram_bits_per_vector + facts["key_bits_per_vector"]
    assert 8 * (16 if type == "uuid" else 1) <= facts["key_bits_per_vector"] - 8 * 29 < 8 * 60


def test_changes(make_index, small):
    q, x = small("product")
    keys = KINDS["str"]
    keyed = annvq.KeyedIndex(make_index(q, x)).add(x[:100], keys[:100])
    assert keyed.remove(keys[10:20]) == 10
    assert keys[10] not in keyed
    keyed.add(x[200:205], keys[10:15])
    assert len(keyed) == 95
    found = keyed.search(x[200:205], 95)
    assert sorted(found[1][0]) == sorted(keys[:15] + keys[20:100])
    decoded = q.decode(q.encode(x))
    if hasattr(keyed.index, "upsert"):
        keyed.upsert(x[300:310], keys[5:10] + keys[95:100])
        keyed.upsert(x[310:320], keys[98:108])
        assert len(keyed) == 103
        stored = x if keyed.index.kind == "rerank" else decoded
        np.testing.assert_array_equal(keyed.reconstruct([keys[5], keys[97], keys[98]]), stored[[300, 307, 310]])
    else:
        with pytest.raises(TypeError, match="DecodedIndex replaces no vectors"):
            keyed.upsert(x[:1], keys[:1])
    assert keyed.reset() is keyed
    assert (len(keyed), keys[0] in keyed) == (0, False)
    assert keyed.search(x[:1], 2)[1].tolist() == [[None, None]]
    assert len(keyed.add(x[:5], KINDS["uuid"][:5])) == 5  # another kind, as none was asked for


def test_refused_changes_change_nothing(make_index, small):
    q, x = small("residual")
    keys = KINDS["str"]
    keyed = annvq.KeyedIndex(make_index(q, x)).add(x[:50], keys[:50])
    before = keyed.search(x[:3], 50)
    assert repr(keyed) == f"KeyedIndex(50 vectors, dim={keyed.dim}, metric={keyed.metric!r})"
    bad = x[:2].copy()
    bad[1, 0] = np.nan
    cases = [
        (lambda: keyed.add(bad, keys[50:52]), ValueError, "row 1"),
        (lambda: keyed.add(x[:2], keys[50:53]), ValueError, "keys must be 2 of str, bytes or uuid.UUID, got 3"),
        (lambda: keyed.add(x[:2], "ab"), TypeError, "keys must be 2 of"),
        (lambda: keyed.add(x[:2], [keys[60], keys[60]]), ValueError, r"repeated: \['ключ 60'\]"),
        (
            lambda: keyed.add(x[:2], keys[49:51]),
            ValueError,
            r"keys must be new and differ from one another; repeated: \['ключ 49'\]",
        ),
        (lambda: keyed.add(x[:2], [1, 2]), TypeError, "keys must all be str, got int at place 0"),
        (lambda: keyed.add(x[:2, :5], keys[50:52]), ValueError, "x must be"),
        (lambda: keyed.remove([keys[3], keys[77]]), ValueError, r"not there: \['ключ 77'\]"),
        (lambda: keyed.remove([keys[3], keys[3]]), ValueError, "keys must differ"),
        (lambda: keyed.remove(keys[3]), TypeError, "keys must be a sequence"),
        (lambda: keyed.reconstruct([keys[77]]), ValueError, "not there"),
        (lambda: keyed.search(x[:2], 1, filter=np.ones(50, bool)), TypeError, "filter must all be str, got bool"),
        (lambda: keyed.search(x[:2], 1, filter=keys[0]), TypeError, "filter must be a sequence"),
        (lambda: keyed.search(x[:2], 1, filter=lambda k: k), ValueError, r"bool of shape \(50,\)"),
        (lambda: keyed.search(x[:2, :3], 1), ValueError, "queries must be"),
        (lambda: annvq.KeyedIndex(keyed), TypeError, "index must be an annvq index"),
        (lambda: merge(keyed, keyed), TypeError, "index must be an annvq index that ids name"),
        (lambda: annvq.to_faiss(keyed), TypeError, "index must be an annvq Index"),
        (lambda: annvq.KeyedIndex(keyed.index), ValueError, "keys must be one for each vector that index holds, 50"),
        (lambda: annvq.KeyedIndex(keyed.index, ["a"] * 50), ValueError, "repeated"),
    ]
    if hasattr(keyed.index, "upsert"):
        cases += [
            (lambda: keyed.upsert(bad, keys[49:51]), ValueError, "row 1"),
            (
                lambda: keyed.upsert(x[:2], keys[49:50] * 2),
                ValueError,
                r"keys must differ from one another; repeated: \['ключ 49'\]",
            ),
        ]
    for use, error, message in cases:
        with pytest.raises(error, match=message):
            use()
    assert (list(keyed.keys), keyed.keys.next_id) == (keys[:50], 50)
    for part, other in zip(before, keyed.search(x[:3], 50), strict=True):
        np.testing.assert_array_equal(part, other)
    unfitted = annvq.KeyedIndex(annvq.FlatIndex(annvq.ProductVQ(12, 3, 4)))
    with pytest.raises(NotFittedError):
        unfitted.add(x[:2], keys[:2])
    assert len(unfitted.fit(x).add(x[:2], keys[:2])) == 2


@pytest.mark.parametrize("type", KINDS)
@pytest.mark.parametrize("mode", ["path", "mapped", "bytes", "pickle", "copy"])
def test_files_and_copies(make_index, small, tmp_path, type, mode):
    q, x = small("residual")
    keys = KINDS[type]
    keyed = annvq.KeyedIndex(make_index(q, x)).add(x[:300], keys[:300])
    keyed.remove(keys[3:9])
    keyed.save(tmp_path / "i")
    opened = {
        "path": lambda: annvq.KeyedIndex.load(tmp_path / "i"),
        "mapped": lambda: annvq.load_index(tmp_path / "i", mmap=True),
        "bytes": lambda: annvq.load_index(keyed.to_bytes(), verify=True),
        "pickle": lambda: pickle.loads(pickle.dumps(keyed)),
        "copy": lambda: copy.copy(keyed),
    }
    again = opened[mode]()
    assert isinstance(again, annvq.KeyedIndex)
    for part, other in zip(again.search(x[:5], 20), keyed.search(x[:5], 20), strict=True):
        np.testing.assert_array_equal(part, other)
    again.add(x[300:], keys[300:])
    again.remove(keys[9:12])
    assert list(again.keys) == keys[:3] + keys[12:]
    assert len(keyed) == 294
    assert sorted(again.search(x[:1], 591)[1][0]) == sorted(keys[:3] + keys[12:])


def test_keys_in_a_file_are_plain_tensors(make_index, small):
    q, x = small("product")
    tensors = load(annvq.KeyedIndex(make_index(q, x)).add(x[:3], ["a", "", "éb"]).to_bytes())
    assert bytes(tensors["keys.bytes"]).decode() == "aéb"
    assert tensors["keys.ends"].tolist() == [1, 1, 4]


def test_files_of_the_other_sort_are_refused_by_name(make_index, small, tmp_path):
    q, x = small("product")
    index = make_index(q, x).add(x[:5])
    index.save(tmp_path / "plain")
    annvq.KeyedIndex(index, list("abcde")).save(tmp_path / "keyed")
    with pytest.raises(FormatError, match=r"plain holds an index without keys: KeyedIndex\(index, keys\) adds them"):
        annvq.KeyedIndex.load(tmp_path / "plain")
    with pytest.raises(FormatError, match=r"keyed holds an index with keys: annvq\.load_index opens it"):
        type(index).load(tmp_path / "keyed")


def test_an_index_that_holds_vectors_gets_keys(make_index, small):
    q, x = small("residual")
    ids = np.random.default_rng(0).permutation(5000)[:100]
    index = make_index(q, x).add(x[:100], ids)
    keyed = annvq.KeyedIndex(index, np.array([f"{i}" for i in np.sort(ids)]), kind="str")
    found, expected = keyed.search(x[:4], 9), index.search(x[:4], 9)
    np.testing.assert_array_equal(found[1].astype(int), expected[1])
    keyed.add(x[100:101], ["new"])
    assert index.ids[-1] == ids.max() + 1
    index.add(x[:1])
    with pytest.raises(ValueError, match="vectors without a key"):
        keyed.search(x[:1], 102)


def test_results_come_in_torch(make_index, small):
    q, x = small("residual")
    keyed = annvq.KeyedIndex(make_index(q, x)).add(torch.from_numpy(x[:50]), KINDS["str"][:50])
    distances, keys = keyed.search(torch.from_numpy(x[:2]), 3)
    assert isinstance(distances, torch.Tensor)
    assert isinstance(keys, np.ndarray)
    lims, distances, keys = keyed.search_within(torch.from_numpy(x[:2]), 1e9)
    assert isinstance(lims, torch.Tensor)
    assert len(keys) == 100


def test_vectors_outside_are_numbered_as_keys_come(small):
    q, x = small("product")
    keyed = annvq.KeyedIndex(annvq.RerankIndex(annvq.FlatIndex(q), x, shortlist=600))
    with pytest.raises(ValueError):
        keyed.add(x[:5] * np.nan, list("abcde"))
    for start in (0, 200):
        keyed.add(x[start : start + 200], KINDS["str"][start : start + 200])
    distances, keys = keyed.search(x[:400:50], 1)
    assert keys[:, 0].tolist() == KINDS["str"][:400:50]
    assert not distances.any()
    assert copy.deepcopy(keyed).search(x[:1], 1)[1].tolist() == [[KINDS["str"][0]]]


def test_searches_name_what_they_found_while_keys_change(small):
    """Keys say where their vectors are; threads that add, replace, remove and free never make another say it."""
    q, x = small("product")
    keyed = annvq.KeyedIndex(annvq.RerankIndex(annvq.FlatIndex(q), "float32", shortlist=600))
    keyed.add(x[:50], [f"{i} 0" for i in range(50)])
    stop, failed, seen = threading.Event(), [], []

    def change():
        for turn in range(60):
            keyed.add(x[50:150], [f"{i} {turn}" for i in range(50, 150)])
            keyed.remove([f"{i} {turn}" for i in range(50, 150)])
            if turn % 9 == 8:
                keyed.reset()
                keyed.add(x[:50], [f"{i} {turn}" for i in range(50)])

    def watch():
        try:
            while not stop.is_set():
                distances, keys = keyed.search(x[:150:10], 1)
                for i, (distance, key) in enumerate(zip(distances[:, 0], keys[:, 0], strict=True)):
                    seen.append(key)
                    assert key is None or distance > 0 or key.startswith(f"{10 * i} ")
        except BaseException as e:
            failed.append(e)

    watchers = [threading.Thread(target=watch) for _ in range(2)]
    for watcher in watchers:
        watcher.start()
    change()
    stop.set()
    for watcher in watchers:
        watcher.join()
    assert not failed, failed[0]
    assert seen
