"""Downloads: resumed, never spliced, retried, verified, atomic; mirrors; what to do offline."""

import base64
import json
import os
import pickle
import re
import subprocess
import sys
import time

import pytest

from annvq.datasets import download
from annvq.datasets.download import DownloadError, fetch


def _leftovers(folder):
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith((".lock", ".hdf5", ".hdf5.json")))


def test_brings_the_file_and_records_its_checksum(site, make_card, hdf5_bytes, sha256, data_dir):
    site.files["/toy.hdf5"] = hdf5_bytes
    path = fetch(make_card())
    assert path == data_dir / "toy.hdf5"
    assert path.read_bytes() == hdf5_bytes
    record = json.loads((data_dir / "toy.hdf5.json").read_text())
    assert record["sha256"] == sha256(hdf5_bytes)
    assert record["bytes"] == len(hdf5_bytes)
    assert _leftovers(data_dir) == []
    assert all(agent.startswith("annvq/") for agent in site.agents)


def test_a_file_that_is_there_is_not_fetched_again(site, make_card, hdf5_bytes, monkeypatch):
    site.files["/toy.hdf5"] = hdf5_bytes
    card = make_card()
    fetch(card)
    monkeypatch.setattr(download, "_sha256", lambda path: pytest.fail("hashed again"))
    fetch(card)
    assert len(site.requests) == 1


@pytest.mark.parametrize("etag", [None, '"v1"'], ids=["last-modified", "etag"])
def test_cut_connections_resume_where_they_broke(site, make_card, hdf5_bytes, etag):
    site.files["/toy.hdf5"] = hdf5_bytes
    if etag:
        site.etag["/toy.hdf5"] = etag
    site.cuts = [50_000, 0, 70_000]
    assert fetch(make_card()).read_bytes() == hdf5_bytes
    ranges = [asked for _, asked in site.requests]
    assert ranges == [None, "bytes=50000-", "bytes=50000-", "bytes=120000-"]


def test_progress_renews_patience_but_silence_ends_it(site, make_card, hdf5_bytes):
    site.files["/toy.hdf5"] = hdf5_bytes
    site.cuts = [10_000] * 12
    assert fetch(make_card()).read_bytes() == hdf5_bytes
    site.cuts = [0] * 100
    (fetch(make_card())).unlink()
    with pytest.raises(DownloadError, match=r"IncompleteRead.* \(4 attempts\)"):
        fetch(make_card())


def test_a_file_that_changed_meanwhile_is_not_spliced(site, make_card, hdf5_bytes):
    site.files["/toy.hdf5"] = hdf5_bytes
    site.etag["/toy.hdf5"] = '"old"'
    site.cuts = [60_000]
    changed = hdf5_bytes[:-5000] + bytes(5000)

    def change(path):
        if len(site.requests) == 2:
            site.files[path], site.etag[path] = changed, '"new"'

    site.on_request = change
    assert fetch(make_card()).read_bytes() == changed


def test_a_server_that_ignores_if_range_does_not_splice_either(site, make_card, hdf5_bytes):
    site.heeds_if_range = False
    test_a_file_that_changed_meanwhile_is_not_spliced(site, make_card, hdf5_bytes)
    assert [asked for _, asked in site.requests] == [None, "bytes=60000-", None]


def test_a_server_without_ranges_or_version_starts_over(site, make_card, hdf5_bytes):
    site.files["/toy.hdf5"] = hdf5_bytes
    site.cuts = [60_000]
    site.heeds_range = False
    assert fetch(make_card()).read_bytes() == hdf5_bytes
    fetch(make_card()).unlink()
    site.last_modified, site.cuts, site.requests = None, [60_000], []
    assert fetch(make_card()).read_bytes() == hdf5_bytes
    assert [asked for _, asked in site.requests] == [None, None]


def test_resumes_what_an_earlier_run_left(site, make_card, hdf5_bytes, data_dir):
    site.files["/toy.hdf5"] = hdf5_bytes
    card = make_card()
    data_dir.mkdir()
    (data_dir / "toy.hdf5.part").write_bytes(hdf5_bytes[:80_000])
    record = {"url": card.urls[0], "validator": site.last_modified, "total": len(hdf5_bytes)}
    (data_dir / "toy.hdf5.part.json").write_text(json.dumps(record))
    assert fetch(card).read_bytes() == hdf5_bytes
    assert site.requests == [("/toy.hdf5", "bytes=80000-")]


def test_a_complete_part_needs_no_request(site, make_card, hdf5_bytes, data_dir):
    card = make_card()
    data_dir.mkdir()
    (data_dir / "toy.hdf5.part").write_bytes(hdf5_bytes)
    record = {"url": card.urls[0], "validator": "x", "total": len(hdf5_bytes)}
    (data_dir / "toy.hdf5.part.json").write_text(json.dumps(record))
    assert fetch(card).read_bytes() == hdf5_bytes
    assert site.requests == []


@pytest.mark.parametrize("record", [None, "{", "[]", '{"url": 3, "validator": "x"}'])
def test_garbage_left_by_a_crash_does_no_harm(site, make_card, hdf5_bytes, data_dir, record):
    site.files["/toy.hdf5"] = hdf5_bytes
    data_dir.mkdir()
    (data_dir / "toy.hdf5.part").write_bytes(b"garbage" * 1000)
    (data_dir / ".toy.hdf5.json.abc.tmp").write_bytes(b"x")
    if record is not None:
        (data_dir / "toy.hdf5.part.json").write_text(record)
        (data_dir / "toy.hdf5.json").write_text(record)
    assert fetch(make_card()).read_bytes() == hdf5_bytes


def test_garbage_that_claims_to_be_a_part_is_found_by_the_checksum(site, make_card, hdf5_bytes, sha256, data_dir):
    site.files["/a.hdf5"] = site.files["/b.hdf5"] = hdf5_bytes
    card = make_card("/a.hdf5", "/b.hdf5", sha256=sha256(hdf5_bytes))
    data_dir.mkdir()
    (data_dir / "toy.hdf5.part").write_bytes(bytes(80_000))
    record = {"url": card.urls[0], "validator": site.last_modified, "total": len(hdf5_bytes)}
    (data_dir / "toy.hdf5.part.json").write_text(json.dumps(record))
    assert fetch(card).read_bytes() == hdf5_bytes
    assert site.requests == [("/a.hdf5", "bytes=80000-"), ("/b.hdf5", None)]


def test_a_part_longer_than_the_file_starts_over(site, make_card, hdf5_bytes, data_dir):
    site.files["/toy.hdf5"] = hdf5_bytes
    card = make_card()
    data_dir.mkdir()
    (data_dir / "toy.hdf5.part").write_bytes(hdf5_bytes + b"x" * 10)
    record = {"url": card.urls[0], "validator": site.last_modified, "total": len(hdf5_bytes)}
    (data_dir / "toy.hdf5.part.json").write_text(json.dumps(record))
    assert fetch(card).read_bytes() == hdf5_bytes
    assert [asked for _, asked in site.requests] == [f"bytes={len(hdf5_bytes) + 10}-", None]


@pytest.mark.parametrize("status", [403, 404, 410])
def test_the_next_mirror_is_asked(site, make_card, hdf5_bytes, status):
    site.files["/b.hdf5"] = hdf5_bytes
    site.status["/a.hdf5"] = [status] * 10
    assert fetch(make_card("/a.hdf5", "/b.hdf5")).read_bytes() == hdf5_bytes
    assert [path for path, _ in site.requests] == ["/a.hdf5", "/b.hdf5"]


@pytest.mark.parametrize("status", [500, 503, 429])
def test_passing_failures_are_retried(site, make_card, hdf5_bytes, status):
    site.files["/toy.hdf5"] = hdf5_bytes
    site.status["/toy.hdf5"] = [status, status]
    assert fetch(make_card()).read_bytes() == hdf5_bytes
    assert len(site.requests) == 3


def test_redirects_are_followed_and_resumed(site, make_card, hdf5_bytes):
    site.files["/real.hdf5"] = hdf5_bytes
    site.redirects["/toy.hdf5"] = "/real.hdf5"
    site.cuts = [33_000]
    assert fetch(make_card()).read_bytes() == hdf5_bytes
    assert ("/real.hdf5", "bytes=33000-") in site.requests


def test_a_redirect_loop_is_refused(site, make_card):
    site.redirects["/toy.hdf5"] = "/toy.hdf5"
    with pytest.raises(DownloadError, match="TooManyRedirects"):
        fetch(make_card())


def test_a_wrong_checksum_names_both_and_tries_the_next(site, make_card, hdf5_bytes, sha256, data_dir):
    wrong = hdf5_bytes[:-1] + bytes([hdf5_bytes[-1] ^ 1])
    site.files["/a.hdf5"], site.files["/b.hdf5"] = wrong, hdf5_bytes
    expected = sha256(hdf5_bytes)
    with pytest.raises(DownloadError, match=f"{sha256(wrong)}, expected {expected}"):
        fetch(make_card("/a.hdf5", sha256=expected))
    assert not (data_dir / "toy.hdf5").exists()
    assert _leftovers(data_dir) == []
    assert fetch(make_card("/a.hdf5", "/b.hdf5", sha256=expected)).read_bytes() == hdf5_bytes


def test_the_first_download_is_what_later_ones_are_held_to(site, make_card, hdf5_bytes, sha256):
    site.files["/toy.hdf5"] = hdf5_bytes
    fetch(make_card()).unlink()
    site.files["/toy.hdf5"] = hdf5_bytes + b"new"
    with pytest.raises(DownloadError, match=rf"expected {sha256(hdf5_bytes)} as toy\.hdf5\.json recorded"):
        fetch(make_card())
    site.files["/toy.hdf5"] = hdf5_bytes
    assert fetch(make_card()).read_bytes() == hdf5_bytes


def test_a_wrong_size_is_refused_before_it_is_downloaded(site, make_card, hdf5_bytes):
    site.files["/toy.hdf5"] = hdf5_bytes
    with pytest.raises(DownloadError, match=f"offers {len(hdf5_bytes)} bytes, expected 7"):
        fetch(make_card(bytes=7))


def test_a_short_file_of_unstated_length_is_found_by_the_cards_size(site, make_card, hdf5_bytes):
    site.files["/toy.hdf5"] = hdf5_bytes[:1000]
    site.sends_length = False
    with pytest.raises(DownloadError, match=f"gave 1000 bytes, expected {len(hdf5_bytes)}"):
        fetch(make_card(bytes=len(hdf5_bytes)))


def test_an_error_page_is_no_data_set(site, make_card, data_dir):
    site.files["/toy.hdf5"] = b"<html>please log in</html>"
    with pytest.raises(DownloadError, match="no HDF5 file"):
        fetch(make_card())
    assert _leftovers(data_dir) == []


def test_offline_the_error_says_where_to_put_the_file(site, make_card, hdf5_bytes, data_dir):
    card = make_card("/gone.hdf5")
    dead = type(card)(**{**card.__dict__, "urls": ("http://127.0.0.1:9/toy.hdf5", card.urls[0])})
    with pytest.raises(DownloadError) as caught:
        fetch(dead)
    message = str(caught.value)
    assert "127.0.0.1:9/toy.hdf5: ConnectionError" in message
    assert "/gone.hdf5: 404" in message
    assert "object at 0x" not in message
    assert "\n" not in message
    target = re.search(r"copy toy\.hdf5 to (\S+) by hand", message)
    assert target is not None
    (data_dir / "toy.hdf5").write_bytes(hdf5_bytes)
    assert str(fetch(dead)) == target[1]


def test_a_file_put_by_hand_is_checked(make_card, hdf5_bytes, sha256, data_dir):
    data_dir.mkdir()
    (data_dir / "toy.hdf5").write_bytes(hdf5_bytes)
    with pytest.raises(ValueError, match=f"has {len(hdf5_bytes)} bytes, expected 5; delete it"):
        fetch(make_card(bytes=5))
    with pytest.raises(ValueError, match=f"has sha256 {sha256(hdf5_bytes)}, expected {'0' * 64}"):
        fetch(make_card(sha256="0" * 64))
    assert fetch(make_card(sha256=sha256(hdf5_bytes))).read_bytes() == hdf5_bytes


def test_a_file_that_rots_is_noticed(site, make_card, hdf5_bytes):
    site.files["/toy.hdf5"] = hdf5_bytes
    path = fetch(make_card())
    path.write_bytes(bytes(len(hdf5_bytes)))
    os.utime(path, ns=(0, 0))
    with pytest.raises(ValueError, match="has sha256"):
        fetch(make_card())


def test_too_little_room_is_said_before_anything_is_written(site, make_card, hdf5_bytes, monkeypatch):
    site.files["/toy.hdf5"] = hdf5_bytes
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DownloadError, match=r"bytes are needed, 10 are free; set ANNVQ_DATA"):
        fetch(make_card())


def test_a_folder_that_cannot_be_made(make_card, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("ANNVQ_DATA", str(tmp_path / "file" / "folder"))
    with pytest.raises(DownloadError, match=r"cannot keep 'toy' in .*folder: .*; set ANNVQ_DATA to another folder"):
        fetch(make_card())


FETCH = """
import base64, pickle, sys
from annvq.datasets.download import fetch
print(fetch(pickle.loads(base64.b64decode(sys.argv[1]))).stat().st_size)
"""


def test_two_processes_download_once(site, make_card, hdf5_bytes):
    site.files["/toy.hdf5"] = hdf5_bytes
    site.on_request = lambda path: time.sleep(1.0)
    card = base64.b64encode(pickle.dumps(make_card())).decode()
    command = [sys.executable, "-c", FETCH, card]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    sizes = [int(worker.communicate(timeout=60)[0]) for worker in workers]
    assert sizes == [len(hdf5_bytes)] * 3
    assert len(site.requests) == 1
