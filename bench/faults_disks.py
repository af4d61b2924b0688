"""Disks that are too small and folders that nobody may write into."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PAGE = 4096  # bytes, by which a tmpfs fills
ROOM = 2**24  # bytes of a disk that is large enough


class LeftOut(Exception):
    """Why a kind of fault cannot be tried."""


@contextmanager
def disk(place: Path) -> Iterator[Callable[..., None]]:
    """A file system in memory, and what gives it another size, or makes it read-only."""
    place.mkdir()

    def mount(*words: str) -> None:
        try:
            done = subprocess.run(["mount", *words, str(place)], capture_output=True, text=True)
        except OSError as error:
            raise LeftOut(f"there is no `mount` here ({error})") from error
        if done.returncode:
            raise LeftOut(f"mounting is not permitted here ({done.stderr.strip()})")

    mount("-t", "tmpfs", "-o", f"size={PAGE}", "tmpfs")
    try:
        yield lambda size, mode="rw": mount("-o", f"remount,size={size},{mode}")
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(path: Path) -> None:
    """Write a file until the disk is full."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(PAGE)):
            pass


def freeze(folder: Path, frozen: bool) -> None:
    """Let nobody change what is in a folder, the superuser included, or let them again."""
    if os.geteuid():
        for path in [folder, *folder.rglob("*")]:
            path.chmod((0o500 if path.is_dir() else 0o400) if frozen else (0o700 if path.is_dir() else 0o600))
        return
    try:
        done = subprocess.run(["chattr", "-R", "+i" if frozen else "-i", str(folder)], capture_output=True, text=True)
    except OSError as error:
        raise LeftOut(f"there is no `chattr` here ({error})") from error
    if done.returncode:
        raise LeftOut(f"files cannot be made immutable here ({done.stderr.strip().splitlines()[-1]})")
