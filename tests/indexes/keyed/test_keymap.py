"""Whatever is done to an id map, it answers as a dictionary would."""

import uuid

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from annvq.indexes.keyed.keymap import KeyMap
from annvq.indexes.keyed.rows import NamedRows

# Few enough that keys come again; some share a hash, as all do where `_hashed` is made coarse.
POOLS = {
    "str": ["", "a", "b", "ab", "é", "ключ", "\ud800", "x" * 300, *(f"key {i}" for i in range(30))],
    "bytes": [b"", b"\0", b"\0\0", b"\xff", *(bytes([i]) * 3 for i in range(30))],
    "uuid": [uuid.UUID(int=i << 90 | i) for i in range(30)],
}


class History(RuleBasedStateMachine):
    """A map beside a dictionary of what it must hold."""

    @initialize(kind=st.sampled_from(sorted(POOLS)), given=st.booleans())
    def start(self, kind, given):
        self.kind, self.pool, self.given = kind, POOLS[kind], given
        self.map, self.held, self.next_id = KeyMap(kind if given else None), {}, 0

    def chosen(self, data):
        return data.draw(st.lists(st.sampled_from(self.pool), max_size=9))

    @rule(data=st.data())
    def assign(self, data):
        keys = self.chosen(data)
        if len(set(keys)) < len(keys) or set(keys) & set(self.held):
            wanted = "be new and differ" if set(keys) & set(self.held) else "differ"
            with pytest.raises(ValueError, match=f"keys must {wanted} from one another"):
                self.map.assign(keys)
            return
        ids = self.map.assign(iter(keys))
        np.testing.assert_array_equal(ids, np.arange(self.next_id, self.next_id + len(keys)))
        self.hold(keys, ids)

    def hold(self, keys, ids):
        self.held.update(zip(keys, ids.tolist(), strict=True))
        self.next_id = max([self.next_id, *(ids + 1).tolist()])

    @rule(data=st.data(), undo=st.booleans())
    def assign_or_find(self, data, undo):
        keys = list(dict.fromkeys(self.chosen(data)))
        ids, new = self.map.assign_or_find(keys)
        assert new == len(set(keys) - set(self.held))
        assert [self.held.get(key, i) for key, i in zip(keys, ids.tolist(), strict=True)] == ids.tolist()
        np.testing.assert_array_equal(np.sort(ids)[len(ids) - new :], np.arange(self.next_id, self.next_id + new))
        if undo:
            self.map.take_back(new)
        else:
            self.hold(keys, ids)

    @rule(data=st.data(), step=st.integers(1, 1 << 40))
    def assign_later_ids(self, data, step):
        keys = [key for key in dict.fromkeys(self.chosen(data)) if key not in self.held]
        ids = self.next_id + step * np.arange(1, len(keys) + 1)
        np.testing.assert_array_equal(self.map.assign(keys, ids), ids)
        self.hold(keys, ids)

    @rule(data=st.data())
    def remove(self, data):
        keys = list(dict.fromkeys(self.chosen(data)))
        there = [key for key in keys if key in self.held]
        self.map.remove(np.array([self.held.pop(key) for key in there], np.int64))

    @rule(verify=st.booleans())
    def reload(self, verify):
        config, tensors = self.map.to_stored()
        self.map = KeyMap.from_stored(config, tensors, verify=verify)
        assert tensors == {}

    @rule()
    def reset(self):
        self.map.reset()
        self.held, self.next_id = {}, 0

    @invariant()
    def answers(self):
        if not hasattr(self, "map"):
            return
        assert len(self.map) == len(self.held)
        assert list(self.map) == sorted(self.held, key=self.held.get)
        assert self.map.ids.tolist() == sorted(self.held.values())
        assert self.map.next_id == self.next_id
        assert [key in self.map for key in self.pool] == [key in self.held for key in self.pool]
        if self.map.kind is not None:
            np.testing.assert_array_equal(self.map.ids_of(self.pool), [self.held.get(key, -1) for key in self.pool])
        keys = np.array([*self.held, None], object)
        ids = np.array([*self.held.values(), -1])
        assert self.map.keys_of(ids[None]).tolist() == [keys.tolist()]
        if self.held and self.given:
            assert self.map.kind == self.kind


@pytest.mark.parametrize("hashes", ["own", "few"])
def test_any_history(hashes, monkeypatch):
    from hypothesis.stateful import run_state_machine_as_test

    if hashes == "few":
        few = lambda names: np.array([len(name) % 3 for name in names], np.int64)  # noqa: E731
        monkeypatch.setattr("annvq.indexes.keyed.rows._hashed", few)
    run_state_machine_as_test(History, settings=settings(deadline=None, max_examples=40, stateful_step_count=15))


def test_what_a_key_takes():
    keys = [f"document number {i:06d}" for i in range(50_000)]
    m = KeyMap()
    m.assign(keys)
    assert m.nbytes == 50_000 * (22 + 29)
    for key in keys[:100]:
        m.assign([key + "x"])
    assert m.nbytes < 50_100 * 1.25 * (22 + 29)
    m.remove(m.ids[:40_000])
    assert m.nbytes < 11_000 * 1.25 * (22 + 29)  # what is removed is freed
    assert list(m)[:2] == keys[40_000:40_002]


def test_runs_of_hashes_stay_few():
    rows = NamedRows.none()
    for i in range(2000):
        rows.append([b"%d" % i], np.array([i]))
    assert len(rows._hashes.runs) <= 11
    np.testing.assert_array_equal(rows.of_names([b"%d" % i for i in range(2001)]), [*range(2000), -1])


def test_refusals():
    m = KeyMap()
    m.assign(["a", "b"])
    cases = [
        (lambda: KeyMap("int"), ValueError, "kind must be 'str', 'bytes', 'uuid' or None, got 'int'"),
        (lambda: m.assign("cd"), TypeError, "keys must be a sequence of str, bytes or uuid.UUID, got 'cd'"),
        (lambda: m.assign(b"cd"), TypeError, "keys must be a sequence"),
        (lambda: m.assign(uuid.uuid4()), TypeError, "keys must be a sequence"),
        (lambda: m.assign(None), TypeError, "keys must be a sequence"),
        (lambda: m.assign(np.array("c")), ValueError, "keys must be a sequence"),
        (lambda: m.assign(["c", b"d"]), TypeError, "keys must all be str, got bytes at place 1"),
        (lambda: KeyMap().assign([1, 2]), TypeError, "keys must be str, bytes or uuid.UUID, got int at place 0"),
        (lambda: m.assign(["c", "d", "c", "a"]), ValueError, r"differ from one another; repeated: \['c', 'a'\]"),
        (lambda: m.assign(["c", "d"], np.array([5, 5])), ValueError, "ids must ascend, from at least 2"),
        (lambda: m.assign(["c"], np.array([1])), ValueError, "ids must ascend, from at least 2"),
        (lambda: m.assign(["c"], np.array([5, 6])), ValueError, r"ids must be int64 of shape \(1,\)"),
        (lambda: m.ids_of([b"a"]), TypeError, "keys must all be str, got bytes"),
        (lambda: m.remove(np.array([0, 2])), ValueError, r"these have none: \[2\]"),
        (lambda: m.remove(np.array([0, 0])), ValueError, "ids must differ"),
    ]
    for use, error, message in cases:
        with pytest.raises(error, match=message):
            use()
    assert (list(m), m.next_id, m.kind) == (["a", "b"], 2, "str")
    assert b"a" not in m
    assert 1 not in m
    m.take_back(0)
    m.take_back(2)
    assert m.assign([b"a"]).tolist() == [0]  # a kind that nobody asked for is forgotten with its keys


def test_columns_of_other_libraries():
    m = KeyMap()
    m.assign(np.array(["a", "bc"]))
    m.assign({"d": 1}.keys())
    pandas = pytest.importorskip("pandas")
    m.assign(pandas.Series(["e", "f"]))
    assert list(m) == ["a", "bc", "d", "e", "f"]


def test_damaged_maps_are_refused():
    def stored(**changed):
        m = KeyMap()
        m.assign(["a", "é", "c"])
        m.remove(np.array([0]))
        config, tensors = m.to_stored()
        return ({**config, **{k: v for k, v in changed.items() if k in config}}, {**tensors, **changed.pop("of", {})})

    assert list(KeyMap.from_stored(*stored())) == ["é", "c"]
    ends = lambda *values: {"keys.ends": np.array(values, np.int64)}  # noqa: E731
    cases = [
        (stored(kind="int"), "kind 'int'"),
        (stored(kind=None), "of no kind"),
        (stored(kind="uuid"), "no UUIDs"),
        (stored(given="bytes"), "kind 'str', asked for 'bytes'"),
        (stored(next_id=2), "next_id must be"),
        (stored(first_id=-1), "first_id must be"),
        (stored(of=ends(1, 3)), "cut within a character"),
        (stored(of=ends(2, 4)), "do not end"),
        (stored(of=ends(3, 2)), "do not end"),
        (stored(of=ends(-1, 3)), "do not end"),
        (stored(of={"keys.bytes": np.array([0xC3, 0x28, 0x63], np.uint8)}), "utf-8"),
        (stored(of={"keys.bytes": np.frombuffer(b"zzz", np.uint8), **ends(0, 0)}), "do not end"),
        (stored(of={"keys.bytes": np.frombuffer(b"cc", np.uint8), **ends(1, 2)}), "repeat"),
        (stored(of={"keys.ends": np.array([2, 3], np.int32)}), "ends int32"),
        (stored(of={"keys.ids": np.array([2, 1])}), "do not ascend"),
        (stored(of={"keys.ids": np.array([1, 1])}), "ids repeat"),
        (stored(of={"keys.ids": np.array([1])}), "ids of its 2 keys"),
    ]
    for (config, tensors), message in cases:
        with pytest.raises(ValueError, match=message):
            KeyMap.from_stored(config, tensors)
