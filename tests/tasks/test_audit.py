"""`headrace audit`: the audits of nodes that really ran, asked by SQL."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from configs.recipe import load_recipe
from flows.cli import app
from ray_jobs.checkpoint.store import open_store
from tasks.audit import audit_tables, query, views
from tasks.plan import Plan, make_plan
from tasks.trace import trace
from tests.crawl.archive_bytes import PROSE, http, members, page, record
from tests.tasks.graph import RULES_OFF, computed

NODES = ("snapshot", "filter", "dedup", "scrub", "tokenizer", "tokens")
ARCHIVES = ("one.warc.gz", "two.warc.gz")
CHANGES = ("tokenizer.vocab_size=300", "tokens.heldout_share=0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store's folder, whose name has what SQL must not take for its own. The crawl lies beside it."""
    folder = tmp_path_factory.mktemp("audit") / "it's; a folder"
    crawl = folder.parent / "crawl"
    folder.mkdir()
    crawl.mkdir()
    mail = record(http(page(f"{PROSE * 12} Write to miller@mill.example.org.")), "http://b.example/mail")
    short = record(http(page("Too short.")), "http://a.example/short")
    another = http(page(" ".join(reversed(PROSE.split() * 3))))
    original, copy = (record(another, f"http://a.example/{name}") for name in ("original", "copy"))
    (crawl / "one.warc.gz").write_bytes(members(original, short))
    (crawl / "two.warc.gz").write_bytes(members(copy, mail))
    return folder


@pytest.fixture(scope="module")
def plan(folder: Path) -> Plan:
    return computed(folder, [folder.parent / "crawl" / name for name in ARCHIVES], NODES, CHANGES)


def asked(plan: Plan, sql: str, node: str | None = None) -> list[tuple[Any, ...]]:
    pytest.importorskip("duckdb", reason="needs DuckDB: pip install 'headrace[duckdb]'")
    return query(plan, audit_tables(plan, node), sql).rows


def test_rules_are_counted_over_all_nodes(plan: Plan) -> None:
    judges = "WHERE node IN ('filter', 'dedup', 'scrub')"
    found = asked(plan, f"SELECT node, decision, rule, count(*) FROM audit {judges} GROUP BY ALL ORDER BY ALL")
    assert found == [
        ("dedup", "dropped", "exact", 1),
        ("dedup", "kept", None, 2),
        ("filter", "dropped", "min_words", 1),
        ("filter", "kept", None, 3),
        ("scrub", "kept", None, 2),
    ]


def test_documents_have_their_archive_offset_and_last_decision(plan: Plan) -> None:
    found = asked(plan, 'SELECT url, archive, "offset", node, decision, rule FROM documents ORDER BY id')
    assert [(url, node, decision, rule) for url, _, _, node, decision, rule in found] == [
        ("http://a.example/original", "scrub", "kept", None),
        ("http://a.example/short", "filter", "dropped", "min_words"),
        ("http://a.example/copy", "dedup", "dropped", "exact"),
        ("http://b.example/mail", "scrub", "kept", None),
    ]
    for url, archive, offset, node, decision, _ in found:  # as `headrace why` has it
        (document,) = trace(plan, url)
        assert (document.archive, document.offset) == (archive, offset)
        last = [step for step in document.steps if step.node != "tokens"][-1]
        assert (last.node, last.decision) == (node, decision)


def test_nodes_are_views_that_join(plan: Plan) -> None:
    sql = "SELECT f.url, s.email, t.length FROM filter f JOIN scrub s USING (id) JOIN tokens t USING (id) ORDER BY id"
    (original, mail) = asked(plan, sql)
    assert original[:2] == ("http://a.example/original", 0) and mail[:2] == ("http://b.example/mail", 1)
    assert original[2] > 10


def test_one_node_alone_can_be_asked(plan: Plan) -> None:
    assert asked(plan, "SELECT count(*), count(rule) FROM documents", "dedup") == [(3, 1)]
    assert asked(plan, "SELECT count(*) FROM tokens", "tokens") == [(2,)]


def test_views_name_just_the_published_files(plan: Plan) -> None:
    duckdb = pytest.importorskip("duckdb", reason="needs DuckDB: pip install 'headrace[duckdb]'")
    tables = audit_tables(plan)
    (Path(plan.store.local_path(tables[0].files[0].path)).parent / "of-a-lost-attempt.audit.parquet").write_bytes(b"no")
    statements = views(plan, tables, lambda checkpoint, file: checkpoint.local_path(file))
    with duckdb.connect() as connection:
        for statement in statements:
            connection.execute(statement)
        assert connection.execute("SELECT count(*) FROM filter").fetchall() == [(4,)]


def test_polars_reads_the_files_that_json_lists(plan: Plan, folder: Path) -> None:
    polars = pytest.importorskip("polars", reason="needs polars")
    listed = json.loads(told(folder, "--node", "filter", "--json").output)["tables"]
    assert [(table["node"], table["rows"]) for table in listed] == [("filter", 4)]
    rules = polars.scan_parquet(listed[0]["files"]).filter(polars.col("decision") == "dropped").collect()["rule"]
    assert rules.to_list() == ["min_words"]
    assert listed[0]["schema"]["rule"] == "string"


def told(folder: Path, *arguments: str, store: Path | None = None) -> Any:
    source = ", ".join(repr(str(folder.parent / "crawl" / name)) for name in ARCHIVES)
    changes = [f"snapshot={{archives: {{urls: [{source}]}}}}", *(f"filter.{off}" for off in RULES_OFF), *CHANGES]
    sets = [part for change in changes for part in ("--set", change)]
    return CliRunner().invoke(app, ["audit", "tiny", "--store", str(store or folder / "store"), *sets, *arguments])


def test_the_command_says_where_the_files_are_and_how_to_ask(plan: Plan, folder: Path) -> None:
    shown = told(folder).output
    for table in audit_tables(plan):
        assert f"{table.num_rows} rows in {len(table.files)} files" in shown
        assert str(plan.store.local_path(table.files[0].path)) in shown
    assert "headrace audit tiny --sql" in shown
    duckdb = pytest.importorskip("duckdb", reason="needs DuckDB: pip install 'headrace[duckdb]'")
    with duckdb.connect() as connection:
        connection.execute(told(folder, "--views").output)
        assert connection.execute("SELECT count(*) FROM documents").fetchall() == [(4,)]
    answer = told(folder, "--json", "--sql", "SELECT rule, value FROM filter WHERE rule IS NOT NULL")
    assert json.loads(answer.output) == [{"rule": "min_words", "value": 2.0}]
    assert "min_words" in told(folder, "--sql", "SELECT * FROM filter").output


def test_mistakes_are_answered_with_what_to_do(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"has no node 'nowhere': it has snapshot, "):
        audit_tables(plan, "nowhere")
    with pytest.raises(ValueError, match=r"pretrain of tiny has no audit"):
        audit_tables(plan, "pretrain")
    empty = make_plan(load_recipe("tiny", []), open_store(tmp_path / "empty"))
    with pytest.raises(ValueError, match=r"no node of tiny has an audit in .*: `headrace run tiny --to scrub` first"):
        audit_tables(empty)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "duckdb", None)
        with pytest.raises(ValueError, match=r"pip install 'headrace\[duckdb\]'"):
            query(plan, audit_tables(plan), "SELECT 1")
    pytest.importorskip("duckdb", reason="needs DuckDB: pip install 'headrace[duckdb]'")
    with pytest.raises(ValueError, match=r"the views are filter, dedup, .*scrub, tokens, archives, audit, documents"):
        asked(plan, "SELECT nothing FROM nowhere")


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_audits_of_any_store_are_asked_alike(plan: Plan, kind: str, request: pytest.FixtureRequest) -> None:
    """The checkpoints are copied into a store of each kind: what is asked is fetched, checked and cached."""
    pytest.importorskip("duckdb", reason="needs DuckDB: pip install 'headrace[duckdb]'")
    store = request.getfixturevalue(f"{kind}_store")
    for entry in plan.store.list(""):
        store.put(entry.path, plan.store.get(entry.path) or b"")
    copied = make_plan(plan.recipe, store)
    assert asked(copied, "SELECT count(*) FROM documents") == [(4,)]
