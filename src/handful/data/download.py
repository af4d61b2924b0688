"""Fetch published archives: streamed to a temporary name, checked, and only then given their own.

handful data build omniglot --download
"""

from __future__ import annotations

import hashlib
import http.client
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from handful.errors import HandfulError

BLOCK = 1 << 16  # bytes read at a time


def download(
    url: str, target: Path, sha256: str | None = None, *, md5: str | None = None, timeout: float = 60.0
) -> str:
    """Fetch `url` into the file `target` and return its SHA-256, so that it can be recorded where it is not
    known yet.

    sha256, md5: hexadecimal digests to expect, or None.  Nothing appears under the name `target` before the
    whole file has arrived and its digests agree.  timeout: seconds without a byte.

    Raises HandfulError: no such address, no connection, a transfer that stopped early, another digest.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            expected = _transfer(url, file.write, timeout)
        size = part.stat().st_size
        if expected is not None and size != expected:
            raise HandfulError(f"{url} broke off after {size} of {expected} bytes; try again.")
        found = file_digest(part, "sha256")
        for kind, want in (("sha256", sha256), ("md5", md5)):
            got = file_digest(part, kind)
            if want is not None and got != want.lower():
                raise HandfulError(
                    f"{url} has the {kind} {got}, not {want.lower()} as published; nothing was kept: the "
                    "file there changed, or the transfer was tampered with."
                )
        os.chmod(part, 0o644)
        os.replace(part, target)
        return found
    finally:
        part.unlink(missing_ok=True)


def _transfer(url: str, write: Callable[[bytes], object], timeout: float) -> int | None:
    """Stream `url` into `write`; returns the length that the server announced."""
    try:
        with closing(urllib.request.urlopen(url, timeout=timeout)) as response:
            while block := response.read(BLOCK):
                write(block)
            length = response.headers.get("Content-Length")
            return None if length is None else int(length)
    except urllib.error.HTTPError as error:
        error.close()
        raise HandfulError(f"{url} answered {error.code} {error.reason}; look for the file's new address.") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise HandfulError(f"{url} could not be fetched ({reason}); check the connection and try again.") from error


def file_digest(path: Path, kind: str) -> str:
    """Hexadecimal digest of a file, `kind` being `sha256` or `md5`."""
    digest = hashlib.new(kind, usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
