"""The whole graph of the recipe `tiny`, through Prefect and Ray as a person runs it."""

import json
import os
import signal
import time
import urllib.request
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ray_jobs.checkpoint.checkpoint import read_checked
from ray_jobs.checkpoint.store import open_store
from tests.end_to_end.harness import Headrace, is_driver, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture(scope="module")
def ran(home: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Headrace, dict[str, Any], float]:
    headrace = Headrace(home, tmp_path_factory.mktemp("tiny").as_uri(), {})
    headrace.json("up")
    began = time.monotonic()
    run = headrace.json("run", "tiny")
    return headrace, run, time.monotonic() - began


def prefect(headrace: Headrace, path: str, body: dict[str, Any] | None = None) -> Any:
    url = headrace.json("up")["prefect"]
    request = urllib.request.Request(
        f"{url}/api{path}", json.dumps(body or {}).encode(), {"content-type": "application/json"}
    )
    return json.load(urllib.request.urlopen(request, timeout=20))


def test_every_node_is_done_and_the_report_is_there(ran: tuple[Headrace, dict[str, Any], float]) -> None:
    _, run, _ = ran
    assert {node["state"] for node in run["nodes"].values()} == {"DONE"}
    assert "<html" in Path(run["report"]).read_text()
    assert all(node["headline"] for node in run["nodes"].values())


def test_the_second_run_is_all_hit_in_seconds(ran: tuple[Headrace, dict[str, Any], float]) -> None:
    headrace, _, _ = ran
    began = time.monotonic()
    again = headrace.json("run", "tiny")
    assert time.monotonic() - began < 5
    assert {node["state"] for node in again["nodes"].values()} == {"HIT"}


def test_why_follows_a_page_through_the_nodes(ran: tuple[Headrace, dict[str, Any], float]) -> None:
    headrace, run, _ = ran
    audits = headrace.manifest("scrub", run["nodes"]["scrub"]["key"]).outputs
    audit = next(file for file in audits if file.name == "audit.parquet")
    rows = pq.read_table(pa.BufferReader(read_checked(open_store(headrace.store_url), audit))).to_pylist()
    kept = next(row["id"] for row in rows if row["decision"] == "kept")
    (document,) = headrace.json("why", kept, "--recipe", "tiny")["documents"]
    assert [(step["node"], step["decision"]) for step in document["steps"]] == [
        ("filter", "kept"),
        ("dedup", "kept"),
        ("repeats", "kept"),
        ("quality", "kept"),
        ("scrub", "kept"),
        ("tokens", "kept"),
    ]
    shown = headrace.command("why", document["url"], "--recipe", "tiny").stdout
    assert shown.splitlines()[0] == document["url"] and kept in shown


def test_a_hit_is_shown_as_cached_in_prefect(ran: tuple[Headrace, dict[str, Any], float]) -> None:
    headrace, run, _ = ran
    changed = headrace.json("run", "tiny", "--set", "scrub.generation=2", "--to", "scrub")
    assert {name: node["state"] for name, node in changed["nodes"].items() if node["state"] == "DONE"} == {
        "scrub": "DONE"
    }
    names = {
        task["name"].split()[0]: task["state"]["name"]
        for task in prefect(headrace, "/task_runs/filter", {"flow_runs": {"id": {"any_": [changed["flow_run"]]}}})
    }
    cached = {"snapshot", "reference", "ngram-lm", "eval-sets", "filter", "dedup", "repeats", "classifier", "quality"}
    assert names == {**dict.fromkeys(cached, "Cached"), "scrub": "Completed"}
    keys = {
        a["key"] for a in prefect(headrace, "/artifacts/filter", {"flow_runs": {"id": {"any_": [run["flow_run"]]}}})
    }
    assert {"tiny-filter", "tiny-filter-progress", "tiny-pretrain", "tiny-evaluate"} <= keys


def test_the_jobs_log_is_in_prefect(ran: tuple[Headrace, dict[str, Any], float]) -> None:
    headrace, run, _ = ran
    logs = prefect(headrace, "/logs/filter", {"logs": {"flow_run_id": {"any_": [run["flow_run"]]}}, "limit": 200})
    assert any("stands:" in line["message"] for line in logs)


def test_cancelling_in_prefect_stops_the_job(headrace: Headrace) -> None:
    flow = headrace.start("run", "tiny", "--to", "filter", "--set", "snapshot.documentation.num_operations=1500")
    wait_for(lambda: headrace.processes(is_driver), 60, "a job's start")
    filters = {"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}
    for run in prefect(headrace, "/flow_runs/filter", filters):
        state = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
        assert prefect(headrace, f"/flow_runs/{run['id']}/set_state", state)["status"] == "ACCEPT"
    assert flow.wait(timeout=60) == 130
    assert (
        prefect(headrace, "/flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 1})[0]["state"]["type"]
        == "CANCELLED"
    )
    wait_for(lambda: not headrace.processes(is_driver), 20, "the driver's end")


def test_ctrl_c_stops_the_job(headrace: Headrace) -> None:
    # Another number than above, whose shards may all stand by now: the run would end before the signal comes.
    flow = headrace.start("run", "tiny", "--to", "filter", "--set", "snapshot.documentation.num_operations=1400")
    wait_for(lambda: headrace.processes(is_driver), 60, "a job's start")
    flow.send_signal(signal.SIGINT)
    assert flow.wait(timeout=60) != 0
    wait_for(lambda: not headrace.processes(is_driver), 20, "the driver's end")


def test_a_dead_flows_run_is_marked_crashed_by_the_next(headrace: Headrace) -> None:
    flow = headrace.start("run", "tiny", "--to", "snapshot")
    running = {"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}
    ours = wait_for(
        lambda: [
            r for r in prefect(headrace, "/flow_runs/filter", running) if f"process:{flow.pid}-" in str(r["tags"])
        ],
        60,
        "the flow run's start",
    )
    os.kill(flow.pid, signal.SIGKILL)
    flow.wait()
    headrace.json("run", "tiny", "--to", "snapshot")
    state = prefect(headrace, "/flow_runs/filter", {"flow_runs": {"id": {"any_": [ours[0]["id"]]}}})[0]["state"]
    assert state["type"] == "CRASHED"


def test_a_users_mistake_ends_at_once_with_the_field_named(headrace: Headrace) -> None:
    done = headrace.command("run", "tiny", "--set", "filter.min_wrods=3")
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no field filter.min_wrods: did you mean 'min_words'?")


def test_the_data_nodes_give_the_same_bytes_twice(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    runs = []
    for name in ("first", "second"):
        headrace = Headrace(home, tmp_path_factory.mktemp(name).as_uri(), {})
        run = headrace.json("run", "tiny", "--to", "tokens")
        done = {name: node for name, node in run["nodes"].items() if node["state"] == "DONE"}
        runs.append(
            {n: [f.sha256 for f in headrace.manifest(node["node"], node["key"]).outputs] for n, node in done.items()}
        )
    assert runs[0] == runs[1]
