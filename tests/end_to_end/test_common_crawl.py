"""A Common Crawl snapshot by name, from a server in Common Crawl's layout that refuses some requests first."""

from pathlib import Path

import pytest

from tests.crawl.common_crawl_server import CRAWL, Answer, crawl_layout, serving
from tests.end_to_end.harness import Headrace

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def test_a_crawl_by_name_becomes_a_corpus_though_its_server_refuses_at_first(
    headrace: Headrace, data_dir: Path
) -> None:
    archives = {
        "realpages.warc.gz": data_dir / "realpages" / "realpages-dev.warc.gz",
        "unasked.warc.gz": data_dir / "realpages" / "realpages-dev.warc.gz",
    }
    files = crawl_layout(archives, "warc")
    listing, *names = sorted(files, key=lambda name: not name.endswith("paths.gz"))
    with serving(files) as server:
        server.play(listing, Answer(503, {"Retry-After": "1"}), Answer(403))
        server.play(names[0], Answer(503), Answer(403), Answer(500))
        asked = ("--crawl", CRAWL, "--files", "1", "--set", f"snapshot.common_crawl.base_url={server.url}")
        run = headrace.json("run", "tiny", *asked, "--to", "scrub")
        assert {run["nodes"][name]["state"] for name in ("snapshot", "filter", "dedup", "repeats", "scrub")} == {"DONE"}
        assert server.asked_for(names[0])
        assert not server.asked_for(names[1])
        counters = headrace.manifest("filter", run["nodes"]["filter"]["key"]).counters
        assert counters["documents_in"] == 413
        # More than half of these real pages are in other languages than the recipe wants.
        assert counters["dropped.language"] > 200
        assert counters["documents_kept"] > 150
        num_requests = len(server.requests)
        again = headrace.json("run", "tiny", *asked, "--to", "scrub")
        assert {again["nodes"][name]["state"] for name in ("snapshot", "filter", "dedup", "repeats", "scrub")} == {
            "HIT"
        }
        assert len(server.requests) == num_requests, "a plan with a pin asks no server"
