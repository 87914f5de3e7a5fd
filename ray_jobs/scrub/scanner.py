"""Finds personal data in a text: all rules of the wanted kinds, in time linear in the text."""

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
            # One span at a time: a text may hold millions of matches, of which the check keeps few.
            places = (match.span(group) for match in self._patterns[number].finditer(text))
            spans = with_free(spans, [Span(start, end, kind) for start, end in places if check(text, start, end)])
        return spans


def with_free(spans: list[Span], later: list[Span]) -> list[Span]:
    """The spans and those later ones that overlap none of them, in order, as both lists are."""
    if not spans or not later:
        return spans or later
    free = []
    others = iter(spans)
    other: Span | None = next(others)
    for span in later:
        while other is not None and other.end <= span.start:
            other = next(others, None)
        if other is None or span.end <= other.start:
            free.append(span)
    return sorted(spans + free)  # two runs in order: in linear time


@lru_cache(maxsize=4)
def scanner(kinds: tuple[str, ...]) -> Scanner:
    """One scanner a process: its automata are built once and grow as they meet text."""
    return Scanner(kinds)
