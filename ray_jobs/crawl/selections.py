"""trafilatura's XPath expressions, evaluated from memory: the same elements in a fraction of the time.

trafilatura chooses what to keep and what to discard by expressions such as `.//*[self::div or self::p][re:test(@class,
'sidebar|menu|…')]`. lxml runs each `re:test` in Python, some twenty for every element, which was a third of an
extraction. But such a predicate looks at nothing but the element's own name and attributes, and pages repeat those:
whether a `<div class="menu-item">` is chosen is found out once, by the expression itself, and looked up from then on.
So nothing here knows what the expressions say. Where predicates look further than at the element, lxml evaluates the
expression whenever those before them choose anything.
"""

import re
from collections.abc import Iterable, MutableSequence
from dataclasses import dataclass
from typing import Any

from lxml import etree

REGULAR_EXPRESSIONS = "http://exslt.org/regular-expressions"
# Of 400 pages of one crawl the expressions of one list remember some 5,000 kinds of elements.
MAX_REMEMBERED = 1 << 17

_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_OWN = re.compile(
    r"(?:\s|@[\w-]+|self::[\w-]+|(?:re:test|contains|starts-with|translate|not)(?=\()|\b(?:or|and)\b|[(),|=!])*"
)
"""What a predicate may consist of, its strings taken out, if the element's name and attributes shall decide it. No
number: `[1]` is a position."""
_NAMES = re.compile(r"\s*(?:self::([\w-]+)\s*(?:or\s+|$))+")
_ANY = "*"


@dataclass(frozen=True)
class Step:
    """The part of an expression that an element's own name and attributes decide."""

    path: str
    """An expression that gives the element itself, or nothing."""
    tags: tuple[str, ...]
    """Names that an element may have; `*` for any."""
    attributes: tuple[str, ...]
    """Those that are looked at."""
    ordered: bool
    """Whether it matters which of them was written first: a function takes the first of `@id|@class`."""
    whole: bool
    """Whether the expression is nothing else."""


def own_step(path: str) -> Step | None:
    """The longest start of `.//*[…][…]` that an element decides by itself; None where there is none."""
    bare = _QUOTED.sub(lambda quoted: "'" + "x" * (len(quoted.group()) - 2) + "'", path)
    start = re.match(r"\s*\(?\s*\.//\*(?=\[)", bare)
    if start is None:
        return None
    end, predicates = start.end(), []
    while bare[end : end + 1] == "[":
        closed = _closing(bare, end)
        predicate = bare[end + 1 : closed]
        if _OWN.fullmatch(_QUOTED.sub("", predicate)) is None:
            break
        predicates.append(predicate)
        end = closed + 1
    if not predicates:
        return None
    attributes = sorted(set(re.findall(r"@([\w-]+)", _QUOTED.sub("", "".join(predicates)))))
    named = _NAMES.fullmatch(predicates[0])
    return Step(
        "self::*" + path[start.end() : end],
        tuple(re.findall(r"self::([\w-]+)", predicates[0])) if named else (_ANY,),
        tuple(attributes),
        ordered="|" in _QUOTED.sub("", "".join(predicates)),
        whole=not bare[end:].strip() and "(" not in start.group(),
    )


def _closing(bare: str, opening: int) -> int:
    """Where the bracket at `opening` is closed."""
    depth = 0
    for place in range(opening, len(bare)):
        depth += {"[": 1, "]": -1}.get(bare[place], 0)
        if depth == 0:
            return place
    raise AssertionError(f"lxml has compiled {bare}, whose brackets do not close")


class Remembered:
    """An expression that gives the same elements as the one it is made of, in the same order."""

    def __init__(self, expression: etree.XPath, step: Step):
        self.path = expression.path
        self._expression, self._step = expression, step
        self._decide = etree.XPath(step.path, namespaces={"re": REGULAR_EXPRESSIONS})
        self._decided: dict[tuple[str | None, ...], bool] = {}

    def __call__(self, tree: etree._Element) -> list[etree._Element]:
        step, decided = self._step, self._decided
        chosen = []
        for element in tree.iterdescendants(*step.tags):
            kind = (element.tag, *map(element.get, step.attributes))
            if step.ordered:
                kind += tuple(element.keys())
            known = decided.get(kind)
            if known is None:
                if len(decided) >= MAX_REMEMBERED:
                    decided.clear()
                known = decided[kind] = bool(self._decide(element))
            if known:
                chosen.append(element)
        return chosen if step.whole or not chosen else self._expression(tree)


def remembered(expression: etree.XPath) -> "etree.XPath | Remembered":
    """The same expression, from memory where an element decides a part of it by itself."""
    step = own_step(expression.path) if "re:test" in expression.path else None
    return expression if step is None else Remembered(expression, step)


def remember_all(lists: Iterable[MutableSequence[Any]]) -> None:
    """Puts remembered expressions into lists of compiled ones, which their users hold by reference."""
    for expressions in lists:
        expressions[:] = [remembered(expression) for expression in expressions]
