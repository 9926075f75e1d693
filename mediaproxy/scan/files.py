"""What there is to scan: files, folders, globs, and URLs of object stores, in an order that is always the same."""

from __future__ import annotations

import errno
import glob
import os
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

_MAGIC: Final = "*?["


class Place(NamedTuple):
    """A file, or what stands in its place: then `trouble` says why it cannot be read. size: octets, if known;
    stamp: what changes when the file does."""

    path: str
    size: int = 0
    trouble: str = ""
    stamp: str = ""


def find(paths: Sequence[str]) -> Iterator[Place]:
    """Every file once, by name within each of `paths`."""
    seen: set[tuple[int, int]] = set()
    for path in paths:
        if "://" in path:
            yield from _remote(path)
            continue
        path = os.path.abspath(path)  # the report and a cluster's workers are elsewhere
        if os.path.lexists(path) or not any(sign in path for sign in _MAGIC):
            yield from _local(path, seen)
        else:
            matches = sorted(glob.glob(path, recursive=True, include_hidden=True))
            for match in matches:
                yield from _local(match, seen)
            if not matches:
                yield Place(path, 0, "nothing has a name like that")


def _local(path: str, seen: set[tuple[int, int]]) -> Iterator[Place]:
    try:
        found = os.stat(path)
    except OSError as error:
        loop = error.errno == errno.ELOOP
        trouble = (
            "a loop of links" if loop else "a link to nothing" if os.path.islink(path) else "there is no such file"
        )
        yield Place(path, 0, "no permission to read it" if isinstance(error, PermissionError) else trouble)
        return
    if os.path.isdir(path):
        empty = True
        for place in _folder(path, seen, (_identity(found),)):
            empty = False
            yield place
        if empty and not os.listdir(path):
            yield Place(path, 0, "there is nothing in this folder")
    elif _once(found, seen):
        yield Place(path, found.st_size, stamp=stamp(found))


def _folder(path: str, seen: set[tuple[int, int]], above: tuple[tuple[int, int], ...]) -> Iterator[Place]:
    try:
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    except OSError as error:
        denied = isinstance(error, PermissionError)
        yield Place(path, 0, "no permission to read this folder" if denied else f"cannot be listed ({error.strerror})")
        return
    for entry in entries:
        try:
            found = entry.stat()
            is_folder = entry.is_dir()
        except OSError:
            yield from _local(entry.path, seen)
            continue
        if not is_folder:
            if _once(found, seen):
                yield Place(entry.path, found.st_size, stamp=stamp(found))
        elif _identity(found) in above:
            yield Place(entry.path, 0, "a loop of links")
        elif not entry.is_symlink() or _once(found, seen):
            yield from _folder(entry.path, seen, (*above, _identity(found)))


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _once(found: os.stat_result, seen: set[tuple[int, int]]) -> bool:
    """Whether this is the first time that a file is met: links to it are not scanned again."""
    if _identity(found) in seen:
        return False
    seen.add(_identity(found))
    return True


def _remote(url: str) -> Iterator[Place]:
    try:
        import fsspec

        system, inside = fsspec.core.url_to_fs(url)
        if any(sign in inside for sign in _MAGIC):
            found: dict[str, Any] = system.glob(inside, detail=True)
        elif system.isdir(inside):
            found = system.find(inside, detail=True)
        else:
            found = {inside: system.info(inside)}
    except FileNotFoundError:
        yield Place(url, 0, "there is no such file")
        return
    except Exception as error:  # a store's library raises what it likes; its text may hold a credential
        needs = f": pip install {error.name or 'its package'}" if isinstance(error, ImportError) else ""
        yield Place(url, 0, f"the store cannot be asked ({type(error).__name__}{needs})")
        return
    if not found:
        yield Place(url, 0, "there is nothing of that name")
    outer, chained, rest = url.partition("::")
    inside_archive = chained and "://" in outer  # zip://name::s3://bucket/a.zip, against simplecache::s3://bucket/name
    for name in sorted(found):
        if found[name].get("type", "file") == "file":
            full = str(system.unstrip_protocol(name))
            if "::" in full:
                yield Place(full, 0, "has a name with '::', which is no name in a URL")
                continue
            if chained:
                full = f"{full}::{rest}" if inside_archive else f"{outer}::{full}"
            yield Place(full, int(found[name].get("size") or 0), stamp=remote_stamp(found[name]))


def stamp(found: os.stat_result) -> str:
    """What changes when a file does: its size and the time of its last change."""
    return f"{found.st_size} {found.st_mtime_ns}"


def remote_stamp(info: dict[str, Any]) -> str:
    """The same of an entry of a store, by whatever its library tells."""
    keys = ("size", "ETag", "etag", "mtime", "LastModified", "last_modified", "generation", "md5", "CRC")
    return " ".join(str(info[key]) for key in keys if key in info)
