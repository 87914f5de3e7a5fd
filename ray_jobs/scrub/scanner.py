"""Finds personal data in a text: all rules of the wanted kinds, in time linear in the text."""

from bisect import bisect_left
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import re2

from ray_jobs.scrub.patterns import RULES


class Span(NamedTuple):
    """text[start:end] is personal data of that kind. A tuple, for a page may hold hundreds."""

    start: int
    end: int
    kind: str


class Scanner:
    """The rules of the given kinds, compiled. One pass of all of them together finds which apply to a text at all."""

    def __init__(self, kinds: Iterable[str]):
        wanted = set(kinds)
        self._rules = [rule for rule in RULES if rule.kind in wanted]
        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1  # a byte is a character, as for `re` on bytes
        options.max_mem = 64 << 20
        self._patterns = [re2.compile(rule.pattern, options=options) for rule in self._rules]
        self._any = re2.Set.SearchSet(options)
        for rule in self._rules:
            self._any.Add(rule.pattern)
        self._any.Compile()

    def find(self, text: bytes) -> list[Span]:
        """What is personal in the text, in order, without overlaps."""
        if not self._rules:
            return []
        spans: list[Span] = []
        for number in sorted(self._any.Match(text) or ()):
            rule = self._rules[number]
            kind, check, group = rule.kind, rule.check, rule.group
            found = [match.span(group) for match in self._patterns[number].finditer(text)]
            mine = [Span(a, b, kind) for a, b in found if check(text, a, b) and (not spans or is_free(a, b, spans))]
            if spans and mine:
                spans += mine
                spans.sort()  # two runs in order: sorted in linear time
            else:
                spans = spans or mine
        return spans


def is_free(start: int, end: int, spans: list[Span]) -> bool:
    """Whether text[start:end] overlaps none of the sorted spans, such as those of earlier rules."""
    after = bisect_left(spans, (start,))
    return not (after > 0 and spans[after - 1][1] > start) and not (after < len(spans) and spans[after][0] < end)


@lru_cache(maxsize=4)
def scanner(kinds: tuple[str, ...]) -> Scanner:
    """One scanner a process: its automata are built once and grow as they meet text."""
    return Scanner(kinds)
