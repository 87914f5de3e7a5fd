"""What the protocol rests on, held by both stores alike: files, and a real S3 server."""

import os
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from boto3.s3.transfer import TransferConfig

from ray_jobs.checkpoint import file_store as file_store_module
from ray_jobs.checkpoint import s3_store as s3_store_module
from ray_jobs.checkpoint.file_store import FileStore
from ray_jobs.checkpoint.s3_store import S3Store, client
from ray_jobs.checkpoint.store import Store, StoreError, check_path, open_store


def test_what_was_put_is_read_back_at_once(store: Store) -> None:
    for size in (0, 1, 100_000):
        data = os.urandom(size)
        store.put("a/b.bin", data)
        assert store.get("a/b.bin") == data
        assert store.size("a/b.bin") == size


def test_what_is_not_there_is_none_and_never_an_error(store: Store) -> None:
    store.put("folder/object", b"1")
    for path in ("nothing", "folder", "folder/other", "folder/object/below", "no/such/folder"):
        assert store.get(path) is None, path
        assert store.size(path) is None, path
    assert list(store.list("nowhere/")) == []
    assert store.folders("nowhere/") == []
    with pytest.raises(FileNotFoundError):
        store.get_range("folder/other", 0, 1)


def test_a_range_ends_where_the_object_ends(store: Store) -> None:
    store.put("x", b"0123456789")
    assert store.get_range("x", 2, 3) == b"234"
    assert store.get_range("x", 8, 100) == b"89"
    assert store.get_range("x", 10, 5) == b""
    assert store.get_range("x", 3, 0) == b""


def test_a_local_file_is_put_whole(store: Store, tmp_path: Path) -> None:
    local = tmp_path / "local.bin"
    local.write_bytes(os.urandom(3_000_000))
    store.put_file("big/file.bin", local)
    assert store.get("big/file.bin") == local.read_bytes()


def test_large_objects_go_in_parts(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    part = 5 << 20
    parts = TransferConfig(multipart_threshold=part, multipart_chunksize=part)
    monkeypatch.setattr(s3_store_module, "PART_BYTES", part)
    monkeypatch.setattr(s3_store_module, "TRANSFER", parts)
    data = os.urandom(2 * part + 12345)
    store.put("large", memoryview(data))
    assert store.get("large") == data
    (tmp_path / "local").write_bytes(data)
    store.put_file("large-file", tmp_path / "local")
    assert store.get("large-file") == data


def test_a_listing_shows_every_object_once_with_its_size(store: Store) -> None:
    paths = ["a-b/1", "a/1", "a/2/3", "a.b", "b", "a/2/30", "ä/é"]
    for path in paths:
        store.put(path, path.encode())
    assert sorted((entry.path, entry.size) for entry in store.list("")) == sorted((p, len(p.encode())) for p in paths)
    assert [entry.path for entry in store.list("a/")] == ["a/1", "a/2/3", "a/2/30"]
    assert [entry.path for entry in store.list("a/2/")] == ["a/2/3", "a/2/30"]
    assert list(store.folders("")) == ["a", "a-b", "ä"]
    assert list(store.folders("a/")) == ["2"]


def test_a_listing_goes_on_past_its_first_page(store: Store) -> None:
    paths = [f"many/{number:05d}" for number in range(1100)]
    assert all(store.create_many([(path, path.encode()) for path in paths]))
    assert [entry.path for entry in store.list("many/")] == paths
    assert store.get_many(paths) == [path.encode() for path in paths]
    store.delete(paths)
    assert list(store.list("many/")) == []


def test_deleted_objects_are_gone_and_deleting_again_is_no_error(store: Store) -> None:
    store.put("d/1", b"1")
    store.put("d/2", b"2")
    store.delete(["d/1", "d/never"])
    assert store.get("d/1") is None
    assert [entry.path for entry in store.list("d/")] == ["d/2"]
    store.delete(["d/1", "d/2"])
    assert list(store.list("")) == []
    assert store.create("d/1", b"anew")


def test_create_succeeds_once(store: Store) -> None:
    assert store.create("r/1", b"first")
    assert not store.create("r/1", b"second")
    assert store.get("r/1") == b"first"


def test_creating_again_what_stands_is_a_success(store: Store) -> None:
    assert store.create("r/1", b"mine")
    assert store.create("r/1", b"mine")


def test_create_many_says_for_each_record_who_won(store: Store) -> None:
    store.create("m/1", b"other")
    assert store.create_many([("m/0", b"a"), ("m/1", b"b"), ("m/2", b"c")]) == [True, False, True]


def test_one_of_many_racing_creators_wins(store: Store) -> None:
    # SeaweedFS makes losers of a race wait whole seconds for its lock, so few rounds.
    for number in range(2):
        barrier = threading.Barrier(8)

        def race(writer: int, number: int = number, barrier: threading.Barrier = barrier) -> bool:
            barrier.wait()
            return store.create(f"race/{number}", f"writer {writer}".encode())

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(race, range(8)))
        assert won.count(True) == 1
        assert store.get(f"race/{number}") == f"writer {won.index(True)}".encode()


def test_two_threads_that_put_the_same_path_leave_one_of_both_whole(store: Store) -> None:
    contents = [bytes([letter]) * 200_000 for letter in (65, 66)]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(20):
            list(pool.map(lambda data: store.put("same", data), contents))
            assert store.get("same") in contents
    assert list(store.leftovers()) == []


def test_a_store_travels_by_pickle_and_by_its_url(store: Store) -> None:
    store.put("x", b"1")
    assert pickle.loads(pickle.dumps(store)).get("x") == b"1"
    assert open_store(store.url).get("x") == b"1"
    assert store.url_of("a/x").endswith("/a/x")


@pytest.mark.parametrize("path", ["", "/a", "a//b", "../a", "a/../b", "a/./b", "a/", "a/..", "a\0b"])
def test_a_path_cannot_leave_the_store(path: str) -> None:
    with pytest.raises(ValueError, match="not a path inside a store"):
        check_path(path)


@pytest.mark.parametrize("url", ["gs://bucket/x", "s3:///prefix", "file://host/x", "http://host/x"])
def test_a_url_that_names_no_store_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"s3://|file://"):
        open_store(url)


# Files


def test_deleting_sweeps_folders_without_disturbing_a_writer_beside(file_store: Store) -> None:
    """The last object of a folder goes while another writer is about to create one there."""
    stop = threading.Event()

    def sweep() -> None:
        while not stop.is_set():
            file_store.put("deep/er/folder/x", b"1")
            file_store.delete(["deep/er/folder/x"])

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    try:
        for number in range(200):
            path = f"deep/er/folder/{number}"
            assert file_store.create(path, b"2")
            file_store.delete([path])
    finally:
        stop.set()
        sweeper.join()


def test_a_write_that_fails_leaves_nothing_behind(file_store: Store, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        file_store.put_file("a/b", tmp_path / "absent")
    assert list(file_store.list("")) == list(file_store.leftovers()) == []


def test_a_half_written_file_of_a_killed_writer_is_never_seen(file_store: FileStore) -> None:
    file_store.put("a/whole", b"1")
    if (child := os.fork()) == 0:
        file_store_module.os.fsync = lambda descriptor: os._exit(
            9
        )  # killed with the bytes written and not yet published
        file_store.put("a/half", b"x" * 1000)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert file_store.get("a/half") is None
    assert [entry.path for entry in file_store.list("")] == ["a/whole"]
    (leftover,) = file_store.leftovers()
    assert leftover.size == 1000
    file_store.discard(leftover)
    assert list(file_store.leftovers()) == []


def test_a_full_disk_is_explained(file_store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    full = lambda folder: (str(tmp_path / "none"), os.open("/dev/full", os.O_WRONLY))  # noqa: E731
    monkeypatch.setattr(file_store_module, "_open_temporary", full)
    for write in (lambda: file_store.put("x", b"1"), lambda: file_store.create("x", b"1")):
        with pytest.raises(StoreError, match=r"disk is full.*gc --apply"):
            write()


def test_a_store_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="is a file"):
        open_store(tmp_path / "file" / "store").put("a/b", b"1")


# S3


def test_wrong_keys_are_named_as_the_cause(s3_store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(f"{s3_store_url}/x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    for request in (lambda: store.get("x"), lambda: store.put("x", b"1"), lambda: store.create("x", b"1")):
        with pytest.raises(StoreError, match="secret key is wrong"):
            request()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    with pytest.raises(StoreError, match="access key is not known"):
        store.get("x")
    with pytest.raises(StoreError, match="access denied"):  # HEAD answers have no body that says more
        store.size("x")


def test_missing_keys_are_named_as_the_cause(
    s3_store_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(StoreError, match="no credentials"):
        open_store(f"{s3_store_url}/x").get("x")


def test_a_missing_bucket_is_named_as_the_cause(s3_store_url: str) -> None:
    store = open_store("s3://no-such-bucket/x")
    for request in (lambda: store.get("x"), lambda: store.create("x", b"1"), lambda: list(store.list(""))):
        with pytest.raises(StoreError, match="no bucket 'no-such-bucket'"):
            request()


def test_an_endpoint_that_never_answered_fails_within_seconds(
    s3_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(StoreError, match=r"127\.0\.0\.1:9 cannot be reached.*check AWS_ENDPOINT_URL"):
        open_store(f"{s3_store_url}/x").get("x")
    assert time.monotonic() - began < 15


def test_unfinished_uploads_are_found_and_discarded(s3_store: S3Store) -> None:
    s3_store.put("kept", b"1")
    key = f"{s3_store.prefix}/half"
    upload = client().create_multipart_upload(Bucket=s3_store.bucket, Key=key)["UploadId"]
    client().upload_part(Bucket=s3_store.bucket, Key=key, UploadId=upload, PartNumber=1, Body=b"1")
    (leftover,) = s3_store.leftovers()
    assert leftover.path.startswith("half?")
    assert [entry.path for entry in s3_store.list("")] == ["kept"]
    s3_store.discard(leftover)
    s3_store.discard(leftover)
    assert list(s3_store.leftovers()) == []
