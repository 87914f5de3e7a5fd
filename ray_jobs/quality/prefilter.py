"""One regular expression that most texts without a term fail: what may hold a term is then looked at exactly.

RE2 goes through a text several times as fast as it can be folded, but its `(?i)` folds characters one by one, knows no
canonical forms, and its `\\b` sets apart words of ASCII only. So the expression is made to find too much: whatever
`words.Matcher` could find, and every character of which its folding makes something else than RE2's.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache

import re2

# Characters beyond are neither folded nor composed.
_END = 0x30000
# Syllables' parts, which NFC joins though they are no marks.
_JAMO = "\\x{1100}-\\x{11ff}"
_ASCII_WORD = re.compile(r"[a-z0-9_]")


class Prefilter:
    """Of folded terms."""

    def __init__(self, terms: Sequence[str], fold: Callable[[bytes], bytes]):
        options = re2.Options()
        options.case_sensitive, options.max_mem = False, 128 << 20
        space = f"[{''.join(_escaped(code) for code in range(_END) if chr(code).isspace())}]+"
        patterns = []
        for term in terms:
            # A word of ASCII stands apart for RE2 wherever it does for us.
            begin, end = (r"\b" if _ASCII_WORD.match(character) else "" for character in (term[0], term[-1]))
            patterns.append(begin + space.join(re2.escape(part) for part in term.split(" ")) + end)
        self._pattern = re2.compile("|".join([f"(?-i:[{_specials(fold)}{_JAMO}])", *patterns]), options=options)

    def may_hold_one(self, text: bytes) -> bool:
        return self._pattern.search(text) is not None


@cache
def _specials(fold: Callable[[bytes], bytes]) -> str:
    """A class of the characters that fold to another one than RE2 thinks, to none or several, or to one of ASCII; and
    of marks, which join with what stands before them."""
    options = re2.Options()
    options.case_sensitive = False
    found = []
    for code in (*range(0x80, 0xD800), *range(0xE000, _END)):
        character = chr(code)
        folded = fold(character.encode()).decode()
        if unicodedata.category(character)[0] == "M":
            found.append(code)
        elif folded != character:
            is_one = len(folded) == 1 and not folded.isascii()
            if not is_one or not re2.fullmatch(re2.escape(folded), character, options=options):
                found.append(code)
    return "".join(_escaped(code) for code in found)


def _escaped(code: int) -> str:
    return f"\\x{{{code:x}}}"
