"""The store: every protocol read and write goes through one of these, without listing caches.

A path is relative to the store's root, with "/" between parts. Two stores exist: `FileStore` (file://) and `S3Store`
(s3://, any endpoint). Both give the one primitive the protocol rests on: `create`, which succeeds for one writer only.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

A = TypeVar("A")
B = TypeVar("B")


class StoreError(OSError):
    """The store cannot be used: unreachable, refused, or out of space."""


@dataclass(frozen=True)
class Entry:
    path: str
    size: int
    """Bytes."""
    modified: float
    """Seconds since 1970 by the store's clock; only garbage collection reads it."""


class Store(ABC):
    """Bytes under paths. Instances are picklable and hold no open connection of their own."""

    url: str

    # How many requests are kept under way: one disk gains nothing, a network store almost everything.
    concurrency = 1

    @abstractmethod
    def get(self, path: str) -> bytes | None:
        """The whole object, or None where there is none."""

    @abstractmethod
    def get_range(self, path: str, start: int, length: int) -> bytes:
        """`length` bytes from `start`; fewer at the object's end, none past it. FileNotFoundError if absent."""

    @abstractmethod
    def put(self, path: str, data: bytes | memoryview) -> None:
        """Writes an object under a name that no other attempt uses (or that is advisory), durably."""

    @abstractmethod
    def put_file(self, path: str, local: Path) -> None:
        """`put` of a local file's content, in parts where it is large."""

    @abstractmethod
    def create(self, path: str, data: bytes) -> bool:
        """Creates the object unless one stands there. True if what stands is `data`, durably.

        `data` must hold something that no other writer writes (an attempt id): a lost answer is resolved by reading
        back, and equal bytes mean that this call won.
        """

    @abstractmethod
    def size(self, path: str) -> int | None:
        """Bytes of the object, or None where there is none."""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[Entry]:
        """Every object below the folder `prefix` (ending in "/", or "" for all), in the order of paths."""

    @abstractmethod
    def folders(self, prefix: str) -> Sequence[str]:
        """Names of the folders directly below the folder `prefix`, sorted.

        A server may go on showing a folder whose last object was deleted (SeaweedFS does): ask for objects to be sure.
        """

    @abstractmethod
    def delete(self, paths: Iterable[str]) -> None:
        """Deletes objects; those already gone are no error."""

    @abstractmethod
    def url_of(self, path: str) -> str:
        """The URL by which fsspec, pyarrow or DCP reach the object."""

    def local_path(self, path: str) -> Path | None:
        """The object's own local file, where the store has such."""
        return None

    @abstractmethod
    def leftovers(self) -> Iterator[Entry]:
        """What interrupted writes left behind and no listing shows: temporary files, unfinished uploads."""

    @abstractmethod
    def discard(self, leftover: Entry) -> None:
        """Deletes one of `leftovers`; it is no error if it is gone already."""

    def put_many(self, objects: Sequence[tuple[str, bytes | memoryview]]) -> None:
        """`put` of several objects at once."""
        self.concurrently(lambda one: self.put(*one), objects)

    def create_many(self, records: Sequence[tuple[str, bytes]]) -> Sequence[bool]:
        """`create` for several records at once; a store may share the cost between them."""
        return self.concurrently(lambda record: self.create(*record), records)

    def get_many(self, paths: Sequence[str]) -> Sequence[bytes | None]:
        """`get` of many objects, in the order of `paths`."""
        return self.concurrently(self.get, paths)

    def concurrently(self, function: Callable[[A], B], items: Sequence[A]) -> Sequence[B]:
        """`function` of each item, as many at a time as the store bears; results in the order of items."""
        if self.concurrency == 1 or len(items) < 2:
            return [function(item) for item in items]
        with ThreadPoolExecutor(min(self.concurrency, len(items))) as pool:
            return list(pool.map(function, items))


def check_path(path: str) -> str:
    """The path itself, if it stays inside the store."""
    if path.startswith("/") or "\0" in path or not {"", ".", ".."}.isdisjoint(path.split("/")):
        raise ValueError(f"{path!r} is not a path inside a store; use names separated by single slashes")
    return path


def open_store(url: str | Path) -> Store:
    """The store at `url`: s3://bucket/prefix, file:///folder, or a folder's path.

    Raises:
        ValueError: the scheme is not one of these.
    """
    text = str(url)
    parts = urlsplit(text)
    if parts.scheme == "s3":
        from ray_jobs.checkpoint.s3_store import S3Store

        if not parts.netloc:
            raise ValueError(f"the store {text!r} names no bucket; write s3://bucket/prefix")
        return S3Store(parts.netloc, parts.path.strip("/"))
    if parts.scheme in {"", "file"}:
        from ray_jobs.checkpoint.file_store import FileStore

        if parts.netloc not in {"", "localhost"}:
            raise ValueError(f"the store {text!r} names a host; write file:///absolute/folder")
        return FileStore(Path(unquote(parts.path) if parts.scheme else text))
    raise ValueError(f"a store is file:///folder or s3://bucket/prefix, not {text!r}")
