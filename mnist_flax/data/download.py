"""Downloads that are verified, and that know within seconds when there is no network."""

import contextlib
import hashlib
import http.client
import itertools
import queue
import threading
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from mnist_flax.errors import UserError

# Longest silence of a server, name look-up included: without network we know within this time.
PATIENCE = 8.0


class Unavailable(UserError):
    """The data cannot be had here and now; a stand-in may take its place."""


class Remote(NamedTuple):
    """A file to download, and what it must be."""

    url: str
    size: int  # bytes
    sha256: str  # hex


def is_whole(path: Path, remote: Remote) -> bool:
    """Says whether a file is there and the one published."""
    if not path.is_file() or path.stat().st_size != remote.size:
        return False
    return hashlib.sha256(path.read_bytes()).hexdigest() == remote.sha256


def download(remote: Remote, path: Path, begun: Callable[[], None] = lambda: None) -> None:
    """Downloads a file, whole and verified or not at all; calls `begun` once bytes come.

    Raises Unavailable without network or with one that stalls, UserError for another file than
    the one published, OSError where nothing can be written.
    """
    chunks = _receive(remote)
    first = next(chunks)  # before this, nothing is created on disk
    begun()
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    # Not tempfile: its files are for their owner alone, and the folder may be shared.
    part = path.with_name(f".part-{uuid.uuid4().hex}")
    try:
        with part.open("xb") as file:
            for chunk in itertools.chain([first], chunks):
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != remote.sha256:
            got = f"SHA-256 {digest.hexdigest()}, expected {remote.sha256}"
            raise UserError(f"{remote.url} is not the file published: {got}. Nothing was kept.")
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _receive(remote: Remote) -> Iterator[bytes]:
    """Yields a URL's bytes as they come; at most PATIENCE seconds of silence before or between."""
    chunks: queue.Queue[bytes | str] = queue.Queue(maxsize=64)
    # In a thread, because nothing else bounds a name look-up that hangs.
    threading.Thread(target=_fetch, args=(remote.url, chunks), daemon=True).start()
    host, received = urllib.parse.urlsplit(remote.url).netloc, 0
    while received <= remote.size:
        try:
            chunk = chunks.get(timeout=PATIENCE)
        except queue.Empty:
            state = f"after {received:,} bytes" if received else "at all"
            raise Unavailable(f"no answer {state} from {host} in {PATIENCE:.0f} s") from None
        if isinstance(chunk, str):
            raise Unavailable(f"no download from {host} ({chunk})")
        if not chunk and received < remote.size:
            raise Unavailable(f"{host} ended after {received:,} of {remote.size:,} bytes")
        if not chunk:
            return
        received += len(chunk)
        yield chunk
    raise UserError(f"{remote.url} has more than the {remote.size:,} bytes of the file published.")


def _fetch(url: str, chunks: "queue.Queue[bytes | str]") -> None:
    """Puts a URL's bytes into a queue, then none; or why there are none."""
    with contextlib.suppress(queue.Full):  # the reader gave up: so do we
        try:
            # Twice: the reader, who also sees a name look-up that hangs, decides alone.
            with urllib.request.urlopen(url, timeout=2 * PATIENCE) as response:
                while chunk := response.read1(2**16):
                    chunks.put(chunk, timeout=PATIENCE)
            chunks.put(b"", timeout=PATIENCE)
        except (OSError, http.client.HTTPException) as error:
            reason = str(error).removeprefix("<urlopen error ").removesuffix(">")
            chunks.put(reason, timeout=PATIENCE)
