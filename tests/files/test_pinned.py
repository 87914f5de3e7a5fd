import hashlib
from pathlib import Path

import pytest

from configs.classifier import PinnedUrl
from ray_jobs.files.pinned import fetched
from tests.crawl.common_crawl_server import Answer, serving

DATA = b"damn\nblast\n" * 1000


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pinned(url: str, data: bytes = DATA) -> PinnedUrl:
    return PinnedUrl(url=url, sha256=hashlib.sha256(data).hexdigest())


def test_a_file_is_fetched_once_and_kept_by_its_checksum() -> None:
    with serving({"list": DATA}) as server:
        file = pinned(f"{server.url}/list")
        assert fetched(file).read_bytes() == fetched(file).read_bytes() == DATA
        assert len(server.asked_for("list", "GET")) == 1
    assert fetched(file).read_bytes() == DATA  # the server is gone


def test_what_is_not_as_pinned_is_not_kept(cache: Path) -> None:
    with serving({"list": b"other"}) as server:
        with pytest.raises(ValueError, match=f"has the sha256 {hashlib.sha256(b'other').hexdigest()}, and the recipe"):
            fetched(pinned(f"{server.url}/list"))
        server.play("list", Answer(404))
        with pytest.raises(ValueError, match="404"):
            fetched(pinned(f"{server.url}/list"))
    assert list((cache / "pinned").iterdir()) == []


def test_a_redirect_to_another_host_is_refused() -> None:
    with serving({"list": DATA}) as server, serving({"list": DATA}) as other:
        elsewhere = other.url.replace("127.0.0.1", "localhost")
        server.play("list", Answer(302, {"Location": f"{elsewhere}/list"}))
        with pytest.raises(ValueError, match="localhost"):
            fetched(pinned(f"{server.url}/list"))
