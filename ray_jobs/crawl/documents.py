"""One record of an archive → one document, or the reason why there is none."""

from collections.abc import Iterable
from dataclasses import dataclass

from configs.crawl import FilterSpec
from ray_jobs.crawl.extractor import Extractor, Lost
from ray_jobs.crawl.lines import Corrected, correct_lines
from ray_jobs.crawl.payload import Undecodable, decode_body, decode_text, is_html, media_type, parse_http
from ray_jobs.crawl.record import Record
from ray_jobs.crawl.rules import SOURCES, Verdict, judge
from ray_jobs.crawl.scores import Scores, measure
from ray_jobs.crawl.text import main_text

# Why a record is no document, before any score is measured. `value` in the audit is the HTTP status or the size, where
# there is one.
REASONS = {
    "record_truncated": "the archive ends within the record",
    "record_damaged": "the record cannot be decompressed, or its header not be parsed",
    "record_length_wrong": "the record's length reaches into those that follow it",
    "too_large": "beyond max_bytes, before or after its content encodings are undone",
    "encoding_damaged": "nothing can be decoded of its content encoding",
    "revisit": "the page is in an earlier archive",
    "continuation": "a segment of a record of another archive",
    "unknown_type": "the record says not what it is",
    "http_status": "the server's answer is not 200",
    "not_html": "neither HTML nor text that a crawler extracted",
    "tangled_html": "elements nested, or attributes in a tag, by the thousand",
    "too_many_tags": "more markup than extraction takes on",
    "timeout": "extraction takes longer than it may, tried twice",
    "extractor_died": "extraction runs out of memory or crashes, tried twice",
    "no_text": "nothing is left after extraction",
}


@dataclass(slots=True)
class Document:
    """A record's text and what became of it. `text` is empty where there is none to judge."""

    record: Record
    num_bytes: int
    """Of the page, its content encodings undone; 0 where it was not decoded."""
    text: str
    scores: Scores | None = None
    verdict: Verdict | None = None
    """None where it is kept."""
    corrected: Corrected | None = None
    """What line corrections did to the text, where they are asked for."""

    @property
    def source(self) -> str | None:
        """Whose rule it broke, or what its reason means."""
        if self.verdict is None:
            return None
        return SOURCES.get(self.verdict.rule) or REASONS[self.verdict.rule]


def document_of(record: Record, spec: FilterSpec, extractor: Extractor | None = None) -> Document:
    """Decodes one record and extracts its text, which is still to be judged; or says why it has none.

    Args:
        extractor: None has resiliparse extract it here.
    """
    if record.fault is not None:
        return _dropped(record, record.fault)
    match record.type:
        case "response":
            response = parse_http(record.block)
            if response.status not in {None, 200}:
                return _dropped(record, "http_status", response.status, 200)
            headers, body = response.headers, response.body
            content_type = headers.get("content-type", "")
        case "resource" | "conversion":
            headers, body, content_type = {}, record.block, record.content_type
        case "revisit" | "continuation":
            return _dropped(record, record.type)
        case _:
            return _dropped(record, "unknown_type")

    is_extracted = record.type == "conversion" and media_type(content_type) == "text/plain"
    try:
        body = decode_body(body, headers, spec.max_bytes)
    except Undecodable as error:
        return _dropped(record, error.reason, len(body))
    if not is_extracted and not is_html(content_type, body):
        return _dropped(record, "not_html", num_bytes=len(body))
    characters = decode_text(body, content_type)
    try:
        text = characters if is_extracted else extractor.text_of(characters) if extractor else main_text(characters)
    except Lost as error:
        return _dropped(record, error.reason, error.value, error.threshold, len(body))
    if text is None:
        return _dropped(record, "tangled_html", num_bytes=len(body))
    text = text.strip()
    if not text:
        return _dropped(record, "no_text", num_bytes=len(body))
    if spec.refinedweb_lines is None:
        return Document(record, len(body), text)
    corrected = correct_lines(text, spec.refinedweb_lines)
    return Document(record, len(body), corrected.text, corrected=corrected)


def judge_all(documents: Iterable[Document], spec: FilterSpec) -> None:
    """Measures and judges documents that have a text."""
    measurable = [document for document in documents if document.verdict is None]
    removed = [document.corrected.removed_words if document.corrected else None for document in measurable]
    scores = measure([document.text for document in measurable], spec, removed)
    for document, measured in zip(measurable, scores, strict=True):
        document.scores = measured
        document.verdict = judge(measured, document.record.url, spec)
        if document.verdict is None and not document.text:
            document.verdict = Verdict("no_text", None, None)


def _dropped(
    record: Record,
    reason: str,
    value: float | None = None,
    threshold: float | None = None,
    num_bytes: int = 0,
) -> Document:
    return Document(record, num_bytes, "", verdict=Verdict(reason, value, threshold))
