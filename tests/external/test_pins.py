"""Outside data is pinned once, and kept until it is looked at anew."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest

from configs.recipe import load_recipe
from ray_jobs.checkpoint.store import Store, open_store
from ray_jobs.files import streams
from tasks.estimate import estimate
from tasks.plan import Plan, make_plan
from tests.crawl.common_crawl_server import serving
from tests.dedup.corpus import rows
from tests.external.nodes import reference, written
from tests.s3_server import S3Server


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def plan_of(store: Store, url: str, **options: bool) -> Plan:
    overrides = [
        f"eval-sets={{sets: [{{name: q, urls: ['{url}'], fields: [q]}}]}}",
        f"reference={{files: {{urls: ['{url}'], text_field: q}}}}",
    ]
    return make_plan(load_recipe("tiny", overrides), store, **options)


def keys(plan: Plan) -> dict[str, str]:
    return {name: node.key for name, node in plan.nodes.items()}


def test_a_pin_is_kept_until_it_is_refreshed(tmp_path: Path, store: Store) -> None:
    data = Path(written(tmp_path / "a.jsonl", [{"q": "one"}])).read_bytes()
    with serving({"a.jsonl": data}) as server:
        url = f"{server.url}/a.jsonl"
        before = keys(plan_of(store, url))
        num_requests = len(server.requests)
        server.files["a.jsonl"] = data * 2
        assert keys(plan_of(store, url)) == before
        assert len(server.requests) == num_requests
        after = keys(plan_of(store, url, refresh=True))
    changed = {name for name in before if before[name] != after[name]}
    unchanged = {"snapshot", "filter", "dedup", "repeats"}
    assert changed == set(before) - unchanged
    assert keys(plan_of(store, url)) == after


def test_the_embedded_sources_are_estimated_and_need_no_pin(store: Store) -> None:
    plan = make_plan(load_recipe("demo"), store)
    assert list(store.list("refs/")) == []
    figures = estimate(plan)
    assert all(figures[name].output_bytes > 1e5 for name in ("reference", "eval-sets"))


def test_a_plan_without_a_network_has_no_keys_where_something_is_not_pinned(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(source: object) -> None:
        raise ConnectionError("no network here")

    monkeypatch.setattr("ray_jobs.external.pins.pin_eval_sets", unreachable)
    monkeypatch.setattr("ray_jobs.external.pins.pin_reference", unreachable)
    plan = plan_of(store, "https://data.example/a.jsonl", offline=True)
    assert plan.nodes["reference"].state == plan.nodes["eval-sets"].state == plan.nodes["scrub"].state == "UNPINNED"
    assert plan.nodes["dedup"].state == "RUN"
    assert set(estimate(plan)) == set(plan.nodes)


def test_a_plan_where_packages_are_missing_names_them_and_has_no_keys_for_what_is_made_of_them(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = importlib.metadata.version

    def without_torch(package: str) -> str:
        if package in ("torch", "transformers"):
            raise importlib.metadata.PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr(importlib.metadata, "version", without_torch)
    plan = make_plan(load_recipe("demo"), store, offline=True)
    assert plan.nodes["reference"].state == plan.nodes["quality"].state == "UNPINNED"
    assert "torch, transformers, not installed here: pip install torch transformers" in plan.nodes["reference"].why[0]
    assert plan.nodes["eval-sets"].state == plan.nodes["dedup"].state == "RUN"
    assert set(estimate(plan)) == set(plan.nodes)
    with pytest.raises(ValueError, match="pip install torch transformers"):
        make_plan(load_recipe("demo"), store)


def test_planning_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, tempfile\nfrom configs.recipe import load_recipe\n"
        "from ray_jobs.checkpoint.store import open_store\n"
        "from tasks.plan import make_plan\nmake_plan(load_recipe('demo'), open_store(tempfile.mkdtemp()))\n"
        "print([name for name in ('torch', 'transformers', 'ray', 'spacy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_pinned_file_is_estimated_by_its_size(tmp_path: Path, store: Store) -> None:
    figures = estimate(plan_of(store, written(tmp_path / "a.jsonl", [{"q": "x" * 10_000_000}])))
    assert figures["reference"].output_bytes == pytest.approx(1e7, rel=0.01)
    assert figures["eval-sets"].output_bytes > 1e6


@pytest.fixture
def bucket(s3_server: S3Server) -> Any:
    streams.s3_client.cache_clear()
    yield boto3.client("s3")
    streams.s3_client.cache_clear()


def test_files_on_s3_give_what_they_give_on_disk(
    bucket: Any, s3_server: S3Server, tmp_path: Path, store: Store
) -> None:
    for name in ("a.parquet", "b.jsonl.zst", "c.bin"):
        path = written(tmp_path / name, [{"text": f"{name} {number}"} for number in range(1500)])
        bucket.put_object(Bucket=s3_server.bucket, Key=f"texts/{name}", Body=Path(path).read_bytes())
    urls = [f"s3://{s3_server.bucket}/texts/*.parquet", f"s3://{s3_server.bucket}/texts/*.zst"]
    found = [row["text"] for row in rows(reference(store, urls=urls), "documents.parquet")]
    assert found == [f"{name} {number}" for name in ("a.parquet", "b.jsonl.zst") for number in range(1500)]
