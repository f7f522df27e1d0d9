"""Index files: mapped or read, they give what was saved; what cannot be right is refused by name."""

import json
import zlib

import numpy as np
import pytest
from safetensors.numpy import load_file

import annvq
from annvq import storage
from annvq.errors import FormatError
from annvq.indexes import saved
from annvq.kernels.store import CodeStore
from annvq.training import KMeans, Recipe

CASES = {
    "bytes": ("product", 8, "auto"),
    "bytes-norm": ("residual", 8, "uint8"),
    "bytes-float-norm": ("residual", 8, "float32"),
    "nibbles": ("product", 4, "auto"),
    "nibbles-norm": ("additive", 4, "uint8"),
    "mixed": ("residual", (2, 9, 4, 5), "uint8"),
}


@pytest.fixture(scope="module")
def built():
    """``built(case)``: an index of 1,300 vectors and the vectors."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1300, 8)).astype(np.float32)
    made = {}

    def build(case):
        if case not in made:
            kind, nbits, norm = CASES[case]
            q = annvq.make(kind, dim=8, M=4, nbits=nbits).fit(x, recipe=Recipe((KMeans(2),)))
            made[case] = annvq.FlatIndex(q, norm=norm).add(x, rng.permutation(5000)[:1300])
        return made[case], x

    return build


def as_tuples(codes, norms):
    """Each vector's code and norm."""
    stored = codes.astype(int) if norms is None else np.column_stack([codes.astype(np.float64), norms])
    return [tuple(row) for row in stored.tolist()]


def require_same(a, b, x, k=20):
    for left, right in zip(a.search(x[:5], k), b.search(x[:5], k), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("mode", [{}, {"mmap": True}, {"mmap": True, "verify": True}])
def test_loaded_index_goes_on(case, mode, built, tmp_path):
    index, x = built(case)
    index.save(tmp_path / "i")
    loaded = annvq.load_index(tmp_path / "i", **mode)
    assert len(loaded) == len(index)
    assert loaded.bits_per_vector == index.bits_per_vector
    require_same(index, loaded, x)
    np.testing.assert_array_equal(loaded.ids, index.ids)
    some = index.ids[::3]
    np.testing.assert_array_equal(loaded.reconstruct(some), index.reconstruct(some))
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "i").read_bytes()
    # A mapped index can be changed like any other, and the file stays as it is.
    before = (tmp_path / "i").read_bytes()
    loaded.remove(some)
    loaded.upsert(x[:40], np.arange(6000, 6040))
    loaded.add(x[:7])
    fresh = annvq.FlatIndex(index.quantizer, norm=index.norm)
    codes, norms, ids, _ = index._store.export()
    left = ~np.isin(ids, some)
    encoded = index.coding.encode(x)
    order = {stored: i for i, stored in enumerate(as_tuples(encoded.codes, encoded.norms))}
    rows = [order[stored] for stored in as_tuples(codes[left], norms if norms is None else norms[left])]
    fresh.add(x[rows], ids[left]).add(x[:40], np.arange(6000, 6040))
    fresh.add(x[:7])
    require_same(fresh, loaded, x, 2000)
    assert (tmp_path / "i").read_bytes() == before


@pytest.mark.parametrize("case", CASES)
def test_files_hold_no_more_than_the_bits(case, built, tmp_path):
    index, _ = built(case)
    index.save(tmp_path / "i")
    tensors = load_file(tmp_path / "i")  # the safetensors library reads our files
    held = tensors["codes"].nbytes + (tensors["norms"].nbytes if "norms" in tensors else 0)
    assert held == -(-len(index) * index.bits_per_vector // 8)


def test_consecutive_ids_take_no_room(built, tmp_path):
    index, x = built("bytes")
    plain = annvq.FlatIndex(index.quantizer).add(x)
    plain.save(tmp_path / "i")
    assert "ids" not in load_file(tmp_path / "i")
    for mmap in (False, True):
        require_same(plain, annvq.load_index(tmp_path / "i", mmap=mmap), x)


def test_mapped_codes_stay_in_the_file(built, tmp_path):
    index, x = built("bytes-norm")
    index.save(tmp_path / "i")
    loaded = annvq.load_index(tmp_path / "i", mmap=True)
    before = loaded.search(x[:3], 5)
    annvq.FlatIndex(index.quantizer).add(x[:9]).save(tmp_path / "i")  # replaced under it
    for left, right in zip(before, loaded.search(x[:3], 5), strict=True):
        np.testing.assert_array_equal(left, right)
    (tmp_path / "i").unlink()
    np.testing.assert_array_equal(loaded.search(x[:3], 5)[1], before[1])


def test_a_map_is_saved_whole_while_others_remove(built, tmp_path, monkeypatch):
    """Of ids that are counted from the first on a save wrote fewer than of codes where one went at that moment."""
    index, x = built("bytes")
    annvq.FlatIndex(index.quantizer).add(x).save(tmp_path / "i")
    loaded = annvq.load_index(tmp_path / "i", mmap=True)
    counted, left = CodeStore.__len__, [7]

    def removing(store):
        if left:
            store.remove(np.array([left.pop()]))
        return counted(store)

    monkeypatch.setattr(CodeStore, "__len__", removing)
    codes, ids, sizes = loaded._store.export_blocks()
    assert len(ids) == sizes.sum() == len(codes) // 4


def test_a_map_is_verified_on_request(built, tmp_path):
    index, _ = built("bytes")
    index.save(tmp_path / "i")
    data = bytearray((tmp_path / "i").read_bytes())
    codes = index._store.export_blocks()[0].tobytes()
    data[bytes(data).index(codes[:400]) + 100] ^= 1
    (tmp_path / "i").write_bytes(data)
    annvq.load_index(tmp_path / "i", mmap=True)
    for mode in ({}, {"mmap": True, "verify": True}):
        with pytest.raises(FormatError, match="tensor 'codes' fails its checksum"):
            annvq.load_index(tmp_path / "i", **mode)


def rewritten(path, change):
    """Write the file anew, checksums and all, after ``change(config, tensors)``."""
    stored = storage.read(path, saved.FORMAT, saved.VERSIONS)
    config, tensors = json.loads(json.dumps(stored.config)), dict(stored.tensors)
    change(config, tensors)
    storage.write(path, saved.FORMAT, stored.version, config, tensors)


def set_config(**values):
    return lambda config, tensors: config.update(values)


def set_tensor(name, function):
    def change(config, tensors):
        tensors[name] = function(np.array(tensors[name]))

    return change


def first_to(value):
    def change(array):
        array.reshape(-1)[0] = value
        return array

    return change


HOSTILE = {
    "more rows": (set_config(n=1301), "tensors are"),
    "rows beyond memory": (set_config(n=1 << 47), "tensors are"),
    "negative rows": (set_config(n=-1), "n must be in"),
    "fractional rows": (set_config(n=1300.0), "n must be an integer"),
    "no rows": (lambda c, t: c.pop("n"), "KeyError"),
    "next id among the ids": (set_config(next_id=3), "next_id must be"),
    "huge next id": (set_config(next_id=1 << 80), "next_id must be"),
    "unknown layout": (set_config(layout="columns"), "layout is 'columns'"),
    "unknown metric": (set_config(metric="l1"), "metric must be"),
    "unknown norm": (set_config(norm=["uint8"]), "norm must be"),
    "unknown kind": (set_config(kind="flatter"), "flatter"),
    "quantizer of no kind": (set_config(quantizer={}), "kind"),
    "quantizer as a list": (set_config(quantizer=[1]), "cannot be built"),
    "huge quantizer": (lambda c, t: c["quantizer"].update(dim=1 << 20, M=1024, nbits=16), "do not fit its config"),
    "beyond any quantizer": (lambda c, t: c["quantizer"].update(dim=1 << 60), "dim must be"),
    "NaN in codebooks": (set_tensor("quantizer.weight", first_to(np.nan)), "weight holds NaN or infinity"),
    "infinite codebooks": (set_tensor("quantizer.weight", first_to(np.inf)), "weight holds NaN or infinity"),
    "NaN in norm levels": (set_tensor("quantizer.norm_levels", first_to(np.nan)), "norm levels"),
    "unfitted": (set_tensor("quantizer.fitted", first_to(False)), "needs a trained index"),
    "codes of another dtype": (set_tensor("codes", lambda a: a.astype(np.uint16)), "tensors are"),
    "codes of another shape": (set_tensor("codes", lambda a: a.reshape(-1, 5)), "tensors are"),
    "negative ids": (set_tensor("ids", first_to(-1)), "ids must not be negative"),
    "ids that repeat": (set_tensor("ids", lambda a: np.r_[a[1], a[1:]]), "ids repeat"),
    "ids of another dtype": (set_tensor("ids", lambda a: a.astype(np.int32)), "tensors are"),
    "labels that are no permutation": (set_tensor("relabel", first_to(0)), "relabel must hold permutations|repeat"),
    "no codes": (lambda c, t: t.pop("codes"), "tensors are"),
    "no codebooks": (lambda c, t: t.pop("quantizer.weight"), "weight do not fit"),
    "a tensor too many": (lambda c, t: t.update(more=np.zeros(3)), r"tensors \['more'\] are not part"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_files(what, built, tmp_path):
    change, message = HOSTILE[what]
    index, _ = built("bytes-norm")
    index.save(tmp_path / "bad")
    annvq.load_index(tmp_path / "bad")
    rewritten(tmp_path / "bad", change)
    with pytest.raises(FormatError, match=rf"(?s)bad .*({message})"):
        annvq.load_index(tmp_path / "bad")
    if "ids" not in what:  # of a map, ids are looked at when they are needed
        with pytest.raises(FormatError, match=rf"(?s)bad .*({message})"):
            annvq.load_index(tmp_path / "bad", mmap=True)


def test_unread_ids_of_a_map_are_refused_when_they_matter(built, tmp_path):
    index, x = built("bytes-norm")
    for value in (-1, int(index._store.ids()[1])):
        index.save(tmp_path / "bad")
        rewritten(tmp_path / "bad", set_tensor("ids", first_to(value)))
        loaded = annvq.load_index(tmp_path / "bad", mmap=True)
        loaded.search(x[:5], 10)
        with pytest.raises(ValueError, match="ids must"):
            loaded.remove(np.array([7]))
        with pytest.raises(ValueError, match="ids must"):
            loaded.add(x[:2])
        with pytest.raises(FormatError, match="ids"):
            annvq.load_index(tmp_path / "bad", mmap=True, verify=True)
    index.save(tmp_path / "bad")
    rewritten(tmp_path / "bad", set_config(next_id=int(index.ids[3])))
    with pytest.raises(ValueError, match="ids must be new"):
        annvq.load_index(tmp_path / "bad", mmap=True).add(x[:2])


def test_a_verified_map_is_still_a_map(built, tmp_path):
    index, _ = built("bytes")
    index.save(tmp_path / "i")
    for verify in (False, True):
        loaded = annvq.load_index(tmp_path / "i", mmap=True, verify=verify)
        before = loaded._store.nbytes
        loaded.remove(index.ids[:400])
        assert loaded._store.nbytes >= before  # pages of the map are not copied behind the caller's back


def archive(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


HEADERS = {
    "empty": b"",
    "short": b"1234567",
    "long header": (1 << 62).to_bytes(8, "little") + b"{}",
    "no JSON": archive(b"{"),
    "no text": archive(b"\xff\xfe\x00"),
    "deep": archive(b"[" * 100_000),
    "a list": archive([]),
    "metadata of numbers": archive({"__metadata__": {"annvq": 3}}),
    "metadata as text": archive({"__metadata__": "annvq"}),
    "tensor as text": archive({"a": "U8"}),
    "unknown dtype": archive({"a": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}}, bytes(8)),
    "huge shape": archive({"a": {"dtype": "U8", "shape": [1 << 62, 4], "data_offsets": [0, 8]}}, bytes(8)),
    "huge and empty": archive({"a": {"dtype": "U8", "shape": [1 << 62, 0], "data_offsets": [0, 0]}}),
    "negative shape": archive({"a": {"dtype": "U8", "shape": [-8], "data_offsets": [0, 8]}}, bytes(8)),
    "shape of text": archive({"a": {"dtype": "U8", "shape": ["8"], "data_offsets": [0, 8]}}, bytes(8)),
    "beyond the end": archive({"a": {"dtype": "U8", "shape": [9], "data_offsets": [0, 9]}}, bytes(8)),
    "a gap": archive({"a": {"dtype": "U8", "shape": [4], "data_offsets": [4, 8]}}, bytes(8)),
    "overlap": archive(
        {
            "a": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]},
            "b": {"dtype": "U8", "shape": [4], "data_offsets": [4, 8]},
        },
        bytes(8),
    ),
    "bytes after the end": archive({}, bytes(3)),
    "nothing of ours": archive({}),
}


@pytest.mark.parametrize("what", HEADERS)
def test_hostile_archives(what, tmp_path):
    (tmp_path / "bad").write_bytes(HEADERS[what])
    for mmap in (False, True):
        with pytest.raises(FormatError, match="bad is not an annvq file"):
            annvq.load_index(tmp_path / "bad", mmap=mmap)


@pytest.mark.parametrize(
    "text", ["[]", "3", '{"format": 3}', "[" * 100_000, '{"format": "annvq.index", "version": true}', "{"]
)
def test_hostile_headers(text, tmp_path):
    metadata = {"annvq": text, "crc32": str(zlib.crc32(text.encode()))}
    (tmp_path / "bad").write_bytes(archive({"__metadata__": metadata}))
    with pytest.raises(FormatError, match=r"bad (holds|has|is corrupt)"):
        annvq.load_index(tmp_path / "bad")


@pytest.mark.parametrize("case", ["bytes", "bytes-norm", "nibbles", "mixed"])
@pytest.mark.parametrize("mmap", [False, True])
def test_an_index_that_was_saved_empty_stores_as_any_other(case, mmap, built, tmp_path):
    """Codes lie in the order that scans like, byte for byte as if the index had never been in a file."""
    index, x = built(case)
    whole = annvq.FlatIndex(index.quantizer, norm=index.norm or "auto").add(x)
    annvq.FlatIndex(index.quantizer, norm=index.norm or "auto").save(tmp_path / "empty")
    annvq.load_index(tmp_path / "empty", mmap=mmap).add(x).save(tmp_path / "filled")
    whole.save(tmp_path / "whole")
    assert (tmp_path / "filled").read_bytes() == (tmp_path / "whole").read_bytes()
