"""Data that comes from outside beside the crawl: reference texts, evaluation sets, labelled texts.

As with a crawl, a person writes a `…Source` into a recipe, and pinning turns it into a spec that names every byte.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from configs.base import Spec
from configs.files import PinnedFile, check_url

SourceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
"""Becomes the first part of documents' ids, or the name of an evaluation set: it holds no slash."""

TableFormat = Literal["auto", "jsonl", "csv", "parquet"]
"""`auto` goes by the file's name: .jsonl, .ndjson or .json (a JSON object a line), .csv, .parquet; all but Parquet also
with .gz or .zst at the end."""


class Urls(Spec):
    """Files by name, as a person writes them."""

    urls: tuple[str, ...] = Field(min_length=1)
    """URLs (http, https, s3, file) or file paths. `file` and `s3` may be globs: /data/*.jsonl.gz, s3://bucket/a/*.parquet."""
    allowed_hosts: tuple[str, ...] = ()
    """Other hosts to which a server may redirect. Without them a redirect must stay on its host."""

    @field_validator("urls")
    @classmethod
    def _urls(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(check_url(url) for url in urls)


class Files(Spec):
    """Files as pinning found them."""

    files: tuple[PinnedFile, ...] = Field(min_length=1)
    allowed_hosts: tuple[str, ...] = ()


class TextColumns(Spec):
    """Where in the files the texts are."""

    format: Literal["auto", "jsonl", "csv", "parquet", "text"] = "auto"
    """As for tables; `text`, which `auto` takes for .txt and .md, is UTF-8 without columns."""
    text_field: str = "text"
    """The column with the text; `a.b` is field b within a. Of no use to `text`."""
    text_unit: Literal["file", "paragraph", "line"] = "file"
    """What a document is in a file of format `text`; paragraphs stand between empty lines."""
    language: str | None = None
    """ISO 639 code of the texts' language, where they have one; nothing is done to find it out."""


class TextFiles(TextColumns, Urls):
    """Texts of which each is a document."""


class PinnedTextFiles(TextColumns, Files):
    kind: Literal["files"] = "files"


class PythonDocumentation(Spec):
    """Texts that need no network: the language reference of the standard library (`pydoc_data.topics`), and docstrings
    of packages that the documentation crawl does not read."""

    num_modules: int = Field(default=400, ge=0)
    """Documents from docstrings, one a module; the reference is 79 more."""


class PinnedPythonDocumentation(PythonDocumentation):
    kind: Literal["python_documentation"] = "python_documentation"
    generator: int
    """Version of the code that makes documents of them."""
    versions: dict[str, str]
    """Of Python and of each package whose docstrings are read."""


class ReferenceSource(Spec):
    """A corpus of good text: exactly one of these, written as

    reference:
      files: {urls: [s3://bucket/wiki/*.jsonl.zst], text_field: text, language: en}
    """

    name: SourceName = "reference"
    """First part of the documents' ids."""
    files: TextFiles | None = None
    """Texts of one's own."""
    python_documentation: PythonDocumentation | None = None
    """What needs no network."""

    @property
    def needs_network(self) -> bool:
        """Whether the pin is kept; what is installed here is looked at each time."""
        return self.files is not None

    @model_validator(mode="after")
    def _one(self) -> "ReferenceSource":
        if (self.files is None) == (self.python_documentation is None):
            raise ValueError("a reference has one source: give exactly one of files, python_documentation")
        return self


class ReferenceSpec(Spec):
    """Texts that are known to be good: what a language model of good text is trained on, and what a quality classifier
    takes for good."""

    node: ClassVar[str] = "reference"
    version: ClassVar[int] = 1

    name: SourceName = "reference"
    content: Annotated[PinnedTextFiles | PinnedPythonDocumentation, Field(discriminator="kind")]
    """What was pinned."""


class LabelColumn(Spec):
    label_field: str = "label"
    """The column with the label, which becomes a string: of whole numbers and booleans 1, 0, true, false."""


class LabelsSource(LabelColumn, TextFiles):
    """Labelled texts, written as

    labels:
      urls: [https://example.org/comments.csv]
      text_field: comment
      label_field: is_toxic
    """

    name: SourceName = "labels"
    """First part of the documents' ids."""


class LabelsSpec(LabelColumn, TextColumns, Files):
    """Texts with a label each, which classifiers are trained on."""

    node: ClassVar[str] = "labels"
    version: ClassVar[int] = 1

    name: SourceName = "labels"


class ExampleColumns(Spec):
    """A set of examples, a row each."""

    name: SourceName
    """As reports and audits call it: gsm8k."""
    format: TableFormat = "auto"
    fields: tuple[str, ...] = Field(min_length=1)
    """Columns whose text must not be trained on, such as question and answer. `a.b` is field b within a; of a list all
    elements count."""


class EvalSet(ExampleColumns, Urls):
    """One evaluation set."""


class PinnedEvalSet(ExampleColumns, Files):
    kind: Literal["files"] = "files"


class ServiceQuestions(Spec):
    """An evaluation set that needs no network: which of four operations of a cloud service is the one that botocore's
    documentation describes so."""

    num_questions: int = Field(default=200, ge=1)
    """One of a service (botocore has about 400), as far as the service has documentation enough."""


class PinnedServiceQuestions(ServiceQuestions):
    kind: Literal["service_questions"] = "service_questions"
    name: Literal["service-questions"] = "service-questions"
    generator: int
    """Version of the code that makes the questions."""
    versions: dict[str, str]
    """Of botocore."""


class EvalSetsSource(Spec):
    """Evaluation sets, written as

    eval-sets:
      sets:
        - {name: gsm8k, urls: [/data/gsm8k/*.jsonl], fields: [question, answer]}
    """

    sets: tuple[EvalSet, ...] = ()
    """In the order in which reports list them."""
    service_questions: ServiceQuestions | None = None
    """A set that needs no network."""

    @property
    def needs_network(self) -> bool:
        """Whether the pin is kept; what is installed here is looked at each time."""
        return bool(self.sets)

    @model_validator(mode="after")
    def _sets(self) -> "EvalSetsSource":
        names = [one.name for one in self.sets]
        if self.service_questions is not None:
            names.append("service-questions")
        if not names:
            raise ValueError("there is no evaluation set: write `sets:`, `service_questions: {}` or both")
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two evaluation sets are called {twice!r}: give each a name of its own")
        return self


class EvalSetsSpec(Spec):
    """Evaluation sets: what training data must not hold, and what models are later measured on."""

    node: ClassVar[str] = "eval-sets"
    version: ClassVar[int] = 1

    sets: tuple[Annotated[PinnedEvalSet | PinnedServiceQuestions, Field(discriminator="kind")], ...] = Field(
        min_length=1
    )
