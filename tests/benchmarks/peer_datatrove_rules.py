"""datatrove's filters over texts, rule by rule: prints the rules, then for each text those that drop it.

Run by decisions.py, in an environment of its own, with a file of texts (a JSON string a line) and the characters of
scripts without spaces, each of which is a word. Each filter is run once a rule, with its other rules off, so that every
rule is seen on every text and not only on what those before it leave.

datatrove's words come from spaCy or nltk, by language. Here `split_into_words` is replaced by the splitter that our
rules have: what differs then is the rules. For the same reason FineWeb's share of duplicate characters has the paper's
threshold, .1, and not datatrove's default, .01; its lines may end in a quotation mark, as they could when FineWeb was
made (its `stop_chars` had C4's); and it gets the text without blank lines, as Trafilatura gives texts to it, since it
counts each newline. C4's sentences are not compared, which are nltk's or spaCy's, nor its lines, which
datatrove cuts out of documents.
"""

import json
import re
import sys
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    c4_filters,
    fineweb_quality_filter,
    gopher_quality_filter,
    gopher_repetition_filter,
)
from datatrove.utils.logging import logger
from datatrove.utils.text import TERMINAL_PUNCTUATION

WORD = re.compile(f"[{sys.argv[2]}]|[^\\s{sys.argv[2]}]+")
BLANK_LINES = re.compile(r"\n\s*\n")
QUOTATION_MARKS = "\"'”’»」』"
QUALITY = {
    "min_words": "min_doc_words",
    "max_words": "max_doc_words",
    "gopher_min_word_length": "min_avg_word_length",
    "gopher_max_word_length": "max_avg_word_length",
    "symbol_ratio": "max_symbol_word_ratio",
    "gopher_bullet_lines": "max_bullet_lines_ratio",
    "gopher_ellipsis_lines": "max_ellipsis_lines_ratio",
    "gopher_alphabetic_words": "max_non_alpha_words_ratio",
    "gopher_stop_words": "min_stop_words",
}
REPETITION = {
    "gopher_duplicate_lines": ("dup_line_frac", 0.3),
    "gopher_duplicate_line_characters": ("dup_line_char_frac", 0.2),
    "gopher_duplicate_paragraphs": ("dup_para_frac", 0.3),
    "gopher_duplicate_paragraph_characters": ("dup_para_char_frac", 0.2),
    "gopher_top_2_grams": ("top_n_grams", ((2, 0.2),)),
    "gopher_top_3_grams": ("top_n_grams", ((3, 0.18),)),
    "gopher_top_4_grams": ("top_n_grams", ((4, 0.16),)),
    "gopher_duplicate_5_grams": ("dup_n_grams", ((5, 0.15),)),
    "gopher_duplicate_6_grams": ("dup_n_grams", ((6, 0.14),)),
    "gopher_duplicate_7_grams": ("dup_n_grams", ((7, 0.13),)),
    "gopher_duplicate_8_grams": ("dup_n_grams", ((8, 0.12),)),
    "gopher_duplicate_9_grams": ("dup_n_grams", ((9, 0.11),)),
    "gopher_duplicate_10_grams": ("dup_n_grams", ((10, 0.1),)),
}
QUALITY_OFF = dict.fromkeys(QUALITY.values())
REPETITION_OFF = {
    **dict.fromkeys(("dup_line_frac", "dup_line_char_frac", "dup_para_frac", "dup_para_char_frac")),
    "top_n_grams": (),
    "dup_n_grams": (),
}
C4_OFF = {
    "remove_citations": False,
    "filter_no_terminal_punct": False,
    "min_num_sentences": -1,
    "min_words_per_line": -1,
    "max_word_length": -1,
    "filter_lorem_ipsum": False,
    "filter_javascript": False,
    "filter_curly_bracket": False,
    "filter_policy": False,
}
FINEWEB_OFF = {"line_punct_thr": -1.0, "short_line_thr": 2.0, "char_duplicates_ratio": 2.0, "new_line_ratio": 1e9}
FINEWEB = {
    "fineweb_punctuated_lines": {"line_punct_thr": 0.12},
    "fineweb_short_lines": {"short_line_thr": 0.67},
    "fineweb_duplicate_line_characters": {"char_duplicates_ratio": 0.1},
    "fineweb_newlines_per_word": {"new_line_ratio": 0.3},
}


def rules() -> dict:
    """A filter for each of our rules that datatrove has too."""
    defaults = {name: getattr(GopherQualityFilter(), name) for name in QUALITY_OFF}
    return {
        **{rule: GopherQualityFilter(**{**QUALITY_OFF, name: defaults[name]}) for rule, name in QUALITY.items()},
        **{
            rule: GopherRepetitionFilter(**{**REPETITION_OFF, name: value})
            for rule, (name, value) in REPETITION.items()
        },
        "c4_lorem_ipsum": C4QualityFilter(**{**C4_OFF, "filter_lorem_ipsum": True}),
        "c4_curly_brackets": C4QualityFilter(**{**C4_OFF, "filter_curly_bracket": True}),
        **{rule: fineweb(**{**FINEWEB_OFF, **settings}) for rule, settings in FINEWEB.items()},
        # All of a group together, as they are run.
        "gopher_quality": GopherQualityFilter(),
        "gopher_repetition": GopherRepetitionFilter(),
        "fineweb": fineweb(char_duplicates_ratio=0.1),
    }


def fineweb(**settings) -> FineWebQualityFilter:
    return FineWebQualityFilter(stop_chars=(*TERMINAL_PUNCTUATION, *QUOTATION_MARKS), **settings)


def drops(rule, text: str) -> bool:
    if isinstance(rule, FineWebQualityFilter):
        text = BLANK_LINES.sub("\n", text)
    verdict = rule.filter(Document(text=text, id="0"))
    return not (verdict[0] if isinstance(verdict, tuple) else verdict)


if __name__ == "__main__":
    logger.remove()
    last: dict[str, list[str]] = {}  # the same text comes once a rule

    def split_into_words(text: str, language: str = "") -> list[str]:
        if text not in last:
            last.clear()
            last[text] = WORD.findall(text)
        return last[text]

    for module in (gopher_quality_filter, gopher_repetition_filter, fineweb_quality_filter, c4_filters):
        if hasattr(module, "split_into_words"):
            module.split_into_words = split_into_words
    filters = rules()
    print(json.dumps(list(filters)))
    with Path(sys.argv[1]).open() as lines:
        for line in lines:
            text = json.loads(line)
            print(json.dumps([name for name, rule in filters.items() if drops(rule, text)]))
