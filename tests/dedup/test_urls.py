import pyarrow as pa
import pytest

from ray_jobs.checkpoint.retraction import normalised_url
from ray_jobs.dedup.urls import url_hashes


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("HTTP://Example.ORG:80", "http://example.org/", True),
        ("https://example.org:443/a?b=C#d", "https://example.org/a?b=C", True),
        ("https://User@example.org/", "https://user@example.org/", False),
        ("https://example.org/A", "https://example.org/a", False),
        ("https://example.org:80/", "https://example.org/", False),
        ("http://example.org/a?b=1", "http://example.org/a?b=2", False),
        ("http://example.org/a", "https://example.org/a", False),
        ("urn:isbn:1#x", "urn:isbn:1", True),
    ],
)
def test_urls_are_the_same_where_normalisation_changes_no_meaning(one: str, other: str, equal: bool) -> None:
    assert (normalised_url(one) == normalised_url(other)) is equal


def test_a_document_without_a_url_has_no_hash() -> None:
    hashes = url_hashes(pa.chunked_array([["http://a/", "", None]]))
    assert hashes.any(axis=1).tolist() == [True, False, False]
