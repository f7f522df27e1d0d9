"""Saving replaces the file that a path leads to, and leaves it what it was: where it lies, who may read it."""

import os
import socket
import stat
from pathlib import Path

import numpy as np
import pytest

from annvq import ProductVQ, load_quantizer, replacing, storage
from annvq.benchmarks.results import Results
from annvq.datasets import cache
from annvq.training.history import History


def write_tensors(path):
    storage.write(path, "thing", 1, {}, {"a": np.zeros(3)})


def write_text(path):
    storage.write_text(path, "{}")


def write_history(path):
    History(loss=[1.0]).save(path)


def write_cache(path):
    with cache.atomic_path(Path(path)) as temporary:
        temporary.write_bytes(b"new")


def write_moved(path):
    made = Path(path).parent / "made"
    made.write_bytes(b"new")
    replacing.move_to(made, path)


WRITERS = [write_tensors, write_text, write_history, write_cache, write_moved]


@pytest.fixture(params=WRITERS, ids=lambda w: w.__name__)
def write(request):
    return request.param


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield
    os.umask(before)


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_link_stays_and_its_target_is_replaced(write, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target, link, second = tmp_path / "elsewhere" / "index-17", tmp_path / "current", tmp_path / "second"
    target.write_bytes(b"old")
    link.symlink_to("elsewhere/index-17")
    second.symlink_to(link)
    write(second)
    assert (second.readlink(), str(link.readlink())) == (link, "elsewhere/index-17")
    assert not target.is_symlink()
    assert target.read_bytes() not in (b"old", b"")
    assert list(target.parent.iterdir()) == [target]


def test_a_link_to_nothing_yet_stays(write, tmp_path):
    link = tmp_path / "current"
    link.symlink_to(tmp_path / "first")
    write(link)
    assert link.is_symlink()
    assert (tmp_path / "first").is_file()


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o666])
def test_the_mode_stays(write, tmp_path, mode):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    path.chmod(mode)
    write(path)
    assert mode_of(path) == mode


def test_a_new_file_is_as_any_other(write, tmp_path, umask):
    write(tmp_path / "x")
    assert mode_of(tmp_path / "x") == 0o640


def test_a_group_that_cannot_be_kept_opens_nothing_to_another(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    path.chmod(0o664)
    asked, real = [], Path.stat

    def of_another(self, **kwargs):
        found = real(self, **kwargs)
        return os.stat_result([*found[:4], 4_000_001, 4_000_002, *found[6:10]]) if self.name == "x" else found

    def refuse(*arguments):
        asked.append(arguments[1:])
        raise PermissionError("not yours")

    monkeypatch.setattr(Path, "stat", of_another)
    monkeypatch.setattr(replacing.os, "chown", refuse)
    write_text(path)
    monkeypatch.undo()
    assert asked == [(-1, 4_000_002), (4_000_001, -1)]
    assert mode_of(path) == 0o644


def test_what_is_no_regular_file_is_refused(write, tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as s:
        monkeypatch.chdir(tmp_path)  # a socket's path must be short
        s.bind("socket")
        for name in ("pipe", "socket"):
            with pytest.raises(ValueError, match=f"cannot write .*{name}: it is no regular file"):
                write(tmp_path / name)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match=r"cannot write .*folder: it is a folder"):
        write(tmp_path / "folder")
    assert not [p for p in tmp_path.iterdir() if p.suffix == ".tmp"]


def test_links_in_a_circle(write, tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        write(tmp_path / "a")


@pytest.mark.parametrize("name", ["n" * 255, "ü" * 127])
def test_the_longest_names(write, tmp_path, name):
    for _ in range(2):
        write(tmp_path / name)
    assert (tmp_path / name).is_file()


def test_the_users_folder_is_not_expanded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"there is no folder .* \(~ is not expanded"):
        write_text("~/x")
    with pytest.raises(FileNotFoundError, match=r"no such file: ~/x \(~ is not expanded"):
        load_quantizer("~/x")


def test_a_downloaded_file_where_a_link_leads_to_another_file_system(tmp_path, monkeypatch):
    target, link, made = tmp_path / "target", tmp_path / "link", tmp_path / "made"
    target.write_bytes(b"old")
    link.symlink_to(target)
    made.write_bytes(b"new")
    real = os.replace

    def across(source, to):
        if Path(source) == made:
            raise OSError(18, "Invalid cross-device link")
        real(source, to)

    monkeypatch.setattr(replacing.os, "replace", across)
    replacing.move_to(made, link)
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert not made.exists()


def test_results_of_benchmarks_stay_behind_a_link(tmp_path):
    target = tmp_path / "kept.jsonl"
    (tmp_path / "results.jsonl").symlink_to(target)
    Results(tmp_path).append({"point": "a", "key": "1", "error": None})
    Results(tmp_path).drop_stale({"a": "1"})
    assert len(Results(tmp_path).rows) == 1
    assert (tmp_path / "results.jsonl").is_symlink()
    assert Results(tmp_path, fresh=True).rows == []
    assert (tmp_path / "results.jsonl").is_symlink()
    assert target.read_text() == ""


def test_quantizers_too(tmp_path):
    x = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    target, link = tmp_path / "private", tmp_path / "current"
    target.write_bytes(b"")
    target.chmod(0o600)
    link.symlink_to(target)
    ProductVQ(8, 2, 4).fit(x).save(link)
    assert link.is_symlink()
    assert mode_of(target) == 0o600
    assert load_quantizer(link).kind == "product"
