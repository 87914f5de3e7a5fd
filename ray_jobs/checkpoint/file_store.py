"""A store in a local folder, safe against crashes and against several writers on one machine or one POSIX share."""

import contextlib
import errno
import functools
import os
import secrets
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from ray_jobs.checkpoint.store import Entry, Store, StoreError, check_path

T = TypeVar("T")
NewFile = tuple[str, Callable[[int], None]]
"""A file's name, and what writes its content into a descriptor."""

# Half-written objects wait under this name; a listing never shows them.
TEMPORARY_PREFIX = ".new-"
COPY_BYTES = 1 << 20
SYNC_THREADS = 8
FILES_AT_ONCE = 64  # open at a time; the usual limit is 1,024
# How often a folder may be swept away under us (by the deletion of its last object) before we call it a defect.
MAX_FOLDER_TRIES = 1000


class FileStore(Store):
    """Objects are files below `root`. `create` is write + fsync of a temporary file, then link(2): one writer wins."""

    def __init__(self, root: Path):
        self.root = Path(os.path.abspath(root.expanduser()))  # noqa: PTH100 (resolve() would follow links)
        self.url = self.root.as_uri()
        self._base = f"{self.root}{os.sep}" if self.root != self.root.parent else str(self.root)

    def __repr__(self) -> str:
        return f"FileStore({self.url!r})"

    def _file(self, path: str) -> str:
        # Strings, not Path objects: this runs several times for every shard of a fan-out.
        return self._base + check_path(path)

    def get(self, path: str) -> bytes | None:
        file = self._file(path)
        with _explained("read", file):
            try:
                with open(file, "rb", buffering=0) as opened:  # noqa: PTH123 (see _file)
                    return opened.readall()
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return None

    def get_range(self, path: str, start: int, length: int) -> bytes:
        file = self._file(path)
        with _explained("read", file), open(file, "rb") as opened:  # noqa: PTH123 (see _file)
            opened.seek(start)
            return opened.read(length)

    def put(self, path: str, data: bytes | memoryview) -> None:
        self.put_many([(path, data)])

    def put_many(self, objects: Sequence[tuple[str, bytes | memoryview]]) -> None:
        self._put([(self._file(path), functools.partial(_write_all, data)) for path, data in objects])

    def put_file(self, path: str, local: Path) -> None:
        def copy(descriptor: int) -> None:
            with local.open("rb") as source:
                while chunk := source.read(COPY_BYTES):
                    _write_all(chunk, descriptor)

        self._put([(self._file(path), copy)])

    def _put(self, files: Sequence[NewFile]) -> None:
        for some in _chunks(files):
            with _explained("write", some[0][0]), _written(some) as temporaries:
                for temporary, (target, _) in zip(temporaries, some, strict=True):
                    # Readers of an advisory record see the old bytes or the new ones, never half of them.
                    os.replace(temporary, target)  # noqa: PTH105
                temporaries.clear()
                _sync_folders(target for target, _ in some)

    def create(self, path: str, data: bytes) -> bool:
        return self.create_many([(path, data)])[0]

    def create_many(self, records: Sequence[tuple[str, bytes]]) -> Sequence[bool]:
        won: list[bool] = []
        for some in _chunks([(self._file(path), data) for path, data in records]):
            new = [(target, functools.partial(_write_all, data)) for target, data in some]
            with _explained("write", some[0][0]), _written(new) as temporaries:
                won += [_link(temporary, *record) for temporary, record in zip(temporaries, some, strict=True)]
                # A record that stands must still stand after a power cut, also where another writer created it.
                _sync_folders(target for target, _ in some)
        return won

    def size(self, path: str) -> int | None:
        try:
            state = os.stat(self._file(path))  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError):
            return None
        return state.st_size if stat.S_ISREG(state.st_mode) else None

    def list(self, prefix: str) -> Iterator[Entry]:
        assert prefix == "" or prefix.endswith("/"), prefix
        yield from _walk(self._base + prefix, prefix, temporaries=False)

    def folders(self, prefix: str) -> Sequence[str]:
        try:
            with os.scandir(self._base + prefix) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def delete(self, paths: Iterable[str]) -> None:
        emptied = set()
        for path in paths:
            file = self._file(path)
            with _explained("delete", file), contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(file)  # noqa: PTH108
            emptied.add(os.path.dirname(file))  # noqa: PTH120
        for folder in emptied:  # folders go with their last object
            with contextlib.suppress(OSError):
                while len(folder) >= len(self._base):
                    os.rmdir(folder)  # noqa: PTH106
                    folder = os.path.dirname(folder)  # noqa: PTH120

    def url_of(self, path: str) -> str:
        return Path(self._file(path)).as_uri()

    def local_path(self, path: str) -> Path:
        return Path(self._file(path))

    def leftovers(self) -> Iterator[Entry]:
        yield from _walk(self._base, "", temporaries=True)

    def discard(self, leftover: Entry) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._base + leftover.path)  # noqa: PTH108


def _walk(folder: str, prefix: str, temporaries: bool) -> Iterator[Entry]:
    """Files below `folder` in the order of their paths, as an object store lists them ("a-b" before "a/b").

    Half-written ones only, or all but those.
    """
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name + "/" if entry.is_dir() else entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in found:
        if entry.is_dir():
            yield from _walk(entry.path, f"{prefix}{entry.name}/", temporaries)
        elif entry.name.startswith(TEMPORARY_PREFIX) == temporaries:
            try:
                state = entry.stat()
            except FileNotFoundError:  # deleted meanwhile
                continue
            yield Entry(prefix + entry.name, state.st_size, state.st_mtime)


def _link(temporary: str, target: str, data: bytes) -> bool:
    """Whether the record at `target` is ours: link(2) succeeds for one writer only."""
    while True:
        try:
            os.link(temporary, target)
            return True
        except FileExistsError:
            pass
        # Deleted between the two calls, it is nobody's.
        with contextlib.suppress(FileNotFoundError), open(target, "rb") as standing:  # noqa: PTH123 (see _file)
            return standing.read() == data


@contextlib.contextmanager
def _written(files: Sequence[NewFile]) -> Iterator[list[str]]:
    """Temporary files beside their targets, synced to the disk; gone at the end, unless they are taken off the list."""
    temporaries: list[str] = []
    descriptors: list[int] = []
    try:
        try:
            for target, write in files:
                temporary, descriptor = _open_temporary(os.path.dirname(target))  # noqa: PTH120
                temporaries.append(temporary)
                descriptors.append(descriptor)
                write(descriptor)
            _sync_files(descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        yield temporaries
    finally:
        for temporary in temporaries:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)  # noqa: PTH108


def _sync_files(descriptors: Sequence[int]) -> None:
    if len(descriptors) == 1:
        os.fsync(descriptors[0])
        return
    # At the same time: the kernel then shares one journal commit and one flush of the disk between them (5 × faster).
    for _ in _sync_threads(os.getpid()).map(os.fsync, descriptors):
        pass


@functools.lru_cache(maxsize=1)
def _sync_threads(pid: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(SYNC_THREADS, thread_name_prefix="fsync")  # by pid: threads do not survive a fork


def _sync_folders(targets: Iterable[str]) -> None:
    for folder in {os.path.dirname(target) for target in targets}:  # noqa: PTH120
        _sync_folder(folder)


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for first in range(0, len(items), FILES_AT_ONCE):
        yield items[first : first + FILES_AT_ONCE]


def _open_temporary(folder: str) -> tuple[str, int]:
    temporary = f"{folder}{os.sep}{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
    for _ in range(MAX_FOLDER_TRIES):
        try:
            return temporary, os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileNotFoundError:  # not there yet, or just removed with its last object
            _make_folder(folder)
    raise StoreError(f"{folder} vanishes as soon as it is made: another program deletes the store's folders; stop it")


def _make_folder(folder: str) -> None:
    """One more folder of the path, from the top: others may make and remove the same ones at this moment."""
    parent = os.path.dirname(folder)  # noqa: PTH120
    try:
        os.mkdir(folder)  # noqa: PTH102
        _sync_folder(parent)
    except FileExistsError:
        if os.path.isfile(folder):  # noqa: PTH113
            raise NotADirectoryError(errno.ENOTDIR, "is a file, not a folder", folder) from None
    except FileNotFoundError:
        _make_folder(parent)


def _sync_folder(folder: str) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:  # its objects were deleted meanwhile, and it with them
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(data: bytes | memoryview, descriptor: int) -> None:
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(descriptor, view) :]


class _explained:
    """What a full or read-only disk means and what to do, in place of a bare errno.

    A class, as a generator's context manager costs five times as much, several times a shard.
    """

    def __init__(self, what: str, target: str):
        self._what, self._target = what, target

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> None:
        if not isinstance(error, OSError) or isinstance(error, StoreError | FileNotFoundError):
            return
        advice = {
            errno.ENOSPC: "the disk is full: free space (`headrace gc --apply` deletes what nothing needs)",
            errno.EDQUOT: "the disk quota is used up: free space (`headrace gc --apply`) or ask for more",
            errno.EROFS: "the disk is read-only: choose another store with --store",
            errno.EACCES: "permission denied: choose another store with --store, or mend its permissions",
            errno.EPERM: "the file system refuses it (hard links are needed): choose another store with --store",
            errno.ENAMETOOLONG: "the path is too long: choose a store with a shorter path",
            errno.ENOTDIR: "a part of the path is a file: choose another store with --store",
            errno.EMFILE: "too many open files: raise `ulimit -n`",
        }.get(error.errno or 0, f"{error}: look at the disk (dmesg, mount), or choose another store with --store")
        raise StoreError(error.errno, f"cannot {self._what} {self._target}: {advice}").with_traceback(
            sys.exc_info()[2]
        ) from error
