"""Keys: what a node's result is called, before it is computed.

key = sha256 of the canonical JSON of {node, version, spec, inputs: {slot: upstream key}, generation}. Two machines that
would compute the same thing get the same key; whatever changes the result changes the key.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from configs.base import Spec

KEY_DIGITS_IN_PATHS = 16


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces, in one way only.

    Raises:
        ValueError: the value holds something whose JSON would not be exact (NaN, a set, an object, …).
    """
    _check(value, "the value")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _check(value: Any, where: str) -> None:
    if value is None or isinstance(value, bool) or type(value) is int:
        return
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{where} is {value!r}, which is not valid Unicode: write it anew") from None
        return
    if type(value) is float:
        if math.isfinite(value):
            return
        raise ValueError(f"{where} is {value}, which has no exact JSON: use a finite number, or None for 'no limit'")
    if isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check(item, f"{where}[{index}]")
        return
    if isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str):
                raise ValueError(f"{where} has the key {name!r}: keys must be strings")
            _check(name, f"the key {name!r} of {where}")
            _check(item, f"{where}.{name}")
        return
    raise ValueError(
        f"{where} is a {type(value).__name__}, which cannot be part of a key: "
        "use strings, numbers, booleans, None, lists and dicts"
    )


def key_payload(node: str, version: int, spec: Spec, inputs: Mapping[str, str], generation: int = 1) -> dict[str, Any]:
    """What is hashed, as it also stands in the manifest. `inputs` maps slots to upstream keys."""
    return {
        "node": node,
        "version": version,
        "spec": json.loads(canonical_json(spec.model_dump(mode="python"))),
        "inputs": dict(sorted(inputs.items())),
        "generation": generation,
    }


def key_of(payload: Mapping[str, Any]) -> str:
    """64 hex digits."""
    return hashlib.sha256(canonical_json(payload).encode()).hexdigest()


def content_digest(key: str, shards: Iterable[tuple[str, int, list[tuple[str, str, int]], Mapping[str, int]]]) -> str:
    """sha256 over the key and the ordered shards (stage, shard, [(name, sha256, rows)], counters).

    Attempts, times and code revisions are left out, so determinism and crash tests compare this.
    """
    lines = [key]
    lines += [
        canonical_json([stage, shard, [list(file) for file in files], dict(counters)])
        for stage, shard, files, counters in shards
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
