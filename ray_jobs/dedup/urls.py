"""When two URLs are the same: after the normalisation that changes no meaning (RFC 3986, sections 3.5 and 6.2.2.1).

Scheme and host in lower case, no port where it is the scheme's own, no fragment, "/" for an empty path. Queries stay:
two pages of one site may differ in nothing else.
"""

import re

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

_PARTS = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://([^/?#]*)([^?#]*)([^#]*)")
_OWN_PORT = {"http": ":80", "https": ":443"}


def normalised_url(url: str) -> str:
    match = _PARTS.match(url)
    if match is None:
        return url.partition("#")[0]
    scheme, authority, path, query = match.groups()
    scheme = scheme.lower()
    user, at, host = authority.rpartition("@")
    host = host.lower().removesuffix(_OWN_PORT.get(scheme, "\0"))
    return f"{scheme}://{user}{at}{host}{path or '/'}{query}"


def url_hashes(urls: pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    """xxh3-128 of each normalised URL: uint64 [n, 2]; zeros where a document has none."""
    digest, nothing = xxhash.xxh3_128_digest, bytes(16)
    hashes = [digest(normalised_url(url).encode()) if url else nothing for url in urls.to_pylist()]
    return np.frombuffer(b"".join(hashes), dtype=np.uint64).reshape(-1, 2)
