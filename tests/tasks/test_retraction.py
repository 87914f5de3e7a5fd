"""`headrace retract`: which documents and which models a retraction touches."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from ray_jobs.checkpoint.retraction import Retracted, Retraction, read_retraction, standing_retractions
from ray_jobs.checkpoint.store import Store, open_store
from tasks.retraction import touched
from tests.report import synthetic

# The third and the second page of the synthetic crawl: the second duplicates the first.
KEPT, DROPPED = "https://site2.example/2", "https://site1.example/1"


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("https://a.example/page?x=1", True),
        ("HTTPS://A.example:443/page?x=1#top", True),
        ("https://a.example/page", False),
        ("https://bad.example/", True),
        ("http://user@www.bad.example:8080/x", True),
        ("https://notbad.example/", False),
        ("", False),
        (None, False),
    ],
)
def test_a_retraction_names_urls_and_domains_and_crawls(url: str | None, named: bool) -> None:
    retracted = Retracted.by(
        [Retraction(urls=("https://a.example/page?x=1",)), Retraction(domains=("bad.example",), crawls=("OLD",))]
    )
    assert retracted.names("NEW/00000/000000000000", url) is named
    assert retracted.names("OLD/00000/000000000000", url)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def invoke(store: Store, *arguments: str) -> str:
    result = CliRunner().invoke(app, ["retract", "--store", store.url, *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_models_are_named_that_were_trained_on_a_kept_document(store: Store, tmp_path: Path) -> None:
    graph = synthetic.whole_graph(store)
    found = touched(store, Retracted.by([Retraction(urls=(KEPT,))]))
    assert found.num_documents == 1
    assert {(model.node, model.key, model.num_documents) for model in found.models} == {
        ("pretrain", graph["pretrain"].key, 1),
        ("tokenizer", graph["tokenizer"].key, 1),
    }
    found = touched(store, Retracted.by([Retraction(urls=(DROPPED,))]))
    assert (found.num_documents, found.models) == (1, ())


def test_the_command_says_what_it_touches_and_a_dry_run_changes_nothing(store: Store, tmp_path: Path) -> None:
    synthetic.whole_graph(store)
    file = tmp_path / "takedown.txt"
    file.write_text(f"# ticket 4711\n{KEPT}\n\n")
    shown = invoke(store, "--urls", str(file), "--dry-run")
    assert "1 documents" in shown and "pretrain" in shown and standing_retractions(store) == ()
    described = json.loads(invoke(store, "--urls", str(file), "--json"))
    assert standing_retractions(store) == (described["retraction"],)
    assert read_retraction(store, described["retraction"]).urls == (KEPT,)
    assert described["models"][0]["num_documents"] == 1


def test_nothing_to_retract_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="say what to retract: --urls FILE, --domains FILE or --crawl NAME"):
        CliRunner().invoke(app, ["retract", "--store", store.url], catch_exceptions=False)


@pytest.mark.parametrize("line", ["https://example.org/", "*.example.org", "example.org:443", "bücher.example"])
def test_a_line_that_is_no_domain_is_refused(store: Store, tmp_path: Path, line: str) -> None:
    (tmp_path / "domains.txt").write_text(line)
    arguments = ["retract", "--store", store.url, "--domains", str(tmp_path / "domains.txt")]
    with pytest.raises(ValueError, match="is no domain: write hosts alone"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
