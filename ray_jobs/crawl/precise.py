"""The main text of a page, by trafilatura: what `extraction: quality` runs in the extractor's worker."""

from trafilatura import extract


def precise_text(html: str) -> str | None:
    """The page's main text, a paragraph or table row a line; None where trafilatura finds none.

    On 43 pages with gold main text the 4-gram F1 of these options is .968. Without `favor_precision` it is .963,
    without tables .965, with comments .968 but with less precision, with `fast` .965 or, and with precision too, .923.
    """
    return extract(html, favor_precision=True, include_comments=False, include_tables=True)
