"""Names and addresses: the model's part by a tiny model with fixed rules, written to a folder, where spaCy is there."""

import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.scrub import Names, ScrubSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.store import Store, open_store
from ray_jobs.scrub import names
from ray_jobs.scrub.addresses import Piece, addresses
from ray_jobs.scrub.names import NameFinder, decoded, pieces
from tests.dedup.corpus import computed, document_table, published, rows

RELEASE = "en_ruled-1.0"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A model that knows a few names."""
    spacy = pytest.importorskip("spacy", reason="needs spaCy: pip install 'headrace[ner]'")
    made = spacy.blank("en", meta={"name": "ruled", "version": "1.0"})
    rules = made.add_pipe("entity_ruler", name="ner")
    persons = ("Jane Doe", "Zoë 😀", "Ann Lee\n Bo Li\n")
    for label, words in (("GPE", "Springfield"), ("FAC", "Main Street"), *(("PERSON", name) for name in persons)):
        rules.add_patterns([{"label": label, "pattern": words}])
    made.to_disk(tmp_path / "model")
    return str(tmp_path / "model")


def scrubbed(store: Store, texts: list[str | bytes], model: str, **fields: Any) -> Checkpoint:
    spec = ScrubSpec(names=Names(model=model, release=RELEASE, **fields))
    return computed(spec, {"documents": published(store, [document_table(texts)])}, store)


def texts_of(checkpoint: Checkpoint) -> list[str]:
    return [row["text"] for row in rows(checkpoint, "documents.parquet")]


NEEDED = "Jane Doe, 12 Main Street, Springfield. jane@example.org. Jane Doe likes Springfield."
NOT_NEEDED = "Jane Doe likes Springfield."


def test_names_give_way_in_the_documents_that_hold_another_kind(store: Store, model: str) -> None:
    checkpoint = scrubbed(store, [NEEDED, NOT_NEEDED], model)
    assert texts_of(checkpoint) == [
        "<PERSON>, <ADDRESS>. <EMAIL>. <PERSON> likes Springfield.",
        NOT_NEEDED,
    ]
    counters = checkpoint.manifest.counters
    assert (counters["replaced.person"], counters["replaced.address"], counters["documents_changed"]) == (2, 1, 1)
    assert [(row["person"], row["address"]) for row in rows(checkpoint, "audit.parquet")] == [(2, 1), (0, 0)]
    assert checkpoint.manifest.metrics["replaced"] == 4


def test_all_documents_and_single_kinds_can_be_asked_for(store: Store, model: str) -> None:
    assert texts_of(scrubbed(store, [NEEDED, NOT_NEEDED], model, documents="all", replace=("person",))) == [
        "<PERSON>, 12 Main Street, Springfield. <EMAIL>. <PERSON> likes Springfield.",
        "<PERSON> likes Springfield.",
    ]


def test_documents_in_other_languages_are_not_read(store: Store, model: str) -> None:
    table = document_table([NEEDED, NEEDED])
    table = table.set_column(2, "language", pa.array(["de", "en"]))
    spec = ScrubSpec(names=Names(model=model, release=RELEASE))
    german, english = texts_of(computed(spec, {"documents": published(store, [table])}, store))
    assert german == NEEDED.replace("jane@example.org", "<EMAIL>")
    assert "<PERSON>" in english


def test_offsets_are_of_bytes_whatever_stands_before(model: str) -> None:
    finder = NameFinder(Names(model=model, release=RELEASE))
    for before in (b"", "日本語 😀 é\n".encode(), b"\xff\xfe \xed\xa0\x80 \x00 "):
        text = before + "Zoë 😀 met Jane Doe\n".encode() + b"\xe6\x97"
        assert [text[span.start : span.end].decode() for span in finder.find(text)] == ["Zoë 😀", "Jane Doe"]


def test_a_long_text_is_read_in_pieces_and_gives_the_same(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    finder = NameFinder(Names(model=model, release=RELEASE))
    text = (NEEDED + "\n\n" + "Zoë 😀 walks.\n\n").encode() * 40
    whole = finder.find(text)
    monkeypatch.setattr(names, "PIECE_CHARACTERS", 150)
    assert finder.find(text) == whole
    assert len(whole) == 160


def test_names_end_with_their_lines(store: Store, model: str) -> None:
    assert texts_of(scrubbed(store, ["a@example.org\nAnn Lee\n Bo Li\nsaid"], model)) == [
        "<EMAIL>\n<PERSON>\n <PERSON>\nsaid"
    ]


def test_what_the_patterns_found_stays_theirs(store: Store, model: str) -> None:
    assert texts_of(scrubbed(store, ["mail Jane Doe@example.org"], model)) == ["mail Jane <EMAIL>"]


def test_two_runs_leave_the_same_bytes_and_the_release_is_part_of_the_key(tmp_path: Path, model: str) -> None:
    made = [scrubbed(open_store(tmp_path / name), [NEEDED], model) for name in ("one", "two")]
    assert len({checkpoint.manifest.content_digest for checkpoint in made}) == 1
    assert made[0].manifest.payload["spec"]["names"]["release"] == RELEASE


def test_another_release_and_an_absent_model_are_refused_with_what_to_do(store: Store, model: str) -> None:
    source = published(store, [document_table([NEEDED])])
    with pytest.raises(ValueError, match=rf"is {RELEASE} here and the recipe asks for en_ruled-2\.0: install that"):
        computed(ScrubSpec(names=Names(model=model, release="en_ruled-2.0")), {"documents": source}, store)
    with pytest.raises(ValueError, match=r"no spaCy model 'en_core_nowhere': install it with `python -m spacy"):
        computed(ScrubSpec(names=Names(model="en_core_nowhere")), {"documents": source}, store)


def test_a_model_without_entities_is_refused(tmp_path: Path) -> None:
    spacy = pytest.importorskip("spacy", reason="needs spaCy: pip install 'headrace[ner]'")
    spacy.blank("en", meta={"name": "ruled", "version": "1.0"}).to_disk(tmp_path / "blank")
    with pytest.raises(ValueError, match="finds no names: take a model"):
        NameFinder(Names(model=str(tmp_path / "blank"), release=RELEASE))


def test_where_spacy_is_absent_the_error_says_how_to_install_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)
    names.finder.cache_clear()
    source = published(store, [document_table([NEEDED])])
    with pytest.raises(ValueError, match=r"pip install 'headrace\[ner\]'"):
        computed(ScrubSpec(names=Names()), {"documents": source}, store)


@given(st.binary(max_size=60) | st.text(max_size=30).map(str.encode))
def test_every_character_knows_its_bytes(text: bytes) -> None:
    characters, places = decoded(text)
    assert places[0] == 0 and places[-1] == len(text) and len(places) == len(characters) + 1
    characters.encode()  # nothing is left that UTF-8 cannot say
    for character, start, end in zip(characters, places[:-1], places[1:], strict=True):
        said = text[start:end]
        assert said == character.encode() or (character == "\ufffd" and len(said) == 1)


@given(st.text(st.sampled_from("ab \n"), max_size=200), st.integers(1, 20))
def test_pieces_are_all_of_the_text_and_none_is_too_long(text: str, most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(names, "PIECE_CHARACTERS", most)
        bounds = list(pieces(text))
    assert "".join(text[first:end] for first, end in bounds) == text
    assert all(0 < end - first <= most for first, end in bounds)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("at [12] [Main Street], [Springfield], now", ["12 Main Street, Springfield"]),
        ("send to 6750 Koskikatu 25 Apt. 864, [Springfield] 64677.", ["6750 Koskikatu 25 Apt. 864, Springfield 64677"]),
        ("> 935 69 Gordon Terrace\n> Suite 828\n> [Springfield] 89800", None),
        ("[Springfield], OH 45501 is far", ["Springfield, OH 45501"]),
        ("the capital of [Springfield] in 1998", []),
        ("[Springfield] 3, [Shelbyville] was second, 29 points", []),
        ("[Springfield] sold 2,812 cars for $4000 and 5% of 1200.50", []),
        ("no place here, 12345 only", []),
    ],
)
def test_an_address_takes_a_number_and_says_that_it_is_one(text: str, wanted: list[str] | None) -> None:
    plain, entities = "", []
    for part in text.replace("]", "[").split("["):
        if part in {"Main Street", "Springfield", "Shelbyville"}:
            label = "FAC" if "Street" in part else "GPE"
            entities.append(Piece(len(plain), len(plain) + len(part), label))
        plain += part
    if wanted is None:  # all of it but the first mark
        wanted = [plain[2:]]
    assert [plain[start:end] for start, end in addresses(plain, entities)] == wanted


def test_addresses_take_linear_time() -> None:
    began = time.perf_counter()
    for text in (
        "12 " * 7_000,
        "A" * 20_000,
        "12 " + "A" * 20_000 + " 12",
        "Aa. " * 5_000,
        "apt " * 5_000,
        "1-" * 10_000,
    ):
        addresses(text, [Piece(0, 1, "GPE")])
    assert time.perf_counter() - began < 2
