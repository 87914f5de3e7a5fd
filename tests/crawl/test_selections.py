"""Expressions from memory against lxml's own evaluation, and whole texts against trafilatura as it comes."""

import itertools
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from lxml import etree, html

from ray_jobs.crawl.selections import REGULAR_EXPRESSIONS, Remembered, own_step, remembered
from tests.crawl.gold import real_pages

pytest.importorskip("trafilatura")

SEEDS = range(30)
TAGS = ("div", "p", "span", "section", "article", "ul", "form", "o:p", "h1", "main")
VALUES = (
    "sidebar",
    "post-body",
    "article-content",
    "comment-list",
    "menu",
    "teaser",
    "hidden",
    "main",
    "a\x01b",
    "x",
    "",
)


def compiled(path: str) -> etree.XPath:
    return etree.XPath(path, namespaces={"re": REGULAR_EXPRESSIONS})


def expressions() -> list[etree.XPath]:
    """trafilatura's, as lxml evaluates them: another test may have put remembered ones into its lists."""
    from trafilatura import xpaths

    lists = [value for value in vars(xpaths).values() if isinstance(value, list)]
    return [compiled(expression.path) for values in lists for expression in values if not isinstance(expression, str)]


def random_page(seed: int) -> html.HtmlElement:
    chooser = random.Random(seed)

    def element(depth: int) -> str:
        attributes = [("id", chooser.choice(VALUES)), ("class", chooser.choice(VALUES)), ("style", "display:none")]
        chooser.shuffle(attributes)
        written = "".join(f' {name}="{value}"' for name, value in attributes[: chooser.randrange(4)])
        tag = chooser.choice(TAGS)
        inner = "".join(element(depth + 1) for _ in range(chooser.randrange(4))) if depth < 6 else "text"
        return f"<{tag}{written}>{inner}<!-- x --></{tag}> tail "

    return html.fromstring("<html><body>" + "".join(element(0) for _ in range(20)) + "</body></html>")


def same(trees: list[html.HtmlElement]) -> int:
    """How many elements were chosen, by either."""
    pairs = [(expression, remembered(expression)) for expression in expressions()]
    num_remembered = sum(isinstance(ours, Remembered) for _, ours in pairs)
    assert num_remembered >= 8, "the expressions that cost most are no longer understood"
    chosen = 0
    for tree in trees:
        for expression, ours in pairs:
            for context in (tree, *tree.iterchildren("*")):
                expected = expression(context)
                assert ours(context) == expected, expression.path
                chosen += len(expected)
    return chosen


def test_random_pages_give_the_same_elements_in_the_same_order() -> None:
    assert same([random_page(seed) for seed in SEEDS]) > 1000


def test_real_pages_give_the_same_elements_in_the_same_order(data_dir: Path) -> None:
    pages = itertools.islice(real_pages(data_dir), 40)
    assert same([html.fromstring(page.encode()) for _, page in pages]) > 1000


@pytest.mark.parametrize(
    "path",
    [
        ".//div[re:test(@class, 'x')]",
        ".//*[1][re:test(@class, 'x')]",
        ".//*[not(.//h1)][re:test(@class, 'x')]",
        ".//*[re:test(text(), 'x')]",
        ".//*[re:test(../@class, 'x')]",
        ".//*[re:test(@class, 'x') and position() = 1]",
        ".//*[parent::div]",
        "//*[re:test(@class, 'x')]",
    ],
)
def test_what_looks_further_than_at_the_element_is_left_to_lxml(path: str) -> None:
    assert own_step(path) is None


def test_the_step_ends_before_the_first_predicate_that_looks_further() -> None:
    step = own_step(".//*[self::div or self::p][re:test(@id|@class, 'a[1]/text()')][not(.//h1)]")
    assert step is not None
    assert (step.path, step.tags) == ("self::*[self::div or self::p][re:test(@id|@class, 'a[1]/text()')]", ("div", "p"))
    assert (step.attributes, step.ordered, step.whole) == (("class", "id"), True, False)


def test_the_first_written_of_two_attributes_decides() -> None:
    """`@id|@class` as a string is the one that comes first in the page."""
    ours = remembered(compiled(".//*[re:test(@id|@class, 'menu')]"))
    page = html.fromstring('<body><p id="menu" class="x">1</p><p class="x" id="menu">2</p></body>')
    assert [element.text for element in ours(page)] == ["1"]


AS_IT_COMES = """
import json, sys
from trafilatura import bare_extraction
from trafilatura.utils import normalize_unicode
from trafilatura.xml import xmltotxt

pages, options = json.load(sys.stdin)
bodies = [document.body if (document := bare_extraction(page, **options)) is not None else [] for page in pages]
texts = ["\\n\\n".join(filter(None, (xmltotxt(block, False).strip() for block in body))) for body in bodies]
json.dump([normalize_unicode(text) for text in texts], sys.stdout)
"""


def test_texts_are_those_of_trafilatura_as_it_comes(data_dir: Path) -> None:
    from ray_jobs.crawl.precise import OPTIONS, precise_text

    pages = [page for _, page in itertools.islice(real_pages(data_dir), 120)]
    given = json.dumps([pages, OPTIONS])
    answer = subprocess.run(
        [sys.executable, "-c", AS_IT_COMES], input=given, capture_output=True, text=True, check=True
    )
    assert [precise_text(page) or "" for page in pages] == json.loads(answer.stdout)
