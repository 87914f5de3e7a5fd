"""Finds personal data in a text: all rules of the wanted kinds, in time linear in the text."""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import re2

from ray_jobs.scrub.patterns import RULES


@dataclass(frozen=True, order=True)
class Span:
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
            found = (match.span(rule.group) for match in self._patterns[number].finditer(text))
            spans += [Span(a, b, rule.kind) for a, b in found if rule.check(text, a, b) and _is_free(a, b, spans)]
            spans.sort()
        return spans


def _is_free(start: int, end: int, spans: list[Span]) -> bool:
    """Whether text[start:end] overlaps none of the sorted spans of earlier rules."""
    after = bisect_left(spans, start, key=lambda one: one.start)
    return not (after > 0 and spans[after - 1].end > start) and not (after < len(spans) and spans[after].start < end)


@lru_cache(maxsize=4)
def scanner(kinds: tuple[str, ...]) -> Scanner:
    """One scanner a process: its automata are built once and grow as they meet text."""
    return Scanner(kinds)
