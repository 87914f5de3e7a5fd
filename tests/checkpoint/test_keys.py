"""Keys: pinned values, what changes them and what does not, and what cannot be part of one."""

from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from configs.base import Resources, Spec
from ray_jobs.checkpoint.keys import canonical_json, content_digest, key_of, key_payload
from ray_jobs.checkpoint.layout import NodePath


class Nested(Spec):
    flag: bool = True
    limit: float | None = None


class ExampleSpec(Spec):
    node: ClassVar[str] = "example"
    version: ClassVar[int] = 3

    jaccard: float = 0.8
    languages: tuple[str, ...] = ("de", "en")
    title: str = "Grüße, 世界"
    nested: Nested = Nested()
    names: dict[str, int] = Field(default={"b": 2, "a": 1})


# Golden: these may change only together with every checkpoint of every user, so never silently.
PAYLOAD_JSON = (
    '{"generation":1,"inputs":{"documents":"' + "ab" * 32 + '"},"node":"example",'
    '"spec":{"jaccard":0.8,"languages":["de","en"],"names":{"a":1,"b":2},"nested":{"flag":true,"limit":null},'
    '"title":"Grüße, 世界"},"version":3}'
)
KEY = "87fcbeb87f6c1109eabac77c000cfec4fce48662dbcce2e75c26d6ae7eded4aa"


def payload(spec: ExampleSpec | None = None, **changes: Any) -> dict[str, Any]:
    arguments = {"node": "example", "version": 3, "inputs": {"documents": "ab" * 32}, **changes}
    return key_payload(spec=spec or ExampleSpec(), **arguments)


def test_golden_key() -> None:
    assert canonical_json(payload()) == PAYLOAD_JSON
    assert key_of(payload()) == KEY
    assert NodePath("example", KEY).root == f"nodes/example/{KEY[:16]}"


def test_golden_content_digest() -> None:
    shards = [("documents", 0, [("a.parquet", "00" * 32, 7)], {"kept": 7}), ("documents", 1, [], {})]
    assert content_digest(KEY, shards) == "67f2c1e69bad169508c0e915dee12d5f7081ceebb8e5c0bc702e938703a8aaf1"
    assert content_digest(KEY, shards[::-1]) != content_digest(KEY, shards)


@pytest.mark.parametrize(
    "changed",
    [
        payload(ExampleSpec(jaccard=0.85)),
        payload(ExampleSpec(languages=("en", "de"))),
        payload(ExampleSpec(nested=Nested(flag=False))),
        payload(ExampleSpec(title="Grüsse, 世界")),
        payload(version=4),
        payload(generation=2),
        payload(inputs={"documents": "ac" * 32}),
        payload(inputs={"texts": "ab" * 32}),
        payload(node="other"),
    ],
)
def test_whatever_changes_the_result_changes_the_key(changed: dict[str, Any]) -> None:
    assert key_of(changed) != KEY


def test_equal_specs_have_equal_keys_however_they_were_written() -> None:
    again = ExampleSpec.model_validate_json('{"names": {"a": 1, "b": 2}, "jaccard": 8e-1, "languages": ["de", "en"]}')
    assert key_of(payload(again)) == KEY
    assert key_of(payload(ExampleSpec.model_validate(ExampleSpec().model_dump(mode="json")))) == KEY


def test_resources_are_no_part_of_a_key() -> None:
    """Nothing of how a node runs is among what it computes."""
    assert not set(Resources.model_fields) & set(payload())
    assert not set(Resources.model_fields) & set(payload()["spec"])


class Colour(Enum):
    RED = 1


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"a": {"b": [1.0, float("nan")]}}, "the value.a.b[1] is nan"),
        ({"a": float("inf")}, "the value.a is inf"),
        ({"a": {1: 2}}, "the value.a has the key 1"),
        ([{"s": {1, 2}}], "the value[0].s is a set"),
        ({"f": len}, "the value.f is a builtin_function_or_method"),
        ({"p": Path("/x")}, "the value.p is a PosixPath"),
        ({"c": Colour.RED}, "the value.c is a Colour"),
        ({"b": b"x"}, "the value.b is a bytes"),
        ({"n": np.float64(1.0)}, "the value.n is a float64"),
        ({"n": np.int64(1)}, "the value.n is a int64"),
        ({"s": "\ud800"}, "the value.s is '\\ud800'"),
        ({"\ud800": 1}, "the key '\\ud800' of the value"),
    ],
)
def test_what_has_no_exact_json_is_refused_and_named(value: Any, where: str) -> None:
    with pytest.raises(ValueError) as raised:
        canonical_json(value)
    assert str(raised.value).startswith(where)


exact = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(exact)
def test_canonical_json_is_exact_and_unique(value: Any) -> None:
    import json

    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text
    if isinstance(value, dict):
        assert canonical_json(dict(reversed(value.items()))) == text
