"""ARC archives: what warcio reads of them, and damage."""

import gzip
import io
import random
from pathlib import Path

import pytest
from warcio.archiveiterator import ArchiveIterator

from ray_jobs.crawl.arc import Header, parse_header
from ray_jobs.crawl.records import Faults, read_records
from ray_jobs.files.streams import LocalFile
from tests.crawl.archive_bytes import MAX_BYTES, faulty, http, members, page, read, record, urls
from tests.crawl.nodes import filter_one, rows

ALL = ["0", "1", "2", "3", "4"]
VERSION_1 = "1 0 Test\nURL IP-address Archive-date Content-type Archive-length\n"
VERSION_2 = (
    "2 0 Test\nURL IP-address Archive-date Content-type Result-code Checksum Location Offset Filename Archive-length\n"
)


def arc_record(block: bytes, url: str = "http://a.example/", version: int = 1, length: object = None) -> bytes:
    between = "" if version == 1 else "200 fac069150613fe55599cc7fa88aa089d - 209 test.arc "
    size = len(block) if length is None else length
    return f"{url} 192.0.2.7 19961104142103 text/html {between}{size}\n".encode() + block + b"\n"


def head(version: int = 1) -> bytes:
    lines = (VERSION_1 if version == 1 else VERSION_2).encode()
    return arc_record(lines, "filedesc://test.arc", version)


def numbered_arc(count: int = 5, version: int = 1) -> list[bytes]:
    return [arc_record(http(page(f"{n} ")), f"http://a.example/{n}", version) for n in range(count)]


def plain(*records: bytes) -> bytes:
    return b"".join(records)


@pytest.mark.parametrize("name", ["example.arc", "example.arc.gz"])
def test_real_archives_give_what_warcio_gives(data_dir: Path, name: str) -> None:
    path = data_dir / "warc/warcio" / name
    faults = Faults()
    ours = [
        (one.offset, one.url, one.date, one.block)
        for one in read_records(LocalFile(path), MAX_BYTES, faults)
        if one.type != "warcinfo"
    ]
    assert ours == [one for one in of_warcio(path.read_bytes()) if one[1]] and len(ours) == 1
    assert faults == Faults()


def test_a_real_record_whose_length_is_that_of_its_carriage_returns_is_truncated(data_dir: Path) -> None:
    """Somebody took them out of the file: 16 bytes are missing at its end."""
    faults = Faults()
    _, found = read_records(LocalFile(data_dir / "warc/warcio/example-space-in-url.arc"), MAX_BYTES, faults)
    assert (found.fault, faults) == ("record_truncated", Faults(truncated=1))
    assert "EmailTitle=Examples From The Live Web&" in found.url


@pytest.mark.parametrize("pack", [members, plain])
def test_made_archives_give_what_warcio_gives(tmp_path: Path, pack) -> None:
    source = random.Random(7)
    records = [head()]
    for n in range(60):
        body = page(f"{n} " * source.randrange(3000)) + b"\n" * source.randrange(3)
        records.append(arc_record(http(body), f"http://a.example/{n}?q=x y"))
    data = pack(*records)
    ours, faults = read(tmp_path, data)
    assert faults == Faults() and ours[0].type == "warcinfo"
    assert [(one.offset, one.url, one.date, one.block) for one in ours[1:]] == of_warcio(data)[1:]
    assert len(ours) == 61


def of_warcio(data: bytes) -> list[tuple[int, str, str, bytes]]:
    """(offset, URL, date, block), and of the archive's first record no URL."""
    found = []
    reader = ArchiveIterator(io.BytesIO(data), no_record_parse=True, arc2warc=True)
    for one in reader:
        headers = one.rec_headers
        block = one.raw_stream.read()
        url = headers.get_header("WARC-Target-URI") or ""
        found.append((reader.get_record_offset(), url.replace("%20", " "), headers.get_header("WARC-Date"), block))
    return found


@pytest.mark.parametrize("pack", [members, plain, lambda *records: gzip.compress(b"".join(records))])
@pytest.mark.parametrize("version", [1, 2])
def test_versions_and_containers_make_no_difference(tmp_path: Path, version: int, pack) -> None:
    records, faults = read(tmp_path, pack(head(version), *numbered_arc(5, version)))
    assert [one.type for one in records] == ["warcinfo", *["response"] * 5]
    assert urls(records[1:]) == ALL and faults == Faults()
    assert [one.block for one in records[1:]] == [http(page(f"{n} ")) for n in range(5)]
    assert {one.date for one in records} == {"1996-11-04T14:21:03Z"}
    offsets = [one.offset for one in records]
    assert offsets == sorted(set(offsets))


@pytest.mark.parametrize("pack", [members, plain])
@pytest.mark.parametrize("version", [1, 2])
def test_reading_can_begin_at_every_offset(tmp_path: Path, version: int, pack) -> None:
    data = pack(head(version), *numbered_arc(5, version))
    for one in read(tmp_path, data)[0]:
        again = read(tmp_path, data[one.offset :])[0][0]
        assert (again.offset, again.url, again.block) == (0, one.url, one.block)


def test_lines_of_both_versions_are_read() -> None:
    first = b"http://a.example/a b?c=1 192.0.2.7 20140216050221 text/html; charset=utf-8 12"
    second = b"http://a.example/ 2001:db8::1 19990101 text/html 302 x http://b.example/ 9 f.arc 12"
    assert parse_header(first) == Header(
        "http://a.example/a b?c=1", "2014-02-16T05:02:21Z", "text/html; charset=utf-8", 12
    )
    assert parse_header(second) == Header("http://a.example/", "1999-01-01T00:00:00Z", "text/html", 12)
    assert parse_header(first[:-2] + b"-1").length is None  # type: ignore[union-attr]
    for line in (b"", b"<html>", b"http://a.example/ text/html 12", b"WARC/1.0", b"GET / HTTP/1.1"):
        assert parse_header(line) is None


@pytest.mark.parametrize("pack", [members, plain])
def test_a_length_that_is_too_long_costs_its_record_alone(tmp_path: Path, pack) -> None:
    for length in (len(numbered_arc()[0]) + 40, 10**12, "abc", -1):
        wrong = arc_record(http(page()), "http://a.example/wrong", length=length)
        records, faults = read(tmp_path, pack(head(), *numbered_arc(2), wrong, *numbered_arc(5)[2:]))
        assert urls(records[1:]) == ALL, length
        assert faulty(records) in (["record_length_wrong"], ["record_damaged"]), length
        assert faults == Faults(damaged=1), length


@pytest.mark.parametrize("pack", [members, plain])
def test_a_length_that_is_too_short_costs_its_record_alone(tmp_path: Path, pack) -> None:
    wrong = arc_record(http(page()), "http://a.example/wrong", length=50)
    records, faults = read(tmp_path, pack(head(), *numbered_arc(2), wrong, *numbered_arc(5)[2:]))
    assert urls(records[1:]) == ALL
    assert (faulty(records), faults) == (["record_length_wrong"], Faults(damaged=1))


def test_a_page_that_quotes_a_record_is_none(tmp_path: Path) -> None:
    quoting = arc_record(http(page() + b"\n" + numbered_arc(1)[0]), "http://a.example/q")
    records, faults = read(tmp_path, plain(head(), quoting, *numbered_arc(1)))
    assert urls(records[1:]) == ["q", "0"] and faults == Faults()


def test_a_member_that_does_not_decompress_costs_its_record_alone(tmp_path: Path) -> None:
    packed = [members(one) for one in [head(), *numbered_arc(5)]]
    for at in (12, len(packed[3]) // 2, len(packed[3]) - 6):
        damaged = bytearray(packed[3])
        damaged[at : at + 4] = b"\xff\xff\xff\xff"
        records, faults = read(tmp_path, b"".join([*packed[:3], bytes(damaged), *packed[4:]]))
        assert urls(records[1:]) == ["0", "1", "3", "4"], at
        assert (faulty(records), faults) == (["record_damaged"], Faults(damaged=1)), at


@pytest.mark.parametrize("pack", [members, plain])
def test_a_cut_anywhere_keeps_every_record_before_it(tmp_path: Path, pack) -> None:
    parts = [head(), *numbered_arc(5)]
    data = pack(*parts)
    starts = [one.offset for one in read(tmp_path, data)[0]]
    for cut in range(starts[1], len(data), 37):
        records, faults = read(tmp_path, data[:cut])
        num_whole = sum(start <= cut for start in [*starts[2:], len(data)])
        assert urls(records[1:])[:num_whole] == ALL[:num_whole], cut
        assert num_whole + 1 <= len(records) <= num_whole + 2, cut
        assert len(faulty(records)) <= faults.truncated + faults.damaged <= 1, cut


def test_a_block_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    large = arc_record(http(b"x" * 3_000_000), "http://a.example/large")
    for pack in (members, plain):
        records, faults = read(tmp_path, pack(head(), large, *numbered_arc(2)))
        assert urls(records[1:]) == ["0", "1"]
        assert (faulty(records), faults) == (["too_large"], Faults())


@pytest.mark.parametrize("pack", [members, plain])
def test_no_damage_stops_the_reading(tmp_path: Path, pack) -> None:
    data = pack(head(), *numbered_arc(12))
    source = random.Random("arc")
    for _ in range(200):
        damaged = bytearray(data)
        for _ in range(source.randrange(1, 6)):
            at = source.randrange(len(damaged))
            match source.randrange(3):
                case 0:
                    damaged[at] ^= 1 << source.randrange(8)
                case 1:
                    del damaged[at : at + source.randrange(500)]
                case _:
                    damaged[at:at] = source.randbytes(source.randrange(200))
        records, _ = read(tmp_path, bytes(damaged))
        offsets = [one.offset for one in records]
        assert offsets == sorted(set(offsets))


def test_pages_of_an_arc_become_documents_with_their_dates(tmp_path: Path, data_dir: Path) -> None:
    output = filter_one(data_dir / "warc/warcio/example.arc.gz")
    (row,) = rows(output, "audit.parquet")
    assert (row["url"], row["date"], row["rule"]) == ("http://example.com/", "2014-02-16T05:02:21Z", "min_words")
    path = tmp_path / "b.arc"
    dns = arc_record(b"20140216050221\na.example. 1 IN A 192.0.2.7\n", "dns:a.example").replace(
        b"text/html", b"text/dns"
    )
    path.write_bytes(plain(head(2), dns, arc_record(http(page()), version=2)))
    output = filter_one(path)
    assert [row["rule"] for row in rows(output, "audit.parquet")] == ["not_html", None]
    assert output.counters["records.resource"] == output.counters["records.response"] == 1


def test_warc_records_have_dates_too(tmp_path: Path) -> None:
    dated = record(http(page())).replace(b"WARC-Type", b"WARC-Date: 2026-10-01T12:00:05.123Z\r\nWARC-Type", 1)
    assert [one.date for one in read(tmp_path, members(dated, record(http(page()))))[0]] == ["2026-10-01T12:00:05Z", ""]
