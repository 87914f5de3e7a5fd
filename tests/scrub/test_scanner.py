import itertools
import re
import time

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.scrub.patterns import PLACEHOLDERS, RULES
from ray_jobs.scrub.scanner import Scanner, Span, with_free

ALL = tuple(PLACEHOLDERS)
SCANNER = Scanner(ALL)


def scrubbed(text: str, kinds: tuple[str, ...] = ALL) -> str:
    data = text.encode()
    scanner = SCANNER if kinds == ALL else Scanner(kinds)
    for span in reversed(scanner.find(data)):
        data = data[: span.start] + PLACEHOLDERS[span.kind] + data[span.end :]
    return data.decode()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Write to jane.doe+news@mail.example.co.uk, please.", "Write to <EMAIL>, please."),
        ("<a.b@c.de>;x_y@d-e.org.", "<<EMAIL>>;<EMAIL>."),
        ("почта: иван ivan@xn--80ak6aa92e.xn--p1ai", "почта: иван <EMAIL>"),
        ("ask me@site.com...or him", "ask <EMAIL>...or him"),
        ("邮箱foo@bar.com。", "邮箱<EMAIL>。"),
        ("from 93.184.216.34:80 to 10.0.0.1", "from <IP>:80 to 10.0.0.1"),
        ("http://93.184.216.34/index, 8.8.4.200/24", "http://<IP>/index, <IP>/24"),
        ("at 2a00:1450:4001:82b::200e.", "at <IP>."),
        ("2001:67c:2564:a119::77/64", "<IP>/64"),
        ("SSN 460-89-9847.", "SSN <SSN>."),
        ("call (541) 714-1388 or 541.714.1388", "call <PHONE> or <PHONE>"),
        ("Tel.: +41 (0)96 471 07 95, Fax +49-89-636-48018", "Tel.: <PHONE>, Fax <PHONE>"),
        ("01.84.17.61.18 / 0151 15071635", "<PHONE> / <PHONE>"),
        ("345-899-3560x4587", "<PHONE>"),
        ("Phone:\n60-56-85-91\n", "Phone:\n<PHONE>\n"),
        ("9472 7916 (mobile)", "<PHONE> (mobile)"),
    ],
)
def test_personal_data_gives_way_to_its_placeholder(text: str, wanted: str) -> None:
    assert scrubbed(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "logo@2x.png, @handle, a@b, user@-bad-.com",
        "foo@localhost and a@b.c",
        "127.0.0.1 10.1.2.3 172.16.0.9 192.168.1.1 169.254.1.1 100.64.0.1 224.0.0.251 255.255.255.255 0.0.0.0",
        "documentation's 192.0.2.1, 198.51.100.7, 203.0.113.9 and 2001:db8::1",
        "fe80::1 ::1 fc00::17 ff02::1 std::string a::b 12:34:56 2024:10:11",
        "256.1.1.1 1.2.3.4.5 93.184.216.034 v93.184.216.34 section 14.3.4.2 of 93.184.216",
        "000-12-3456 666-12-3456 900-12-3456 123-00-4567 123-45-0000 1123-45-6789 123-45-67890 12-123-45-6789",
        "2024-05-01 01.05.2024 12:30:00 2019-2020",
        "ISBN 978-3-16-148410-0, ISBN 0-306-40615-2, 10.1000/182",
        "100 200 3000 400 500 6000",
        "pi = 3.14159265358979, 1,234,567,890 and 2^31 = 2147483648",
        "call 2024-05-01 or the phone 3310",
        "commit 4f2b8c1 build 20240501123000",
    ],
)
def test_what_only_looks_personal_stays(text: str) -> None:
    assert scrubbed(text) == text


@pytest.mark.parametrize("first", range(0, 1000, 37))
def test_security_numbers_are_those_that_can_be_issued(first: int) -> None:
    text = f"{first:03d}-45-6789"
    assert (scrubbed(text, ("ssn",)) == "<SSN>") == (0 < first < 900 and first != 666)


def test_only_the_kinds_asked_for_are_replaced() -> None:
    text = "a@example.org 93.184.216.34 460-89-9847 (541) 714-1388"
    assert scrubbed(text, ("email",)) == "<EMAIL> 93.184.216.34 460-89-9847 (541) 714-1388"
    assert scrubbed(text, ("ip", "phone")) == "a@example.org <IP> 460-89-9847 <PHONE>"
    assert scrubbed(text, ()) == text


def test_scrubbing_twice_changes_nothing_more() -> None:
    text = "a@example.org 93.184.216.34 460-89-9847 (541) 714-1388 +41 96 471 07 95 tel 9472 7916"
    assert scrubbed(scrubbed(text)) == scrubbed(text)


# What the patterns are made of, so that fuzz meets their edges.
WORDS = b"@ . - / ( ) + : :: _ x ext. a F com 2001: 0 1 12 078 541 714 1388 255. 93.184. tel Phone no office"
pieces = st.sampled_from([b" ", b"\n", b"\xc3\xa9", *WORDS.split()])
fuzz = st.lists(pieces | st.binary(max_size=2), max_size=40).map(b"".join)


@settings(deadline=None, max_examples=400)
@given(fuzz)
def test_re2_finds_what_re_finds(text: bytes) -> None:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    for rule in RULES:
        theirs = [match.span(rule.group) for match in re.finditer(rule.pattern, text)]
        ours = [match.span(rule.group) for match in re2.compile(rule.pattern, options=options).finditer(text)]
        assert ours == theirs, rule.pattern


@settings(deadline=None)
@given(fuzz)
def test_the_common_pass_hides_no_match_and_spans_do_not_overlap(text: bytes) -> None:
    spans = SCANNER.find(text)
    assert all(one.end <= other.start for one, other in itertools.pairwise(spans))
    for rule in RULES:
        for match in re.finditer(rule.pattern, text):
            start, end = match.span(rule.group)
            if rule.check(text, start, end):
                assert any(span.start < end and start < span.end for span in spans)


def test_time_is_linear_in_hostile_text() -> None:
    hostile = [
        b"a" * 5_000_000,
        b"4" * 1_000_000,
        b"1." * 200_000,
        b"2001:" * 80_000,
        b"0 12 " * 80_000,
        b"tel " * 100_000,
        b"a@" * 200_000,
        b"4111 " * 80_000,
        b"GB82WEST" * 50_000,
        b"eyJhbGciOiJIUzI1NiJ9.eyJ" * 16_000,
        b"-----BEGIN PRIVATE KEY-----" * 15_000,
        b"-----BEGIN PRIVATE KEY-----\n" + b"MIIEvQIBADANBgkqhkiG9w0BAQEFAASC " * 12_000,
    ]
    began = time.perf_counter()
    for text in hostile:
        SCANNER.find(text)
    # `re` takes minutes for the first alone.
    assert time.perf_counter() - began < 20


@pytest.mark.parametrize("odd", [b"", b"\x00", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf0\x9f\x98", b"\xe6\x97\xa5"])
def test_odd_bytes_stay_and_hide_nothing(odd: bytes) -> None:
    data = [
        b"a@example.org",
        b"93.184.216.34",
        b"460-89-9847",
        b"(541) 714-1388",
        b"4111111111111111",
        b"DE89370400440532013000",
    ]
    text = (odd + b"\n").join(data) + odd
    assert [text[span.start : span.end] for span in SCANNER.find(text)] == data
    assert SCANNER.find(odd) == []


bounds = st.sets(st.integers(0, 40), max_size=16).map(sorted)


@given(bounds, bounds)
def test_later_spans_stay_where_they_overlap_none_of_the_earlier(first: list[int], second: list[int]) -> None:
    spans = [Span(a, b, "email") for a, b in zip(first[::2], first[1::2], strict=False)]
    later = [Span(a, b, "phone") for a, b in zip(second[::2], second[1::2], strict=False)]
    free = [one for one in later if not any(one.start < span.end and span.start < one.end for span in spans)]
    assert with_free(spans, later) == sorted(spans + free)
