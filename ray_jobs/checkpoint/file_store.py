"""A store in a local folder, safe against crashes and against several writers on one machine or one POSIX share."""

import contextlib
import errno
import os
import secrets
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ray_jobs.checkpoint.store import Entry, Store, StoreError, check_path

# Half-written creations wait under this name; a listing never shows them.
TEMPORARY_PREFIX = ".new-"


class FileStore(Store):
    """Objects are files below `root`. `create` is write + fsync of a temporary file, then link(2): one writer wins."""

    def __init__(self, root: Path):
        self.root = Path(os.path.abspath(root.expanduser()))  # noqa: PTH100 (resolve() would follow links)
        self.url = self.root.as_uri()

    def __repr__(self) -> str:
        return f"FileStore({self.url!r})"

    def _file(self, path: str) -> Path:
        return self.root / check_path(path)

    def get(self, path: str) -> bytes | None:
        try:
            return self._file(path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def get_range(self, path: str, start: int, length: int) -> bytes:
        with self._file(path).open("rb") as file:
            file.seek(start)
            return file.read(length)

    def put(self, path: str, data: bytes | memoryview) -> None:
        target = self._file(path)
        with _explained(target), _opened_new(target) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _replace(target)

    def put_file(self, path: str, local: Path) -> None:
        target = self._file(path)
        with _explained(target), _opened_new(target) as file, local.open("rb") as source:
            shutil.copyfileobj(source, file, 1 << 20)
            file.flush()
            os.fsync(file.fileno())
        _replace(target)

    def create(self, path: str, data: bytes) -> bool:
        return self.create_many([(path, data)])[0]

    def create_many(self, records: Sequence[tuple[str, bytes]]) -> Sequence[bool]:
        won, folders = [], set()
        for path, data in records:
            target = self._file(path)
            temporary = target.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}")
            with _explained(target):
                _make_folder(target.parent)
                try:
                    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
                    try:
                        _write_all(descriptor, data)
                        os.fsync(descriptor)
                    finally:
                        os.close(descriptor)
                    try:
                        os.link(temporary, target)
                        won.append(True)
                    except FileExistsError:
                        won.append(target.read_bytes() == data)
                finally:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(temporary)  # noqa: PTH108 (no Path object in the fan-out's inner loop)
            folders.add(target.parent)
        # A record that stands must still stand after a power cut, also where another writer created it.
        for folder in folders:
            _sync_folder(folder)
        return won

    def size(self, path: str) -> int | None:
        try:
            return self._file(path).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def list(self, prefix: str) -> Iterator[Entry]:
        assert prefix == "" or prefix.endswith("/"), prefix
        yield from _walk(self.root / prefix, prefix)

    def folders(self, prefix: str) -> Sequence[str]:
        try:
            with os.scandir(self.root / prefix) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def delete(self, paths: Iterable[str]) -> None:
        for path in paths:
            file = self._file(path)
            with contextlib.suppress(FileNotFoundError):
                file.unlink()
            with contextlib.suppress(OSError):  # folders are removed when their last object goes
                for folder in file.parents:
                    if folder == self.root:
                        break
                    folder.rmdir()

    def url_of(self, path: str) -> str:
        return self._file(path).as_uri()

    def local_path(self, path: str) -> Path:
        return self._file(path)


def _walk(folder: Path | str, prefix: str) -> Iterator[Entry]:
    """Files below `folder` in the order of their paths, as an object store lists them ("a-b" before "a/b")."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name + "/" if entry.is_dir() else entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in found:
        if entry.is_dir():
            yield from _walk(entry.path, f"{prefix}{entry.name}/")
        elif not entry.name.startswith(TEMPORARY_PREFIX):
            try:
                state = entry.stat()
            except FileNotFoundError:  # deleted meanwhile
                continue
            yield Entry(prefix + entry.name, state.st_size, state.st_mtime)


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    folder.mkdir(parents=True, exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


@contextlib.contextmanager
def _opened_new(target: Path) -> Iterator:
    _make_folder(target.parent)
    temporary = _temporary_of(target)
    with temporary.open("wb") as file:
        yield file


def _temporary_of(target: Path) -> Path:
    return target.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{target.name}")


def _replace(target: Path) -> None:
    """Readers of an advisory record see the old bytes or the new ones, never half of them."""
    _temporary_of(target).replace(target)
    _sync_folder(target.parent)


@contextlib.contextmanager
def _explained(target: Path) -> Iterator[None]:
    """What a full or read-only disk means and what to do, in place of a bare errno."""
    try:
        yield
    except OSError as error:
        advice = {
            errno.ENOSPC: "the disk is full: free space (`headrace gc --apply` deletes what nothing needs)",
            errno.EDQUOT: "the disk quota is used up: free space (`headrace gc --apply`) or ask for more",
            errno.EROFS: "the disk is read-only: choose another store with --store",
            errno.EACCES: "permission denied: choose another store with --store, or mend its permissions",
            errno.ENAMETOOLONG: "the path is too long: choose a store with a shorter path",
        }.get(error.errno or 0)
        if advice is None:
            raise
        raise StoreError(error.errno, f"cannot write {target}: {advice}").with_traceback(sys.exc_info()[2]) from error
