"""What a network does to a store on S3: lost answers, cut bodies, refusals that pass, outages."""

import os
import secrets
import threading
import time
from collections.abc import Iterator

import pytest

from ray_jobs.checkpoint import s3_store as s3_store_module
from ray_jobs.checkpoint.store import Store, StoreError, open_store
from ray_jobs.checkpoint.verify import verify
from ray_jobs.cluster.runner import run_node
from tests.checkpoint.faulty_proxy import Faults, faulty_proxy
from tests.faults.toy_nodes import NumbersSpec, request_of
from tests.s3_server import S3Server


@pytest.fixture
def faulty(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Store, Faults]]:
    with faulty_proxy(s3_server.endpoint) as (address, faults):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        yield open_store(f"s3://{s3_server.bucket}/{secrets.token_hex(4)}"), faults


def test_a_lost_answer_to_our_own_create_is_known_as_our_success(faulty: tuple[Store, Faults]) -> None:
    store, faults = faulty
    faults.plan("PUT", "lost")
    assert store.create("r/1", b"ours")
    faults.plan("PUT", "lost", "lost", 503, "lost")
    assert store.create("r/2", b"ours")
    assert [fault for _, fault in faults.seen].count("lost") == 4
    assert store.get("r/1") == store.get("r/2") == b"ours"


def test_a_lost_answer_to_a_create_that_lost_is_no_success(faulty: tuple[Store, Faults]) -> None:
    store, faults = faulty
    assert store.create("r/1", b"theirs")
    faults.plan("PUT", "lost", "lost")
    assert not store.create("r/1", b"ours")
    assert store.get("r/1") == b"theirs"


@pytest.mark.parametrize("fault", [409, 429, 500, 502, 503, "refused", "lost"])
def test_what_passes_by_itself_is_tried_again(faulty: tuple[Store, Faults], fault: int | str) -> None:
    store, faults = faulty
    for method in ("GET", "PUT", "POST", "HEAD"):
        faults.plan(method, *[fault] * 3)
    assert store.create("r/1", b"1")
    store.put("r/2", b"22")
    assert store.get("r/2") == b"22"
    assert store.size("r/2") == 2
    assert [entry.path for entry in store.list("")] == ["r/1", "r/2"]
    store.delete(["r/1"])
    assert store.get("r/1") is None
    assert len([seen for _, seen in faults.seen if seen == fault]) == 12


def test_a_body_that_breaks_off_is_read_again(faulty: tuple[Store, Faults]) -> None:
    store, faults = faulty
    data = os.urandom(500_000)
    store.put("x", data)
    faults.plan("GET", "cut", "cut", "cut")
    assert store.get("x") == data
    faults.plan("GET", "cut")
    assert store.get_range("x", 1000, 200_000) == data[1000:201_000]
    assert [seen for _, seen in faults.seen].count("cut") == 4


@pytest.mark.parametrize("status", [400, 403, 501])
def test_what_will_not_pass_is_not_tried_again(faulty: tuple[Store, Faults], status: int) -> None:
    store, faults = faulty
    faults.plan("PUT", *[status] * 10)
    with pytest.raises(StoreError):
        store.create("r/1", b"1")
    assert len(faults.seen) < 3  # not all ten; a busy machine may lose a connection once


def test_a_server_without_conditional_writes_is_named(faulty: tuple[Store, Faults]) -> None:
    store, faults = faulty
    faults.plan("PUT", 501)
    with pytest.raises(StoreError, match="one that honours If-None-Match"):
        store.create("r/1", b"1")


def test_an_outage_is_waited_out_where_the_endpoint_answered_before(faulty: tuple[Store, Faults]) -> None:
    store, faults = faulty
    store.put("x", b"1")
    faults.plan("GET", *["refused"] * 10_000)
    healer = threading.Timer(6, faults.plan, ("GET",))
    healer.start()
    began = time.monotonic()
    assert store.get("x") == b"1"
    assert time.monotonic() - began > 5  # longer than a first contact is given
    healer.join()


def test_an_outage_that_does_not_end_is_an_error(faulty: tuple[Store, Faults], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_store_module, "OUTAGE_SECONDS", 1.0)
    store, faults = faulty
    store.put("x", b"1")
    faults.plan("GET", *["refused"] * 10_000)
    with pytest.raises(StoreError, match="cannot be reached"):
        store.get("x")


def test_a_node_gets_through_a_bad_network(faulty: tuple[Store, Faults], toy_nodes: None) -> None:
    store, faults = faulty
    for method in ("GET", "PUT", "POST"):
        faults.plan(method, *["lost", None, "refused", 503, None, "cut" if method == "GET" else 409] * 10)  # type: ignore[list-item]
    manifest = run_node(store, request_of(NumbersSpec(num_shards=5)))
    assert manifest.counters["documents_kept"] == 20
    assert len([seen for _, seen in faults.seen if seen]) > 15
    faults.planned.clear()
    assert list(verify(store, deep=True)) == []
