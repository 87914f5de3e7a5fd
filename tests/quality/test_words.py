import re
import unicodedata
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.toxicity import MILD_INSULTS
from ray_jobs.files.scripts import UNSPACED
from ray_jobs.quality import words
from ray_jobs.quality.prefilter import Prefilter
from ray_jobs.quality.words import Matcher, folded
from tests.memory import peak_bytes

TERMS = ["ass", "blow job", "s & m", "as", "Straße", "café", "馬鹿", "馬", "개새끼", "กู", "โง่", "मूर्ख", "gerizekâlı"]


@settings(max_examples=300)
@given(st.lists(st.sampled_from([*"aIiß\u0301\u0307 ıİͅΣ각ᄀ\n", "x" * 5]) | st.characters()), st.binary(max_size=4))
def test_text_folded_in_pieces_is_text_folded_whole(characters: list[str], odd: bytes) -> None:
    text = "".join(characters).encode(errors="surrogatepass") + odd + "".join(characters[::-1]).encode(errors="replace")
    whole = folded(text)
    with pytest.MonkeyPatch.context() as patch:
        for size in (1, 2, 7):
            patch.setattr(words, "FOLDED_AT_ONCE", size)
            assert folded(text) == whole


def test_memory_for_a_long_text_is_a_small_multiple_of_it() -> None:
    matcher = Matcher(["idiot", "café"])
    line = "Größe zählt, aber nicht immer: 日本語 und mehr.\n".encode()
    text = line * (30_000_000 // len(line)) + b"idiot"
    matcher.measure(line + b"idiot")
    assert peak_bytes(lambda: matcher.measure(text)) < 6 * len(text)


def names(terms: list[str], text: str) -> list[str]:
    matcher = Matcher(terms)
    return [matcher.terms[place] for place in matcher.find(text.encode())]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("An ASS, an assassin; bypass!", ["ass"]),
        ("ass-hat (ass) ass", ["ass", "ass", "ass"]),
        ("ass_x ass1 åass", []),
        ("blow \n\t job", ["blow job"]),
        ("blowjob, blow jobs, blow", []),
        ("s & m, xs & m", ["s & m"]),
        ("STRASSE and straße", ["Straße", "Straße"]),
        ("cafe\u0301 cafe\u0301s ca\u0301fe", ["café"]),
        ("これは馬鹿げた馬", ["馬鹿", "馬"]),
        ("개새끼들이 그개새끼", ["개새끼"]),
        ("กูไป กู้ภัย", ["กู"]),
        ("เขาโง่มาก", ["โง่"]),
        ("मूर्ख मूर्खता", ["मूर्ख"]),
        ("GERİZEKÂLI gerizekâli", ["gerizekâlı", "gerizekâlı"]),
        ("", []),
    ],
)
def test_terms_are_found_as_whole_words_of_their_script(text: str, found: list[str]) -> None:
    assert names(TERMS, text) == found


def test_a_share_counts_letters_and_digits() -> None:
    found = Matcher(["blow job", "馬鹿"]).measure("Blow job, 2 馬鹿 馬鹿!".encode())
    assert found.share == pytest.approx((7 + 2 + 2) / 12)
    assert found.num_terms == 2
    assert Matcher(["x"]).measure("… !".encode()).share == 0


def test_bytes_that_are_no_utf8_part_words() -> None:
    assert Matcher(["ass"]).measure(b"\xff ass\xed\xa0\x80 b\xffass \xf0\x9f").num_terms == 1
    assert Matcher(["ass"]).find(b"ass\xff b\xc3ass") == [0, 0]


def test_no_term_finds_nothing() -> None:
    for terms in ([], ["", " "]):
        assert Matcher(terms).measure(b"some text").num_terms == 0


def test_every_mild_insult_is_found_in_its_own_company() -> None:
    for terms in MILD_INSULTS.values():
        assert names(list(terms), " ".join(terms)) == list(terms)
        assert names(list(terms), ", ".join(term.upper() for term in terms)) == list(terms)


# Dotless i, I with a dot, long s, Kelvin's and Ångström's signs, sharp s of both cases, a ligature, a titlecase letter.
ODD = [0x131, 0x130, 0x17F, 0x212A, 0x212B, 0xDF, 0x1E9E, 0xFB01, 0x1C5]


def test_no_character_hides_a_term_from_the_prefilter() -> None:
    """Of characters that fold to others: the term that each folds to, alone and beside another letter."""
    changed = [code for code in (*range(0x80, 0xD800), *range(0xE000, 0x30000)) if term_of(code) != chr(code)]
    for code in (*ODD, *changed[::60]):
        for before, behind in (("", ""), ("", "x"), ("x", "")):
            term = before + term_of(code) + behind
            text = f"a {before}{chr(code)}{behind} b".encode()
            assert Prefilter([term], folded).may_hold_one(text), (hex(code), term)


def test_the_prefilter_passes_over_texts_without_a_term() -> None:
    prefilter = Prefilter(["ass", "blow job", "馬"], folded)
    for text in ("A class of skills, passé", "Größe", "blow jobs", "水車"):
        assert not prefilter.may_hold_one(text.replace("ß", "ss").encode())


def term_of(code: int) -> str:
    return folded(chr(code).encode()).decode()


# The plain way: regular expressions over the characters, tried from the longest term on at every place.
HANGUL = "\u1100-\u11ff\u3130-\u318f\uac00-\ud7ff"


def kind(character: str) -> str:
    if unicodedata.category(character)[0] == "M":
        return "mark"
    if UNSPACED.match(character) and unicodedata.category(character)[0] not in "PS":
        return "unspaced"
    if re.match(f"[{HANGUL}]", character):
        return "hangul"
    return "spaced" if unicodedata.category(character)[0] in "LN" or character == "_" else "apart"


def base_kind(text: str, end: int) -> str:
    """Of the last character before `end` that is no mark."""
    for character in reversed(text[:end]):
        if kind(character) != "mark":
            return kind(character)
    return "apart"


def joined(left: str, right: str) -> bool:
    return right == "mark" or (left in {"spaced", "hangul"} and right in {"spaced", "hangul"})


def plainly(terms: list[str], text: str) -> Iterator[str]:
    forms = {folded(term.encode()).decode(): term for term in sorted(terms, reverse=True)}
    text = folded(text.encode()).decode()
    at = 0
    while at < len(text):
        best = None
        for term in forms:
            match = re.compile(r"\s+".join(map(re.escape, term.split(" ")))).match(text, at)
            if not match or joined(base_kind(text, at), kind(text[at])):
                continue
            end = match.end()
            behind = kind(text[end]) if end < len(text) else "apart"
            last = base_kind(text, end)
            fits = behind != "mark" if last == "hangul" else not joined(last, behind)
            if fits and (best is None or end > best[0]):
                best = (end, forms[term])
        if best:
            yield best[1]
        at = best[0] if best else at + 1


parts = st.sampled_from([*TERMS, *"as sablow job馬鹿개들กู้โ่é ß1_&-. \n", "e\u0301", "\u0301", "Ass", "İ"])


@settings(deadline=None, max_examples=150)
@given(st.lists(st.sampled_from(TERMS), max_size=6, unique=True), st.lists(parts, max_size=12).map("".join))
def test_matches_are_those_of_a_plain_search(terms: list[str], text: str) -> None:
    assert names(terms, text) == list(plainly(terms, text))
    assert Matcher(terms).measure(text.encode()).num_terms == len(set(plainly(terms, text)))
