"""RefinedWeb's line corrections (Penedo et al. 2023, arXiv:2306.01116, appendix G.2): leftovers of menus and counters.

The paper names the kinds of lines with an example each and not its patterns, which it calls adapted to English; those
here are ours. They are matched in whatever case.
"""

import re
from dataclasses import dataclass

from configs.crawl import RefinedWebLines
from ray_jobs.files.scripts import UNSPACED

# Each takes time linear in the line, of which a page may make one of megabytes.
NUMBER = re.compile(r"(?=\D*\d)[\d\s.,:;/+*%#()$€£¥–-]+")
COUNTER = re.compile(
    r"[+~]?\d[\d.,]*\s?[km]?\+?\s*"
    r"(?:likes?|shares?|comments?|views?|followers?|following|(?:re)?tweets?|(?:re)?posts?|repl(?:y|ies)|votes?|points?|"
    r"reviews?|ratings?|downloads?|subscribers?|favou?rites?|reactions?|claps?|stars?|answers?|members?)[.!]?",
    re.IGNORECASE,
)
AT_BEGINNING = re.compile(
    r"(?:sign[ -](?:in|up|out)|log[ -](?:in|out)|skip to (?:main |the )?content|jump to (?:navigation|search|content)|"
    r"back to top|share (?:this|on (?:facebook|twitter|x|linkedin)))\b[\s:|>»-]*",
    re.IGNORECASE,
)
AT_END = re.compile(
    r"\b(?:read (?:more|the full (?:story|article))|continue reading|(?:show|see|view|load) (?:more|all)|"
    r"learn more|click here)[\s.…>»)\]→]*\Z",
    re.IGNORECASE,
)
BEFORE_END = " \t:|>»([-"
"""What goes with it where it stands before it."""
ANYWHERE = re.compile(
    r"(?:\b\d{1,4} )?\bitems? in (?:your |the )?(?:cart|basket|bag)|add to (?:cart|basket|wishlist)|"
    r"your (?:cart|basket) is (?:currently )?empty",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Corrected:
    """A text without such lines."""

    text: str
    num_removed: int = 0
    """Lines."""
    num_edited: int = 0
    """Lines out of which something was cut."""
    removed_words: float = 0.0
    """Share of the words, of all that the text had, in what was removed and cut out."""


def correct_lines(text: str, spec: RefinedWebLines) -> Corrected:
    """Removes and edits lines. Blank lines stay, which set paragraphs apart."""
    kept: list[str] = []
    num_removed = num_edited = num_words = words_left = 0
    for line in text.split("\n"):
        words = count_words(line)
        num_words += words
        corrected = correct_line(line, words, spec)
        if corrected is line:
            kept.append(line)
            words_left += words
        elif corrected is None:
            num_removed += 1
        else:
            kept.append(corrected)
            num_edited += 1
            words_left += count_words(corrected)
    if num_removed + num_edited == 0:
        return Corrected(text)
    left = "\n".join(kept).strip()
    return Corrected(left, num_removed, num_edited, (num_words - words_left) / max(1, num_words))


def correct_line(line: str, num_words: int, spec: RefinedWebLines) -> str | None:
    """The line itself, what is left of it, or None where it goes."""
    if num_words == 0:
        return line
    if spec.remove_single_words and num_words == 1:
        return None
    content = line.strip()
    if spec.remove_numbers and NUMBER.fullmatch(content):
        return None
    if spec.remove_counters and COUNTER.fullmatch(content):
        return None
    if spec.max_uppercase is not None and _uppercase(content) > spec.max_uppercase:
        return None
    if num_words > spec.max_edited_words:
        return line
    left = ANYWHERE.sub("", content)
    if match := AT_BEGINNING.match(left):
        left = left[match.end() :]
    if match := AT_END.search(left):
        left = left[: match.start()].rstrip(BEFORE_END)
    if left == content:
        return line
    left = left.strip()
    return left if any(character.isalnum() for character in left) else None


def count_words(text: str) -> int:
    """As the statistics count them."""
    return len(UNSPACED.sub(" x ", text).split())


def _uppercase(content: str) -> float:
    """Share of the characters, without white space, that are capitals."""
    characters = "".join(content.split())
    return sum(map(str.isupper, characters)) / len(characters)
