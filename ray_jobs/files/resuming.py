"""A stream over a remote file that outlives lost connections."""

from collections.abc import Callable, Iterator


class Changed(ValueError):
    """A file is not the one that was pinned."""

    def __init__(self, url: str, how: str):
        super().__init__(
            f"{url} changed since it was pinned: {how}. Pin it again with --refresh; what is made from it gets new keys"
        )


class ResumingReader:
    """Reads from `start` to `size`, opening the body anew where it broke off. Not thread-safe.

    Args:
        body: the file's bytes from a position on, in chunks.
        lost: exceptions of `body` after which the rest is asked for again.
        attempts: so many losses in a row, without a byte between them, are an error.
        wait: called with the number of losses so far before the file is asked for again.

    `read(n)` returns fewer than n bytes at the end only: a file that ends early never looks like a shorter file.
    """

    def __init__(
        self,
        body: Callable[[int], Iterator[bytes]],
        size: int,
        start: int,
        lost: tuple[type[Exception], ...],
        attempts: int,
        wait: Callable[[int], None],
        name: str,
    ):
        self._open_body, self._size, self._lost = body, size, lost
        self._attempts, self._wait, self._name = attempts, wait, name
        self._received = self._position = start
        self._chunks: Iterator[bytes] | None = None
        self._buffer = b""
        self._losses = 0

    def read(self, size: int = -1) -> bytes:
        """`size` bytes, or all up to the end where it is negative.

        Raises:
            ConnectionError: the connection was lost too often.
        """
        wanted = self._size - self._position if size < 0 else min(size, self._size - self._position)
        parts = []
        while wanted > 0:
            if not self._buffer:
                self._buffer = self._next_chunk()
            part, self._buffer = self._buffer[:wanted], self._buffer[wanted:]
            parts.append(part)
            wanted -= len(part)
            self._position += len(part)
        return b"".join(parts)

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        raise OSError("a remote file is read from front to back")

    def close(self) -> None:
        if self._chunks is not None:
            self._chunks.close()  # type: ignore[attr-defined]
            self._chunks = None

    def _next_chunk(self) -> bytes:
        """The next bytes, at least one."""
        while True:
            if self._chunks is None:
                self._chunks = self._open_body(self._received)
            try:
                chunk = next(self._chunks, b"")
                complaint = f"it ended at byte {self._received} of {self._size}"
            except self._lost as error:
                chunk, complaint = b"", f"{type(error).__name__}: {error}"
            if chunk:
                self._losses = 0
                self._received += len(chunk)
                return chunk
            self.close()
            self._losses += 1
            if self._losses >= self._attempts:
                raise ConnectionError(
                    f"{self._name} broke off {self._losses} times at byte {self._received} ({complaint}): "
                    "look at the network, then run again; what is done is kept"
                )
            self._wait(self._losses - 1)
