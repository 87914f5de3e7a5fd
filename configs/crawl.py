"""Where a crawl comes from, and which of its pages become documents.

A person writes a `CrawlSource` into a recipe. Before any key is computed `ray_jobs.crawl.pins.pin` turns it into
a `SnapshotSpec`, which names every byte that the run will read, so that a crawl that changed upstream has other keys.
"""

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from configs.base import Spec
from configs.files import PinnedFile, check_url

CrawlName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
"""Becomes the first part of every document's id, so it holds no slash."""

# The 176 labels of fastText's lid.176 (https://fasttext.cc/docs/en/language-identification.html).
LANGUAGES = frozenset(
    """
    af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb ckb co cs cv cy da de
    diq dsb dty dv el eml en eo es et eu fa fi fr frr fy ga gd gl gn gom gu gv he hi hif hr hsb ht hu hy ia id ie
    ilo io is it ja jbo jv ka kk km kn ko krc ku kv kw ky la lb lez li lmo lo lrc lt lv mai mg mhr min mk ml mn mr
    mrj ms mt mwl my myv mzn nah nap nds ne new nl nn no oc or os pa pam pfl pl pms pnb ps pt qu rm ro ru rue sa sah
    sc scn sco sd sh si sk sl so sq sr su sv sw ta te tg th tk tl tr tt tyv ug uk ur uz vec vep vi vls vo wa war wuu
    xal xmf yi yo yue zh
    """.split()  # noqa: SIM905 - a list of 176 literals reads worse
)


class CommonCrawl(Spec):
    """One of Common Crawl's snapshots, or a mirror that has its layout."""

    crawl: CrawlName
    """The crawl's name, such as CC-MAIN-2026-43 (https://commoncrawl.org/overview lists them)."""
    format: Literal["warc", "wet"] = "warc"
    """`warc`: pages as fetched, main text is extracted here. `wet`: Common Crawl's own text, boilerplate and all."""
    num_files: int | None = Field(default=None, ge=1)
    """The first so many of the listing's archives; None takes all (about 90,000 of 1 GB for `warc`)."""
    base_url: str = "https://data.commoncrawl.org"
    """Where the layout begins. `s3://commoncrawl` needs AWS credentials; HTTPS needs none."""
    allowed_hosts: tuple[str, ...] = ()
    """Other hosts to which the server may redirect. Without them a redirect must stay on its host."""

    _base_url = field_validator("base_url")(check_url)


class ArchiveUrls(Spec):
    """WARC, WET or ARC files by name."""

    name: CrawlName = "archives"
    """First part of the documents' ids; crawls that are to be told apart need different names."""
    urls: tuple[str, ...] = Field(min_length=1)
    """URLs (http, https, s3, file) or file paths. `file` and `s3` may be globs: /data/*.warc.gz, s3://bucket/a/*.wet.gz."""
    allowed_hosts: tuple[str, ...] = ()
    """Other hosts to which a server may redirect. Without them a redirect must stay on its host."""

    @field_validator("urls")
    @classmethod
    def _urls(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(check_url(url) for url in urls)


class Documentation(Spec):
    """The crawl that needs no network: documentation that the Python environment carries, served on 127.0.0.1."""

    num_operations: int = Field(default=1500, ge=0)
    """Pages from botocore's service models, one an operation (it has 19,000); 1 in 25 has a second URL too."""
    num_docstring_pages: int = Field(default=500, ge=0)
    """Pages from docstrings of the standard library and of installed packages, one a module (of about 1,100)."""
    num_files: int = Field(default=16, ge=1)
    """WARC files that they are crawled into."""

    @model_validator(mode="after")
    def _pages(self) -> "Documentation":
        if self.num_operations + self.num_docstring_pages < self.num_files:
            raise ValueError(
                f"{self.num_operations} + {self.num_docstring_pages} pages do not fill {self.num_files} files: "
                "lower num_files or raise num_operations"
            )
        return self


class CrawlSource(Spec):
    """Where the crawl comes from: exactly one of these, written as

    snapshot:
      common_crawl: {crawl: CC-MAIN-2026-43, format: wet, num_files: 8}
    """

    common_crawl: CommonCrawl | None = None
    archives: ArchiveUrls | None = None
    documentation: Documentation | None = None

    @property
    def needs_network(self) -> bool:
        """Whether pinning asks a server, so that the pin is kept; what is installed here is looked at each time."""
        return self.documentation is None

    @model_validator(mode="after")
    def _one(self) -> "CrawlSource":
        named = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(named) != 1:
            raise ValueError(
                f"a crawl has one source, here are {len(named)} ({', '.join(named) or 'none'}): give exactly one of "
                "common_crawl, archives, documentation"
            )
        return self


class PinnedArchives(Spec):
    kind: Literal["archives"] = "archives"
    files: tuple[PinnedFile, ...]
    allowed_hosts: tuple[str, ...] = ()


class PinnedDocumentation(Spec):
    kind: Literal["documentation"] = "documentation"
    generator: int
    """Version of the page generator's code."""
    versions: dict[str, str]
    """Of Python, of zlib (which makes the archives' bytes) and of each package whose documentation is used."""
    num_operations: int
    num_docstring_pages: int
    num_files: int


class SnapshotSpec(Spec):
    """What `pin` found: the identity of everything that enters the graph."""

    node: ClassVar[str] = "snapshot"
    version: ClassVar[int] = 1

    crawl: CrawlName
    content: Annotated[PinnedArchives | PinnedDocumentation, Field(discriminator="kind")]
    max_quarantined_share: float = Field(default=0.0, ge=0, le=1)
    """Share of archives that may fail to be made before the node fails."""


DOMAIN = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]")


def check_languages(languages: tuple[str, ...]) -> tuple[str, ...]:
    """In order and once each, or a ValueError where lid.176 has no such language."""
    unknown = sorted(set(languages) - LANGUAGES)
    if unknown:
        raise ValueError(
            f"lid.176 has no language {', '.join(map(repr, unknown))}: use its codes, such as 'en', 'de' or 'zh'"
        )
    return tuple(sorted(set(languages)))


LABEL = re.compile(r"[a-z]{3}_[A-Z][a-z]{3}")
"""How GlotLID and others name a language: by ISO 639-3 and ISO 15924, as in eng_Latn."""


class LanguageModel(Spec):
    """A fastText classifier that tells languages in place of lid.176, such as GlotLID (arXiv:2310.16248).

    language_model:
      url: https://huggingface.co/cis-lmu/glotlid/resolve/main/model.bin
      sha256: …
      allowed_hosts: [cas-bridge.xethub.hf.co]

    Each process that filters holds it in memory: GlotLID's 1.7 GB.
    """

    url: str
    """http, https, s3, file, or a path that every worker sees."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    allowed_hosts: tuple[str, ...] = ()
    """Other hosts to which its server may redirect."""

    _url = field_validator("url")(check_url)


Share = Annotated[float, Field(ge=0, le=1)]


class GopherQuality(Spec):
    """Rules of Rae et al. 2021 (arXiv:2112.11446), appendix A.1.1; null turns one off.

    Those for the number of words and of symbols are fields of the filter itself.
    """

    languages: tuple[str, ...] = ("en",)
    """lid.176 codes of the languages that are judged by these rules, which were made for English; empty judges all."""
    min_mean_word_length: float | None = Field(default=3.0, ge=0)
    """In characters."""
    max_mean_word_length: float | None = Field(default=10.0, ge=0)
    max_bullet_lines: Share | None = 0.9
    """Most lines, of all, that begin with a bullet."""
    max_ellipsis_lines: Share | None = 0.3
    """Most lines, of all, that end in an ellipsis."""
    min_alphabetic_words: Share | None = 0.8
    """Fewest words, of all, with a letter."""
    min_stop_words: int | None = Field(default=2, ge=0, le=8)
    """Fewest of: the, be, to, of, and, that, have, with."""

    _languages = field_validator("languages")(check_languages)


class GopherRepetition(Spec):
    """Rules of Rae et al. 2021 (arXiv:2112.11446), table A1; null turns one off. Each is the most that is kept."""

    max_duplicate_lines: Share | None = 0.3
    """Lines that stood before, of all."""
    max_duplicate_line_characters: Share | None = 0.2
    """Characters in them, of those of all lines."""
    max_duplicate_paragraphs: Share | None = 0.3
    max_duplicate_paragraph_characters: Share | None = 0.2
    max_top_2_grams: Share | None = 0.2
    """Characters in the most frequent 2-gram of words, of all of the document's."""
    max_top_3_grams: Share | None = 0.18
    max_top_4_grams: Share | None = 0.16
    max_duplicate_5_grams: Share | None = 0.15
    """Characters in 5-grams of words that stood before, of all of the document's."""
    max_duplicate_6_grams: Share | None = 0.14
    max_duplicate_7_grams: Share | None = 0.13
    max_duplicate_8_grams: Share | None = 0.12
    max_duplicate_9_grams: Share | None = 0.11
    max_duplicate_10_grams: Share | None = 0.1


class C4(Spec):
    """Rules after Raffel et al. 2020 (arXiv:1910.10683), section 2.2; null turns one off.

    C4 drops lines without punctuation, of few words or with "javascript" out of pages. Nothing is cut out of pages
    here; what they are of all lines can be a threshold, which has no value in the paper and is off.
    """

    min_sentences: int | None = Field(default=5, ge=0)
    max_lorem_ipsum: int | None = Field(default=0, ge=0)
    """Most places with "lorem ipsum"."""
    max_curly_brackets: int | None = Field(default=0, ge=0)
    """Most of them, which mark program code."""
    min_punctuated_lines: Share | None = None
    max_few_word_lines: Share | None = None
    """Most lines, of all, with fewer than 3 words."""
    max_javascript_lines: Share | None = None


class FineWeb(Spec):
    """Rules of Penedo et al. 2024 (arXiv:2406.17557), section 3.6; null turns one off."""

    min_punctuated_lines: Share | None = 0.12
    """Fewest lines, of all, that end in punctuation."""
    max_duplicate_line_characters: Share | None = 0.1
    """Most characters in lines that stood before, of those of all lines. The paper's; datatrove's default is .01."""
    max_short_lines: Share | None = 0.67
    """Most lines, of all, of fewer than 30 characters."""
    max_newlines_per_word: float | None = Field(default=0.3, ge=0)
    """Not in the paper: a default of datatrove, its authors' code. Blank lines do not count."""


class RefinedWebLines(Spec):
    """Line corrections of Penedo et al. 2023 (arXiv:2306.01116), appendix G.2, before anything is measured.

    Made for English; a line in a script without spaces has as many words as characters.
    """

    max_uppercase: Share | None = 0.5
    """Lines with more capitals, of all characters but white space, are removed. The paper says "mainly"."""
    remove_numbers: bool = True
    """Lines of digits, with what stands between them."""
    remove_counters: bool = True
    """Lines such as "3 likes"."""
    remove_single_words: bool = True
    max_edited_words: int = Field(default=10, ge=0)
    """Of the longest lines out of which "Sign in" (at the beginning), "Read more" (at the end) or "items in cart"
    (anywhere) is cut."""
    max_removed_words: Share | None = 0.05
    """Most words, of all, that a document may lose in this way."""


class FilterSpec(Spec):
    """Which pages of a crawl become documents. `ray_jobs.crawl.rules` says whose the defaults are."""

    node: ClassVar[str] = "filter"
    version: ClassVar[int] = 4

    languages: tuple[str, ...] = ("en",)
    """Codes of lid.176 of the languages wanted; with a `language_model` its own labels too, such as arz_Arab. Empty
    keeps every language."""
    min_language_score: float = Field(default=0.65, ge=0, le=1)
    """Least probability that the model gives to the language it found."""
    language_model: LanguageModel | None = None
    """Null takes lid.176. Languages are called by lid.176's codes in any case (`eng_Latn` is `en`), and by the model's
    label where lid.176 has no code; the audit has the label, too."""
    second_opinion: Literal["py3langid"] | None = None
    """Asked for its language of each text; the audit has it, the counters how often both agree. Decides nothing, and
    takes 2.3 times as long as lid.176."""
    min_words: int = Field(default=50, ge=0)
    min_tokens: int = Field(default=50, ge=0)
    """Estimated as a token in 4 bytes of UTF-8, since no tokenizer is trained yet: see `Statistics.num_tokens`."""
    max_words: int = Field(default=100_000, ge=1)
    max_symbol_ratio: float = Field(default=0.1, ge=0)
    """Most hash signs, or ellipses, a word."""
    max_bytes: int = Field(default=5 * 2**20, ge=1024)
    """Largest page, in bytes after its content encodings are undone. Decoding stops there, so a gzip bomb costs no
    more. Common Crawl cuts pages at 5 MiB."""
    extraction: Literal["fast", "quality"] = "fast"
    """Who finds a page's main text. `fast`: resiliparse (4-gram F1 .932 on 43 pages with gold). `quality`: trafilatura
    (.968), at 13 times the cost."""
    max_quarantined_share: float = Field(default=0.05, ge=0, le=1)
    """Share of archives that may be unreadable (gone or changed upstream) before the node fails."""

    url_blocklist: tuple[str, ...] = ()
    """Domains, such as example.com, whose pages are dropped, and those of all hosts below them."""
    gopher_quality: GopherQuality | None = GopherQuality()
    """Null turns the group off, here and below."""
    gopher_repetition: GopherRepetition | None = GopherRepetition()
    c4: C4 | None = None
    """Off: it drops every page with a curly bracket, and with that most of those about programs."""
    fineweb: FineWeb | None = FineWeb()
    refinedweb_lines: RefinedWebLines | None = None
    """Off: the only group that changes texts. Takes as long as fast extraction."""

    @field_validator("languages")
    @classmethod
    def _sorted_languages(cls, languages: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(languages)))

    @field_validator("url_blocklist")
    @classmethod
    def _url_blocklist(cls, domains: tuple[str, ...]) -> tuple[str, ...]:
        lowered = sorted({domain.lower().rstrip(".") for domain in domains})
        wrong = [domain for domain in lowered if not DOMAIN.fullmatch(domain)]
        if wrong:
            raise ValueError(
                f"{', '.join(map(repr, wrong))} is no domain: write hosts alone, such as 'example.com', without "
                "scheme, port, path or wildcard, and those beyond ASCII in their xn-- form"
            )
        return tuple(lowered)

    @model_validator(mode="after")
    def _languages(self) -> "FilterSpec":
        has_labels = self.language_model is not None
        check_languages(tuple(one for one in self.languages if not (has_labels and LABEL.fullmatch(one))))
        return self

    @model_validator(mode="after")
    def _words(self) -> "FilterSpec":
        if self.min_words > self.max_words:
            raise ValueError(f"min_words {self.min_words} is above max_words {self.max_words}: lower it")
        return self
