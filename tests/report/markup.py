"""What a page is made of, by the standard library's parser."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "hr", "img", "input", "base", "wbr"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    children: list["Element | str"] = field(default_factory=list)

    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text() for child in self.children)

    def all(self, tag: str | None = None) -> list["Element"]:
        found = [self] if tag in {None, self.tag} else []
        return found + [e for child in self.children if isinstance(child, Element) for e in child.all(tag)]

    def with_class(self, name: str) -> list["Element"]:
        return [element for element in self.all() if name in element.attributes.get("class", "").split()]


class _Parser(HTMLParser):
    """Fails at the first element that is closed wrongly or not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice: {attrs}"
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}> at {self.getpos()}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def parsed(html: str) -> Element:
    parser = _Parser()
    parser.feed(html)
    parser.close()
    assert parser.open == [parser.root], f"not closed: {[element.tag for element in parser.open[1:]]}"
    return parser.root
