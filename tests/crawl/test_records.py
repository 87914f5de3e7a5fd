"""Reading archives in spite of what is wrong with them."""

import gzip
import io
import random
from pathlib import Path

import pytest
from fastwarc.stream_io import ZstdWriter

from ray_jobs.crawl.records import Faults, read_records
from ray_jobs.files.streams import LocalFile, Stream
from tests.crawl.archive_bytes import MAX_BYTES, faulty, http, members, numbered, page, read, record, urls

FIVE = numbered(5)
ALL = ["0", "1", "2", "3", "4"]


def test_records_of_every_container_are_the_same(data_dir: Path) -> None:
    found = []
    for suffix in (".warc", ".warc.gz", ".warc.lz4"):
        faults = Faults()
        records = read_records(LocalFile(data_dir / f"warc/resiliparse/warcfile{suffix}"), MAX_BYTES, faults)
        found.append([(one.type, one.url, one.content_type, one.block) for one in records])
        assert faults == Faults()
    assert len(found[0]) == 50
    assert found[0] == found[1] == found[2]


def test_a_zstd_archive_is_read_and_its_damage_costs_one_record(tmp_path: Path) -> None:
    frames = []
    for one in FIVE:
        sink = io.BytesIO()
        with ZstdWriter(sink) as stream:
            stream.write(one)
        frames.append(sink.getvalue())
    assert urls(read(tmp_path, b"".join(frames))[0]) == ALL
    frames[2] = frames[2][:20] + bytes(len(frames[2]) - 20)
    records, faults = read(tmp_path, b"".join(frames))
    assert urls(records) == ["0", "1", "3", "4"]
    assert faults.damaged == 1


@pytest.mark.parametrize("pack", [members, lambda *records: b"".join(records)], ids=["gzip", "plain"])
def test_a_cut_anywhere_keeps_every_record_before_it(tmp_path: Path, pack) -> None:
    data = pack(*FIVE)
    starts = [one.offset for one in read(tmp_path, data)[0]]
    for cut in range(1, len(data), 37):
        records, faults = read(tmp_path, data[:cut])
        num_whole = sum(start <= cut for start in [*starts[1:], len(data)])
        assert urls(records)[:num_whole] == ALL[:num_whole], cut
        # Of the record that is cut at most its own remains, and is not taken for whole if its block is not.
        assert num_whole <= len(records) <= num_whole + 1, cut
        assert faults.truncated + faults.damaged + faults.not_warc <= 1, cut
        assert len(faulty(records)) <= faults.truncated + faults.damaged, cut


def test_an_archive_that_ends_within_a_record_is_truncated(tmp_path: Path) -> None:
    data = members(*FIVE)
    last = read(tmp_path, data)[0][-1].offset
    records, faults = read(tmp_path, data[: last + (len(data) - last) * 3 // 4])
    assert urls(records) == ALL[:4]
    assert (faulty(records), faults.truncated, faults.damaged) == (["record_truncated"], 1, 0)


@pytest.mark.parametrize("pack", [members, lambda *records: b"".join(records)], ids=["gzip", "plain"])
def test_a_length_that_reaches_into_the_next_record_loses_only_its_own(tmp_path: Path, pack) -> None:
    for excess in (5, 150, len(FIVE[3]) + 60, 10**6, 10**15):
        block = http(page("1 too long"))
        wrong = record(block, "http://a.example/1", length=len(block) + excess)
        records, faults = read(tmp_path, pack(FIVE[0], wrong, *FIVE[2:]))
        assert [url for url in urls(records) if url != "1"] == ["0", "2", "3", "4"], excess
        assert faults.damaged == 1 and faults.truncated == 0, excess
        assert len(faulty(records)) == 1, excess


@pytest.mark.parametrize("length", [0, 40, -5, "nonsense"])
def test_a_length_that_is_too_short_loses_no_other_record(tmp_path: Path, length: int | str) -> None:
    wrong = record(http(page()), "http://a.example/1", length=length)
    records, faults = read(tmp_path, members(FIVE[0], wrong, *FIVE[2:]))
    assert [url for url in urls(records) if url != "1"] == ["0", "2", "3", "4"]
    assert faults.damaged == 1


def test_damage_within_a_gzip_archive_costs_the_records_it_touches(tmp_path: Path, data_dir: Path) -> None:
    data = (data_dir / "warc/resiliparse/warcfile.warc.gz").read_bytes()
    whole, _ = read(tmp_path, data)
    random.seed(5)
    for _ in range(40):
        at = random.randrange(len(data))
        damaged = bytearray(data)
        damaged[at : at + 30] = bytes(byte ^ 0x5A for byte in damaged[at : at + 30])
        records, faults = read(tmp_path, bytes(damaged))
        touched = {
            one.offset
            for one, after in zip(whole, [*whole[1:], None], strict=True)
            if one.offset < at + 30 and (after is None or after.offset > at)
        }
        sound = {one.offset: one for one in records if one.fault is None}
        assert {one.offset for one in whole} - touched <= set(sound), at
        assert all(sound[one.offset] == one for one in whole if one.offset not in touched), at
        assert faults.damaged + faults.truncated >= 1, at
        assert 1 <= len(faulty(records)) <= 2, at


def test_junk_between_members_is_skipped_and_counted(tmp_path: Path) -> None:
    data = members(*FIVE[:2]) + b"\0" * 1000 + b"junk" * 100 + members(*FIVE[2:])
    records, faults = read(tmp_path, data)
    assert urls(records) == ALL
    assert (faulty(records), faults.damaged) == (["record_damaged"], 1)


def test_more_junk_than_is_searched_at_once_is_skipped(tmp_path: Path) -> None:
    noise = random.Random(3).randbytes(3 << 20)
    records, faults = read(tmp_path, members(*FIVE[:2]) + noise + members(*FIVE[2:]))
    assert urls(records) == ALL
    assert faults.damaged == 1


def test_a_plain_record_in_a_page_is_not_taken_for_a_record(tmp_path: Path) -> None:
    quoting = record(
        http(page() + b"\r\n\r\nWARC/1.0\r\nWARC-Type: response\r\nContent-Length: 3\r\n\r\nabc"), "http://a.example/q"
    )
    records, faults = read(tmp_path, members(FIVE[0], quoting, FIVE[1]))
    assert urls(records) == ["0", "q", "1"]
    assert faults == Faults()


@pytest.mark.parametrize("data", [b"<html>" * 500, b"\0" * 5000, b"WAR", b"\x1f\x8b", gzip.compress(b"<html>" * 99)])
def test_what_is_no_warc_is_counted_as_such(tmp_path: Path, data: bytes) -> None:
    records, faults = read(tmp_path, data)
    assert (records, faults) == ([], Faults(not_warc=1))


def test_an_empty_archive_is_counted(tmp_path: Path) -> None:
    assert read(tmp_path, b"") == ([], Faults(empty=1))


def test_offsets_rise_also_where_the_file_is_compressed_as_a_whole(tmp_path: Path) -> None:
    records, faults = read(tmp_path, gzip.compress(b"".join(FIVE)))
    offsets = [one.offset for one in records]
    assert urls(records) == ALL and faults == Faults()
    assert offsets == sorted(set(offsets))


def test_offsets_find_their_records(tmp_path: Path) -> None:
    data = members(*FIVE)
    for one, source in zip(read(tmp_path, data)[0], FIVE, strict=True):
        assert gzip.decompress(data[one.offset :])[: len(source)] == source


def test_a_block_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    large = record(http(b"x" * 3_000_000), "http://a.example/large")
    records, faults = read(tmp_path, members(FIVE[0], large, FIVE[1]))
    assert urls(records) == ["0", "1"]
    assert (faulty(records), faults) == (["too_large"], Faults())


def test_a_header_beyond_all_limits_costs_only_its_record(tmp_path: Path) -> None:
    endless = record(http(page()), "http://a.example/" + "x" * 100_000)
    records, _ = read(tmp_path, members(FIVE[0], endless, *FIVE[2:]))
    assert urls(records) == ["0", "2", "3", "4"]


def test_angle_brackets_and_nuls_are_no_part_of_a_url(tmp_path: Path) -> None:
    records, _ = read(tmp_path, members(record(http(page()), "<http://a.example/x\0y>")))
    assert records[0].url == "http://a.example/xy"


class _Lost(OSError):
    pass


class _LosingArchive:
    """Loses its connection after some bytes."""

    def __init__(self, path: Path, after: int):
        self._path, self._after = path, after

    def open(self, start: int = 0) -> Stream:
        archive = self

        class Losing:
            def __init__(self) -> None:
                self.stream = archive._path.open("rb")
                self.stream.seek(start)

            def read(self, size: int = -1, /) -> bytes:
                if self.stream.tell() >= archive._after:
                    raise _Lost("connection lost")
                return self.stream.read(size)

            def tell(self) -> int:
                return self.stream.tell()

            def seek(self, offset: int, whence: int = 0, /) -> int:
                return self.stream.seek(offset, whence)

            def close(self) -> None:
                self.stream.close()

        return Losing()


def test_a_lost_connection_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    path.write_bytes(members(*[record(http(random.Random(n).randbytes(50_000))) for n in range(8)]))
    with pytest.raises(_Lost):
        list(read_records(_LosingArchive(path, 100_000), MAX_BYTES, Faults()))


@pytest.mark.parametrize("name", ["warcfile.warc.gz", "warcfile.warc", "warcfile.warc.lz4"])
def test_no_damage_stops_the_reading(tmp_path: Path, data_dir: Path, name: str) -> None:
    data = (data_dir / "warc/resiliparse" / name).read_bytes()
    source = random.Random(name)
    for _ in range(60):
        damaged = bytearray(data)
        for _ in range(source.randrange(1, 12)):
            at = source.randrange(len(damaged))
            match source.randrange(4):
                case 0:
                    damaged[at] ^= 1 << source.randrange(8)
                case 1:
                    del damaged[at : at + source.randrange(2000)]
                case 2:
                    damaged[at:at] = source.randbytes(source.randrange(500))
                case _:
                    damaged[at : at + 100] = bytes(100)
        records, _ = read(tmp_path, bytes(damaged))
        offsets = [one.offset for one in records]
        assert offsets == sorted(set(offsets))
