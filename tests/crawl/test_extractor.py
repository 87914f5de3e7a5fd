"""The supervised extractor: hostile pages cost themselves and nothing else."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from configs.crawl import FilterSpec
from ray_jobs.cluster.fan_out import UserError
from ray_jobs.crawl import extractor as extractor_module
from ray_jobs.crawl.documents import REASONS
from ray_jobs.crawl.extractor import Extractor, Limits, Lost
from tests.crawl.archive_bytes import PROSE, http, members, page, record
from tests.crawl.nodes import NO_HEURISTICS, counted, filter_one, rows

OBEY = "tests.crawl.fake_extractors:obey"
QUICK = Limits(seconds=0.2, patience=3)
QUALITY = FilterSpec(languages=(), extraction="quality")


def lost(extractor: Extractor, html: str) -> Lost:
    with pytest.raises(Lost) as raised:
        extractor.text_of(html)
    assert raised.value.reason in REASONS
    return raised.value


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_page_beyond_the_time_limit_is_tried_twice_and_dropped() -> None:
    with Extractor(OBEY, QUICK) as extractor:
        assert extractor.text_of("before") == "before"
        error = lost(extractor, "LOOP")
        assert (error.reason, error.threshold) == ("timeout", pytest.approx(0.6))
        assert extractor.text_of("after") == "after"
        assert extractor.workers_started == 3
    assert extractor.counters() == {"clock_decided": 1}
    assert extractor.info()["second_tries"] == 1
    assert "1 pages ran out of time" in extractor.info()["may_not_reproduce"]


def test_a_page_that_waits_without_computing_runs_out_of_time_too() -> None:
    with Extractor(OBEY, Limits(seconds=0.05, patience=2)) as extractor:
        assert lost(extractor, "SLEEP 60").reason == "timeout"


def test_a_page_that_needs_the_second_try_is_kept_and_reproduces() -> None:
    with Extractor(OBEY, Limits(seconds=0.2, patience=20)) as extractor:
        assert extractor.text_of("COMPUTE 0.5") == "computed"
    assert extractor.counters() == {"clock_decided": 0}
    assert extractor.info() == {"second_tries": 1}


@pytest.mark.parametrize("html", ["CRASH", "RAISE", f"EAT {1 << 30}"], ids=["crash", "exception", "memory"])
def test_a_page_that_ends_the_worker_twice_is_dropped(html: str) -> None:
    with Extractor(OBEY, Limits(memory_bytes=512 << 20)) as extractor:
        assert lost(extractor, html).reason == "extractor_died"
        assert extractor.text_of(f"EAT {1 << 20}") == f"ate {1 << 20}"
        assert extractor.workers_started == 3
    assert extractor.counters() == {"clock_decided": 0}
    assert "may_not_reproduce" in extractor.info()


def test_a_page_whose_worker_died_once_is_kept(tmp_path: Path) -> None:
    with Extractor(OBEY) as extractor:
        assert extractor.text_of(f"ONCE {tmp_path}/marker") == "second try"
        assert extractor.workers_started == 2


def test_a_worker_killed_between_pages_costs_no_page() -> None:
    large = "x" * 3_000_000  # more than a pipe holds
    with Extractor(OBEY) as extractor:
        first = int(extractor.text_of("PID") or "")
        os.kill(first, signal.SIGKILL)
        assert extractor.text_of(large) == large
        assert int(extractor.text_of("PID") or "") != first


def test_workers_are_replaced_after_so_many_pages_and_end_with_the_extractor() -> None:
    with Extractor(OBEY, Limits(pages=3)) as extractor:
        pids = [int(extractor.text_of("PID") or "") for _ in range(7)]
        assert extractor.workers_started == 3
        assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]
    assert not any(alive(pid) for pid in set(pids))


def test_a_worker_outlives_its_supervisor_by_no_more_than_the_time_limit(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    code = f"""from ray_jobs.crawl.extractor import Extractor, Limits
Extractor({OBEY!r}, Limits(seconds=1)).text_of("LOOP {pid_file}")"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2]) as supervisor:
        deadline = time.monotonic() + 60
        while not (pid_file.exists() and pid_file.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        supervisor.kill()
    worker = Path("/proc") / pid_file.read_text()
    while worker.exists() and "\nState:\tZ" not in (worker / "status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_the_function_prints_is_no_text() -> None:
    answers = {"PRINT x": "printed", "NOTHING": "", "": "", "ü水\0 ": "ü水\0 "}
    with Extractor(OBEY) as extractor:
        assert {html: extractor.text_of(html) for html in answers} == answers


def test_counts_decide_before_the_clock() -> None:
    with Extractor(OBEY, Limits(tags=1000)) as extractor:
        assert extractor.text_of("<div>" * 1100) is None
        error = lost(extractor, "<p>x" * 1001)
        assert (error.reason, error.value, error.threshold) == ("too_many_tags", 1001, 1000)
        assert extractor.workers_started == 0
        assert extractor.text_of("<p>x" * 1000) == "<p>x" * 1000


@pytest.mark.slow
@pytest.mark.parametrize(
    "html",
    [
        "<b>" * 100_000 + PROSE,
        "<ul><li>x" * 50_000,
        "<table><tr><td>x" * 33_000,
        f"<p>{PROSE}</p>" * 50_000,
        "<p>" + "x<br>" * 99_000,
        "<p><a href=x>foo bar</a></p>" * 25_000,
    ],
    ids=["open", "lists in lists", "tables in tables", "paragraphs", "lines", "links"],
)
def test_as_many_tags_as_may_be_are_read_within_the_time_limit(html: str) -> None:
    with Extractor() as extractor:
        extractor.text_of(html[:5_000_000])
        assert extractor.info() == {"second_tries": 0}


def test_a_function_that_is_not_installed_is_said_to_be_so() -> None:
    with Extractor("no_such_module:extract") as extractor, pytest.raises(UserError, match="pip install 'trafilatura"):
        extractor.text_of("x")


def test_a_worker_that_does_not_start_is_no_loss_of_a_page() -> None:
    with Extractor("tests.crawl.fake_extractors:missing") as extractor, pytest.raises(RuntimeError, match="its start"):
        extractor.text_of("x")


def test_all_that_entered_is_kept_or_has_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(seconds=0.2, patience=2, tags=2000)
    monkeypatch.setattr(extractor_module, "extractor_for", lambda spec: Extractor(OBEY, limits))
    pages = {
        "kept": page(),
        "timeout": page("LOOP"),
        "extractor_died": page("CRASH"),
        "no_text": page("NOTHING"),
        "tangled_html": b"<div>" * 1100,
        "too_many_tags": b"<p>x" * 2100,
    }
    path = tmp_path / "a.warc.gz"
    path.write_bytes(members(*(record(http(body)) for body in [*pages.values(), page()])))
    output = filter_one(path, QUALITY.model_copy(update={"min_language_score": 0.0, **NO_HEURISTICS}))
    assert [row["rule"] or "kept" for row in rows(output, "audit.parquet")] == [*pages, "kept"]
    assert counted(output, "documents_", "dropped.", "clock_") == {
        "documents_in": 7,
        "documents_kept": 2,
        "clock_decided": 1,
        **{f"dropped.{reason}": 1 for reason in pages if reason != "kept"},
    }
    assert "another machine may keep them" in output.info["may_not_reproduce"]


def test_quality_gives_the_same_bytes_twice_and_other_texts_than_fast(data_dir: Path) -> None:
    archive = data_dir / "warc/dolma/sample-0001.warc.gz"
    first, second = filter_one(archive, QUALITY), filter_one(archive, QUALITY)
    assert first == second
    assert first.counters["documents_kept"] > 5
    assert first.counters["clock_decided"] == 0 and first.info["second_tries"] == 0
    fast = filter_one(archive)
    assert "clock_decided" not in fast.counters
    assert fast.counters["documents_in"] == first.counters["documents_in"]
    assert fast.files["documents.parquet"].data != first.files["documents.parquet"].data
