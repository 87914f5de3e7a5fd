"""Scanner, which is RE2's and passes over rules that cannot match, finds what the same rules find under `re`."""

import random
import re
from collections import Counter

from ray_jobs.scrub.patterns import PLACEHOLDERS, RULES
from ray_jobs.scrub.scanner import Scanner, Span

NUM_DOCUMENTS = 2_500

FRAGMENTS = [
    b"jane.doe+news@mail.example.co.uk",
    b"a@xn--80ak6aa92e.xn--p1ai",
    b"93.184.216.34",
    b"10.0.0.1",
    b"2a00:1450:4001:82b::200e",
    b"460-89-9847",
    b"(541) 714-1388",
    b"541.714.1388 x12",
    b"+41 (0)96 471 07 95",
    b"01.84.17.61.18",
    b"Tel.: 9498777106",
    b"21 284 698 2548 (office)",
    b"4012 8888 8888 1881",
    b"5555-5555-5555-4444",
    b"378282246310005",
    b"3056 930902 5904",
    b"card 4222222222222",
    b"card 6205 5000 0000 0000 004",
    b"DE89 3704 0044 0532 0130 00",
    b"DE89\xc2\xa03704\xc2\xa00044\xc2\xa00532\xc2\xa00130\xc2\xa000",
    b"4012\xc2\xa08888\xc2\xa08888\xc2\xa01881",
    b"GB29NWBK60161331926819",
    b"fr1420041010050500013m02606",
    b"MT84MALT011000012345MTLCAST001S",
    b"AKIA" + b"Q3EGRJ7XNZ2B5VTK",
    b"ghp_" + b"a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8",
    b"xoxb-" + b"123456789012-1234567890123-aB3dE6gH9jK2",
    b"sk_live_" + b"a1B2c3D4e5F6g7H8i9J0k1L2",
    b"AIza" + b"a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q_-",
    b"sk-proj-" + b"a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q_-",
    b"hf_" + b"a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7",
    b"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.a1B2c3D4e5F6g7H8i9J0",
    b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\n"
    b"a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7\nab==\n-----END RSA PRIVATE KEY-----",
]
BETWEEN = [b"", b" ", b"  ", b"\n", b"\x0b", b",", b".", b"-", b"/", b"=", b"#", b"@", b":", b"\x00"]
BETWEEN += [b"\xff", b"\xc3\xa9", b"\xc2\xa0", b"\xe2\xa0", b"\xed\xa0\x80", b"\xe6\x97", b"word", b"_", b"7", b"2001"]


def mutated(fragment: bytes, chance: random.Random) -> bytes:
    data = bytearray(fragment)
    for _ in range(chance.choice([0, 0, 1, 1, 2, 4])):
        place = chance.randrange(len(data) + 1)
        match chance.randrange(6):
            case 0:
                del data[place : place + chance.choice([1, 1, 4])]
            case 1:
                data[place:place] = chance.choice(BETWEEN)
            case 2:
                data[place : place + 1] = bytes([chance.randrange(256)])
            case 3:
                data[place : place + 1] = b"%d" % chance.randrange(10)
            case 4:
                data = data.swapcase()
            case 5:
                data[place:place] = data[place : place + chance.randrange(12)]
    return bytes(data)


def document(chance: random.Random) -> bytes:
    pieces = []
    for _ in range(chance.randrange(1, 9)):
        match chance.randrange(12):
            case 0:
                pieces.append(chance.randbytes(chance.randrange(30)))
            case 1:
                length = chance.choice([9, 16, 19, 40, 1_000])
                pieces.append(b"".join(b"%d" % chance.randrange(10) for _ in range(length)))
            case 2:
                pieces.append(b" ".join(b"%04d" % chance.randrange(10_000) for _ in range(chance.randrange(9))))
            case _:
                pieces.append(mutated(chance.choice(FRAGMENTS), chance))
        pieces.append(chance.choice(BETWEEN))
    return b"".join(pieces)


def reference(text: bytes) -> list[Span]:
    """Every rule in turn, over all of the text; bytes that a rule has are no later rule's."""
    taken = bytearray(len(text))
    spans = []
    for rule in RULES:
        found = [match.span(rule.group) for match in re.finditer(rule.pattern, text)]
        mine = [(a, b) for a, b in found if rule.check(text, a, b) and not any(taken[a:b])]
        for start, end in mine:
            taken[start:end] = b"\x01" * (end - start)
        spans += [Span(start, end, rule.kind) for start, end in mine]
    return sorted(spans)


def test_fuzzed_documents_give_the_same_spans() -> None:
    chance = random.Random(2_026)
    scanner = Scanner(tuple(PLACEHOLDERS))
    seen = Counter[str]()
    for _ in range(NUM_DOCUMENTS):
        text = document(chance)
        spans = scanner.find(text)
        assert spans == reference(text), text
        seen.update(span.kind for span in spans)
    assert all(seen[kind] >= 40 for kind in PLACEHOLDERS), seen  # or the test says nothing
