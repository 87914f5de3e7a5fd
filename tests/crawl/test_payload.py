"""From blocks to text: encodings that are true, false and hostile."""

import gzip
import io
import time
import zlib

import pytest
from fastwarc.stream_io import BrotliWriter, ZstdWriter

from ray_jobs.crawl.payload import Undecodable, decode_body, decode_text, is_html, join_chunks, parse_http
from tests.crawl.archive_bytes import PROSE, http, page

LIMIT = 1 << 20
BODY = page()


def packed(writer: type, data: bytes) -> bytes:
    sink = io.BytesIO()
    with writer(sink) as stream:
        stream.write(data)
    return sink.getvalue()


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


ENCODED = {
    "gzip": gzip.compress(BODY),
    "x-gzip": gzip.compress(BODY),
    "deflate": zlib.compress(BODY),
    "br": packed(BrotliWriter, BODY),
    "zstd": packed(ZstdWriter, BODY),
}


@pytest.mark.parametrize("encoding", ENCODED)
def test_content_encodings_are_undone(encoding: str) -> None:
    assert decode_body(ENCODED[encoding], {"content-encoding": encoding.upper()}, LIMIT) == BODY


@pytest.mark.parametrize("encoding", [*ENCODED, "identity", "utf-8", ""])
def test_a_body_that_is_not_encoded_as_it_is_called_is_taken_as_it_is(encoding: str) -> None:
    assert decode_body(BODY, {"content-encoding": encoding}, LIMIT) == BODY


def test_raw_deflate_is_deflate_too() -> None:
    assert decode_body(raw_deflate(BODY), {"content-encoding": "deflate"}, LIMIT) == BODY


def test_encodings_are_undone_last_first() -> None:
    twice = gzip.compress(zlib.compress(BODY))
    assert decode_body(twice, {"content-encoding": "deflate, gzip"}, LIMIT) == BODY


def test_gzip_of_several_members_with_padding_is_read_to_its_end() -> None:
    body = gzip.compress(BODY[:100]) + gzip.compress(BODY[100:]) + b"\0" * 64
    assert decode_body(body, {"content-encoding": "gzip"}, LIMIT) == BODY


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_an_encoded_body_that_breaks_off_gives_what_can_be_decoded(encoding: str) -> None:
    body = page("".join(f"{n} {PROSE}" for n in range(500)))
    coded = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
    decoded = decode_body(coded[: len(coded) // 2], {"content-encoding": encoding}, LIMIT)
    assert body.startswith(decoded) and len(decoded) > len(body) // 4


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd"])
def test_an_encoded_body_of_nothing_but_damage_is_counted(encoding: str) -> None:
    body = ENCODED[encoding][:4] + b"\xff" * 300
    with pytest.raises(Undecodable) as raised:
        decode_body(body, {"content-encoding": encoding}, LIMIT)
    assert raised.value.reason == "encoding_damaged"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_a_bomb_is_not_unfolded(encoding: str) -> None:
    zeros = b"<p>" + b" " * (60 << 20)
    bomb = {
        "gzip": lambda: gzip.compress(zeros, 1),
        "deflate": lambda: zlib.compress(zeros, 1),
        "br": lambda: packed(BrotliWriter, zeros),
        "zstd": lambda: packed(ZstdWriter, zeros),
    }[encoding]()
    assert len(bomb) < LIMIT
    began = time.process_time()
    with pytest.raises(Undecodable) as raised:
        decode_body(bomb, {"content-encoding": encoding}, LIMIT)
    assert raised.value.reason == "too_large"
    assert time.process_time() - began < 0.5


def test_a_bomb_in_a_bomb_is_not_unfolded() -> None:
    bomb = gzip.compress(gzip.compress(bytes(1 << 30 >> 4), 9), 9)
    with pytest.raises(Undecodable, match="too_large"):
        decode_body(bomb, {"content-encoding": "gzip, gzip"}, LIMIT)


def test_chunks_are_joined() -> None:
    chunked = b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nTrailer: x\r\n\r\n"
    assert join_chunks(chunked) == b"hello world"
    assert decode_body(chunked, {"transfer-encoding": "Chunked"}, LIMIT) == b"hello world"


@pytest.mark.parametrize("encoding", ENCODED)
def test_chunks_of_an_encoded_body_are_joined_before_it_is_decoded(encoding: str) -> None:
    coded = ENCODED[encoding]
    chunked = b"".join(
        b"%x\r\n%s\r\n" % (len(coded[at : at + 99]), coded[at : at + 99]) for at in range(0, len(coded), 99)
    )
    headers = {"transfer-encoding": "chunked", "content-encoding": encoding}
    assert decode_body(chunked + b"0\r\n\r\n", headers, LIMIT) == BODY


def test_chunks_that_go_wrong_keep_what_came_before() -> None:
    assert join_chunks(b"5\r\nhello\r\nzz\r\n world") == b"hello"
    assert join_chunks(b"5\r\nhello\r\nff\r\n world") == b"hello world"
    assert join_chunks(b"5\nhello\n6\n world\n0\n\n") == b"hello world"


def test_a_body_called_chunked_that_is_not_is_taken_as_it_is() -> None:
    assert join_chunks(BODY) == BODY
    assert join_chunks(b"") == b""


def test_headers_are_read_leniently() -> None:
    response = parse_http(b"HTTP/1.0 404 Not\nContent-Type: text/html;\n charset=koi8-r\nX\nA: 1\na: 2\n\nbody\n\nmore")
    assert (response.status, response.body) == (404, b"body\n\nmore")
    assert response.headers == {"content-type": "text/html; charset=koi8-r", "x": "", "a": "2"}
    assert parse_http(b"HTTP/1.1 200\r\nA: b").status == 200
    assert parse_http(b"HTTP/2 301 \r\n\r\n").status == 301


def test_a_block_without_a_status_line_is_all_body() -> None:
    assert parse_http(BODY).body == BODY
    assert parse_http(b"") == parse_http(b"")


def test_html_is_what_is_called_so_and_looks_so() -> None:
    assert is_html("text/html; charset=x", b"anything")
    assert is_html("Application/XHTML+XML", b"<html>")
    assert is_html("", b"\n <!DOCTYPE html><html>")
    assert not is_html("", b"%PDF-1.4")
    assert not is_html("text/html", b"%PDF-1.4")
    assert not is_html("application/json", b"<html>")


RUSSIAN = "Река несёт воду многих малых ручьёв к мельнице и весь день вращает её колесо. " * 5
JAPANESE = "川は多くの小さな流れの水を水車小屋へ運び、一日中その車輪を回している。" * 5


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-8", RUSSIAN),
        ("windows-1251", RUSSIAN),
        ("koi8-r", RUSSIAN),
        ("shift_jis", JAPANESE),
        ("euc-jp", JAPANESE),
        ("iso-2022-jp", JAPANESE),
        ("utf-16-le", JAPANESE),
        ("gb18030", "河流把许多小溪的水带到磨坊，整天转动它的轮子。" * 5),
    ],
)
def test_the_charset_that_the_server_names_is_used(encoding: str, text: str) -> None:
    assert decode_text(text.encode(encoding), f'text/html; charset="{encoding}"') == text


@pytest.mark.parametrize("encoding", ["windows-1251", "shift_jis", "euc-kr"])
def test_the_charset_that_the_page_names_is_used(encoding: str) -> None:
    text = {
        "windows-1251": RUSSIAN,
        "shift_jis": JAPANESE,
        "euc-kr": "강은 많은 작은 시내의 물을 방앗간으로 나른다. " * 5,
    }[encoding]
    head = f'<html><head><meta charset="{encoding}"></head><body>'
    assert decode_text(head.encode() + text.encode(encoding), "text/html") == head + text


@pytest.mark.parametrize("encoding", ["windows-1251", "shift_jis", "euc-jp"])
def test_a_charset_that_nobody_names_is_detected(encoding: str) -> None:
    text = RUSSIAN if encoding == "windows-1251" else JAPANESE
    assert decode_text(f"<p>{text}".encode(encoding), "text/html") == f"<p>{text}"


def test_valid_utf8_is_utf8_whatever_it_is_called() -> None:
    assert decode_text(RUSSIAN.encode(), "text/html; charset=iso-8859-1") == RUSSIAN


def test_a_byte_order_mark_decides_and_goes() -> None:
    assert decode_text(b"\xef\xbb\xbf" + RUSSIAN.encode(), "text/html") == RUSSIAN
    assert (
        decode_text(b"\xff\xfe" + RUSSIAN.encode("utf-16-le"), "text/html; charset=utf-8").lstrip("\ufeff") == RUSSIAN
    )


def test_latin1_is_windows_1252_as_in_browsers() -> None:
    assert decode_text("“naïve” café – ".encode("cp1252") * 9, "text/html; charset=ISO-8859-1") == "“naïve” café – " * 9


def test_a_few_invalid_bytes_spoil_no_more_than_themselves() -> None:
    body = RUSSIAN.encode()[:200] + b"\xff\xfe\xff" + RUSSIAN.encode()[200:]
    text = decode_text(body, "text/html; charset=utf-8")
    assert text.replace("\ufffd", "") == RUSSIAN


def test_nuls_are_removed() -> None:
    assert decode_text(b"a\0b\0\0" + RUSSIAN.encode(), "text/html") == "ab" + RUSSIAN


def test_an_unknown_charset_is_no_error() -> None:
    assert decode_text(RUSSIAN.encode("windows-1251"), "text/html; charset=klingon") == RUSSIAN
    assert decode_text(b"", "text/html; charset=") == ""
    assert decode_text(http(b"\x1b$B"), "") != ""
