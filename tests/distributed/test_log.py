"""The log keeps what was acknowledged, whatever was being written when its writer stopped."""

import numpy as np
import pytest

from annvq.distributed.folder import Folder
from annvq.distributed.forms import Kept
from annvq.distributed.log import Write, WriteLog, open_log, read_writes, survived
from annvq.distributed.manifest import Manifest, read_manifest
from annvq.errors import FormatError
from annvq.indexes.coding import Encoded


def write(first, n=3):
    ids = np.arange(first, first + n)
    return Write("add", ids, Kept(Encoded(np.full((n, 2), first % 200, np.uint8), None, None)), n)


@pytest.fixture
def log(tmp_path):
    made = WriteLog.made(tmp_path / "log-1.log")
    yield made
    made.close()


def held(log):
    with open_log(log.path) as file:
        return [write.ids[0] for _, write in read_writes(file, 0, survived(log.path).end)]


def test_writes_come_back(log):
    for first in (0, 10, 20):
        log.append(write(first))
    log.append(Write("remove", np.array([1, 2]), None, -2))
    with open_log(log.path) as file:
        back = [write for _, write in read_writes(file, 0, log.end)]
    assert [w.op for w in back] == ["add"] * 3 + ["remove"]
    np.testing.assert_array_equal(back[1].kept.encoded.codes, write(10).kept.encoded.codes)
    assert back[1].kept.encoded.norms is None
    assert back[3].kept is None
    assert survived(log.path) == (log.end, 7, 23)


def test_every_cut_of_the_last_record_is_forgotten(log):
    log.append(write(0))
    end = log.end
    log.append(write(10))
    whole = log.path.read_bytes()
    for size in range(end, len(whole)):
        log.path.write_bytes(whole[:size])
        assert survived(log.path) == (end, 3, 3)
    log.path.write_bytes(whole[:end] + bytes(len(whole) - end))  # grown, and not yet written
    assert survived(log.path).end == end
    log.path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert survived(log.path).end == end


def test_what_broke_before_the_last_record_is_an_error(log):
    for first in (0, 10):
        log.append(write(first))
    whole = log.path.read_bytes()
    middle = log.end // 2
    for at in range(0, middle, 7):
        log.path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        with pytest.raises(FormatError, match="corrupt"):
            survived(log.path)


def test_a_failed_write_leaves_nothing(log, monkeypatch):
    log.append(write(0))
    real = __import__("os").pwrite

    def full(descriptor, data, at):
        if at > log.end:
            raise OSError(28, "No space left on device")
        return real(descriptor, data[:5], at)

    monkeypatch.setattr("os.pwrite", full)
    with pytest.raises(OSError, match="No space"):
        log.append(write(10))
    monkeypatch.undo()
    assert log.path.stat().st_size == log.end
    log.append(write(20))
    assert held(log) == [0, 20]


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_a_write_that_is_interrupted_leaves_nothing(call, log, monkeypatch):
    log.append(write(0))
    real = getattr(__import__("os"), call)

    def interrupted(*arguments):
        real(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(f"os.{call}", interrupted)
    with pytest.raises(KeyboardInterrupt):
        log.append(write(10, n=500))
    monkeypatch.undo()
    log.append(write(20))  # shorter than what was interrupted
    assert log.path.stat().st_size == log.end
    assert held(log) == [0, 20]


def test_a_write_that_cannot_be_undone_is_undone_by_the_next(log, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    real = __import__("os").pwrite
    monkeypatch.setattr("os.pwrite", lambda descriptor, data, at: full() if at else real(descriptor, data[:50], at))
    cut = __import__("os").ftruncate
    calls = []

    def fails(descriptor, size):
        calls.append(size)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        cut(descriptor, size)

    monkeypatch.setattr("os.ftruncate", fails)
    with pytest.raises(OSError, match="No space"):
        log.append(write(10))
    assert log.path.stat().st_size == 50
    monkeypatch.undo()
    log.append(write(20))
    assert held(log) == [20]


def test_a_write_that_is_interrupted_before_it_counts_is_not_there(tmp_path, monkeypatch):
    WriteLog.made(tmp_path / "log-1.log").close()
    Manifest(3, "trained-1.annvq", ("shard-1.annvq",), "log-1.log", 5, 7).commit(tmp_path)
    folder = Folder(tmp_path)
    real = WriteLog.append

    def interrupted(log, write):
        real(log, write)
        raise KeyboardInterrupt

    monkeypatch.setattr(WriteLog, "append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        folder.append(write(40, n=500))
    monkeypatch.undo()
    assert folder.state == ((3, 0), 5, 7)
    folder.append(write(7))
    state = folder.state
    folder.close()
    again = Folder(tmp_path)
    assert again.state == state == ((3, state.position.offset), 8, 10)
    again.close()


def test_a_log_that_could_not_be_flushed_takes_no_more(log, monkeypatch):
    def fails(_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.fsync", fails)
    with pytest.raises(OSError, match="Input/output"):
        log.append(write(0))
    monkeypatch.undo()
    with pytest.raises(OSError, match="open the index anew"):
        log.append(write(10))


def test_opening_cuts_the_rest_off_and_removes_strays(tmp_path):
    WriteLog.made(tmp_path / "log-1.log").close()
    Manifest(3, "trained-1.annvq", ("shard-1.annvq",), "log-1.log", 5, 7).commit(tmp_path)
    (tmp_path / "shard-2.annvq").write_bytes(b"of a save that failed")
    (tmp_path / "mine.annvq").write_bytes(b"of somebody else")
    folder = Folder(tmp_path)
    assert folder.state == ((3, 0), 5, 7)
    folder.append(write(40))
    assert (folder.state.n, folder.state.next_id) == (8, 43)
    with pytest.raises(BlockingIOError, match="one at a time"):
        Folder(tmp_path)
    folder.close()
    with open(tmp_path / "log-1.log", "ab") as file:
        file.write(b"avqw\0")
    again = Folder(tmp_path)
    assert again.state == folder.state
    again.close()
    assert (tmp_path / "log-1.log").stat().st_size == folder.state.position.offset
    assert (tmp_path / "mine.annvq").exists()
    assert not (tmp_path / "shard-2.annvq").exists()


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"format": "annvq.sharded", "version": 9}', '{"format": "annvq.sharded", "version": 1}']
)
def test_manifests_that_are_none(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(FormatError, match=r"manifest\.json"):
        read_manifest(tmp_path)


def test_manifests_name_files_of_their_folder(tmp_path):
    Manifest(0, "../trained.annvq", ("shard-1.annvq",), "log-1.log", 5, 7).commit(tmp_path)
    with pytest.raises(FormatError, match="own folder"):
        read_manifest(tmp_path)
