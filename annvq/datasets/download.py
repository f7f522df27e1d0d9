"""Fetching a card's file: mirrors in order, resumed, retried, verified, and moved into place in one step.

Beside ``NAME.hdf5`` lie ``NAME.hdf5.json`` (what was verified: bytes, sha256, from where),
``NAME.hdf5.lock``, and, while a download is incomplete, ``NAME.hdf5.part`` with ``NAME.hdf5.part.json``
(which version of the file the part is from).
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from annvq._version import __version__
from annvq.datasets import cache
from annvq.datasets.cards import Card
from annvq.replacing import move_to

_log = logging.getLogger("annvq.datasets")

#: Bytes that are written at once; what a broken connection can lose of what arrived.
_CHUNK = 1 << 16
_HASH_CHUNK = 1 << 20
_ATTEMPTS = 4
_FIRST_WAIT = 0.5
_LONGEST_WAIT = 30.0
_TIMEOUT = (10.0, 60.0)  # connect, and between two reads, in seconds
#: Client errors that may pass: timeout, too early, too many requests.
_PASSING = (408, 425, 429)


class DownloadError(OSError):
    """No address of a data set gave the file; the message says why and what to do without a network."""


class _RefusedError(Exception):
    """This address will not give the right file; the next may."""


class _InterruptedError(Exception):
    """This attempt failed; another at the same address may go on from here."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def fetch(card: Card, *, progress: bool | None = None) -> Path:
    """The path of the card's file, downloaded unless it is there already and verified.

    A file put there by hand is accepted if its size and checksum are the card's (where the card states none,
    what comes first is recorded, and held to afterwards).

    Raises:
        ValueError: a file is there, but it is not the one that the card, or an earlier download, describes.
        DownloadError: no address gave the file.
    """
    if _verified(card):
        return card.path
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(cache.lock(_beside(card.path, ".lock")))
        except OSError as error:
            raise _no_place(card, error) from error
        # Another process may have brought it while this one waited.
        if not _verified(card):
            _download(card, progress)
    return card.path


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _verified(card: Card) -> bool:
    """Whether the right file is in place. Hashed once; then its size and time stamp vouch for it."""
    if not card.path.is_file():
        return False
    stat = card.path.stat()
    record = _read_json(_beside(card.path, ".json"))
    known = record.get("sha256", "")
    same_file = (record.get("bytes"), record.get("mtime_ns")) == (stat.st_size, stat.st_mtime_ns)
    if same_file and known and known == (card.sha256 or known):
        return True
    if card.bytes and stat.st_size != card.bytes:
        raise ValueError(f"{card.path} has {stat.st_size} bytes, expected {card.bytes}; {_delete_hint(card)}")
    found = _sha256(card.path)
    expected = card.sha256 or known
    if expected and found != expected:
        raise ValueError(f"{card.path} has sha256 {found}, expected {expected}; {_delete_hint(card)}")
    _record(card, found, record.get("url", "put there by hand"))
    return True


def _delete_hint(card: Card) -> str:
    return f"delete it and {card.path.name}.json to fetch it again"


def _download(card: Card, progress: bool | None) -> None:
    expected = card.sha256 or _read_json(_beside(card.path, ".json")).get("sha256", "")
    reasons = []
    try:
        card.path.parent.mkdir(parents=True, exist_ok=True)
        for url in card.urls:
            try:
                part = _from_address(card, url, progress)
                found = _check_part(card, part, expected)
            except _RefusedError as error:
                if url != card.urls[-1]:  # of the last, the error tells
                    _log.warning("%s: %s; trying the next address", url, error)
                reasons.append(f"{url}: {error}")
                continue
            move_to(part, card.path)
            _part_record(card).unlink(missing_ok=True)
            _record(card, found, url)
            return
    except OSError as error:
        raise _no_place(card, error) from error
    raise DownloadError(
        f"cannot download {card.name!r}: {'; '.join(reasons)}. Without a network, copy {card.path.name} to "
        f"{card.path} by hand, or give load() the path of a copy"
    )


def _no_place(card: Card, error: OSError) -> DownloadError:
    return DownloadError(f"cannot keep {card.name!r} in {card.path.parent}: {error}; set ANNVQ_DATA to another folder")


def _from_address(card: Card, url: str, progress: bool | None) -> Path:
    """Download from one address into the part file, retrying as long as attempts get anywhere."""
    part = _beside(card.path, ".part")
    failures = 0
    if _complete(card, url, part):  # a crash came between the last byte and the check
        return part
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _attempt(card, url, part, progress)
            return part
        except _InterruptedError as error:
            after = part.stat().st_size if part.exists() else 0
            failures = 0 if after > before else failures + 1
            if failures >= _ATTEMPTS:
                raise _RefusedError(f"{error} ({failures} attempts)") from error
            wait = min(error.wait or _FIRST_WAIT * 2 ** max(0, failures - 1), _LONGEST_WAIT)
            _log.info("%s: %s; again in %.1f s", url, error, wait)
            time.sleep(wait)


def _complete(card: Card, url: str, part: Path) -> bool:
    record = _read_json(_part_record(card))
    return part.exists() and record.get("url") == url and record.get("total") == part.stat().st_size


def _attempt(card: Card, url: str, part: Path, progress: bool | None) -> None:
    import requests

    start, headers = _resume_point(card, url, part)
    try:
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            plan = _plan(card, response, start)
            if plan is None:
                _discard(card)
                raise _InterruptedError(f"the server cannot resume ({response.status_code})")
            _note_version(card, url, response, plan.total)
            _enough_room(part, plan)
            _receive(response, part, plan, _bar(card, plan, progress))
    except (requests.exceptions.InvalidURL, requests.TooManyRedirects, ValueError) as error:
        raise _RefusedError(_short(error)) from error
    except requests.RequestException as error:
        raise _InterruptedError(_short(error)) from error


@dataclass(frozen=True)
class _Plan:
    """Where the body of a response belongs: from byte ``start`` of ``total`` (None: unknown)."""

    start: int
    total: int | None


def _resume_point(card: Card, url: str, part: Path) -> tuple[int, dict[str, str]]:
    """How many bytes of the part can be kept, and the headers that ask for the rest of that version."""
    headers = {"User-Agent": f"annvq/{__version__}", "Accept-Encoding": "identity"}
    record = _read_json(_part_record(card))
    have = part.stat().st_size if part.exists() else 0
    validator = record.get("validator", "")
    # Without a validator a changed file could be spliced on; what another address gave may be another
    # version.
    if not have or not validator or record.get("url") != url:
        return 0, headers
    return have, {**headers, "Range": f"bytes={have}-", "If-Range": validator}


def _plan(card: Card, response: Any, start: int) -> _Plan | None:
    """What to do with a response; None if what we have cannot be continued."""
    status = response.status_code
    if status == 416:
        return None
    if status in _PASSING or status >= 500:
        raise _InterruptedError(f"{status} {response.reason}", _retry_after(response))
    if status not in (200, 206):
        raise _RefusedError(f"{status} {response.reason}")
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isdecimal() else None
    if response.headers.get("Content-Encoding", "identity") != "identity":
        total = None  # it counts the bytes before decoding
    if status == 206:
        unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
        span, _, whole = rest.partition("/")
        # A server that heeds Range but not If-Range would splice two versions.
        same = _validator(response) in ("", _read_json(_part_record(card)).get("validator"))
        if not start or unit != "bytes" or span.partition("-")[0] != str(start) or not same:
            return None
        total = int(whole) if whole.isdecimal() else None
    else:
        start = 0
    if card.bytes and total is not None and total != card.bytes:
        raise _RefusedError(f"offers {total} bytes, expected {card.bytes}")
    return _Plan(start, total)


def _note_version(card: Card, url: str, response: Any, total: int | None) -> None:
    """Remember which version the part belongs to, before the first byte of it is written."""
    _write_json(_part_record(card), {"url": url, "validator": _validator(response), "total": total})


def _validator(response: Any) -> str:
    """What tells one version of the file from another; If-Range takes strong ones only (RFC 9110, 13.1.5)."""
    etag = str(response.headers.get("ETag", ""))
    return etag if etag and not etag.startswith("W/") else str(response.headers.get("Last-Modified", ""))


def _enough_room(part: Path, plan: _Plan) -> None:
    needed = (plan.total or 0) - plan.start
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise OSError(f"{needed:,} bytes are needed, {free:,} are free")


def _receive(response: Any, part: Path, plan: _Plan, bar: AbstractContextManager[Any]) -> None:
    have = plan.start
    with open(part, "r+b" if plan.start else "wb") as file, bar as shown:
        file.truncate(plan.start)
        file.seek(plan.start)
        for chunk in response.iter_content(_CHUNK):
            file.write(chunk)
            have += len(chunk)
            shown.update(len(chunk))
        file.flush()
        os.fsync(file.fileno())
    if plan.total is not None and have < plan.total:
        raise _InterruptedError(f"the connection broke at byte {have} of {plan.total}")


def _bar(card: Card, plan: _Plan, progress: bool | None) -> AbstractContextManager[Any]:
    from tqdm import tqdm

    bar: AbstractContextManager[Any] = tqdm(
        desc=card.path.name,
        total=plan.total,
        initial=plan.start,
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        disable=None if progress is None else not progress,
    )
    return bar


def _check_part(card: Card, part: Path, expected: str) -> str:
    """The part's sha256 if it is complete and right; a wrong one is thrown away, never resumed."""
    size = part.stat().st_size
    total = _read_json(_part_record(card)).get("total") or card.bytes
    found = _sha256(part)
    problem = ""
    if total and size != total:
        problem = f"gave {size} bytes, expected {total}"
    elif expected and found != expected:
        problem = f"gave a file with sha256 {found}, expected {expected}"
        if not card.sha256:
            problem += f" as {card.path.name}.json recorded of an earlier download (delete that to accept another)"
    elif not _looks_like_hdf5(part):
        problem = "gave something that is no HDF5 file"
    if problem:
        _discard(card)
        raise _RefusedError(problem)
    return found


def _looks_like_hdf5(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(8) == b"\x89HDF\r\n\x1a\n"


def _discard(card: Card) -> None:
    _beside(card.path, ".part").unlink(missing_ok=True)
    _part_record(card).unlink(missing_ok=True)


def _part_record(card: Card) -> Path:
    return _beside(card.path, ".part.json")


def _record(card: Card, sha256: str, url: str) -> None:
    stat = card.path.stat()
    facts = {"url": url, "bytes": stat.st_size, "sha256": sha256, "mtime_ns": stat.st_mtime_ns}
    try:
        _write_json(_beside(card.path, ".json"), facts)
    except OSError as error:  # a shared folder that only others may write to
        _log.info("cannot record the checksum of %s: %s", card.path, error)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_HASH_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_json(path: Path, facts: dict[str, Any]) -> None:
    with cache.atomic_path(path) as temporary:
        temporary.write_text(json.dumps(facts, indent=1), encoding="utf-8")


def _retry_after(response: Any) -> float | None:
    stated = response.headers.get("Retry-After", "")
    return float(stated) if stated.isdecimal() else None


def _short(error: Exception) -> str:
    """The cause that a person can use, without urllib3's chain of object addresses."""
    cause: BaseException = error
    while cause.__cause__ is not None or cause.__context__ is not None:
        cause = cause.__cause__ or cause.__context__  # type: ignore[assignment]
    return f"{type(error).__name__} ({cause})"
