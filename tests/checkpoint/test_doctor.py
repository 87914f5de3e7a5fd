"""The doctor tells stores apart that keep the protocol's one promise and that do not, and leaves no trace."""

import pytest

from ray_jobs.checkpoint import doctor
from ray_jobs.checkpoint.file_store import FileStore
from ray_jobs.checkpoint.store import Store


class ForgetfulStore(FileStore):
    """Ignores the condition of `create`, as servers do that do not know If-None-Match."""

    def create(self, path: str, data: bytes) -> bool:
        self.put(path, data)
        return True


class StaleStore(FileStore):
    """Reads through a cache that never forgets."""

    cache: dict[str, bytes | None]

    def get(self, path: str) -> bytes | None:
        self.cache = getattr(self, "cache", {})
        if path not in self.cache:
            self.cache[path] = super().get(path)
        return self.cache[path]


def test_a_sound_store_is_found_sound_and_left_clean(store: Store) -> None:
    findings = doctor.examine(store)
    assert [finding.detail for finding in findings if not finding.holds] == []
    assert {"create-only", "compare-and-swap", "read-after-write", "list-after-write", "latency"} <= {
        finding.name for finding in findings
    }
    assert [entry.path for entry in store.list("")] == [doctor.VERDICT]
    doctor.require_create_only(store)


def test_a_store_that_lets_two_win_is_refused_for_shared_use(file_store: FileStore) -> None:
    forgetful = ForgetfulStore(file_store.root)
    failed = {finding.name for finding in doctor.examine(forgetful) if not finding.holds}
    assert {"create-only", "create-only between processes", "compare-and-swap"} == failed
    with pytest.raises(ValueError, match=r"cannot be shared: 32 threads .* won: .*Use one that honours it"):
        doctor.require_create_only(forgetful)


def test_a_store_behind_a_cache_is_found_out(file_store: FileStore) -> None:
    failed = [finding for finding in doctor.examine(StaleStore(file_store.root)) if not finding.holds]
    assert "read-after-write" in {finding.name for finding in failed}


def test_the_verdict_is_remembered(file_store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    doctor.require_create_only(file_store)
    monkeypatch.setattr(doctor, "_create_only", lambda *_: pytest.fail("tried again"))
    doctor.require_create_only(file_store)
    assert [entry.path for entry in file_store.list("")] == [doctor.VERDICT]
