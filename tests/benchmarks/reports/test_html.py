"""The page: the same content as the Markdown, nothing from outside, and nothing that a card could smuggle in."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from golden_report import cards, text

from benchmarks.reports.html import page
from benchmarks.reports.text import literal

VOID = {"meta", "img", "br", "hr", "link", "input"}
HOSTILE = "<script>alert(1)</script> | `a` *b* _c_ [d](javascript:e) ~f~ \\ & g_h"


class Shape(HTMLParser):
    """Tags, text and whether every tag is closed in its turn."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.cells: list[int] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.cells.append(0)
        if tag in ("td", "th"):
            self.cells[-1] += 1

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("scale", ["smoke", "full"])
def test_page_is_whole_and_self_contained(scale: str) -> None:
    source = page(text(scale))
    shape = Shape(source)
    assert not shape.open
    assert not {"script", "link", "iframe"} & set(shape.tags)
    links = re.findall(r'(?:src|href)="([^"]+)"', source)
    assert links and all(link.startswith("test-golden/") for link in links)
    assert "prefers-color-scheme: dark" in source and 'name="viewport"' in source
    assert shape.tags.count("details") == text(scale).count("<details>")


def test_page_has_every_cell_of_the_markdown() -> None:
    markdown = text("smoke")
    shape = Shape(page(markdown))
    rows = [line for line in markdown.splitlines() if line.startswith("|") and not set(line) <= set("| -")]
    assert [len(re.split(r"(?<!\\)\|", line)) - 2 for line in rows if line.strip("| ")] == shape.cells[
        : len(rows)
    ]
    assert shape.tags.count("table") == len(re.findall(r"^\|( --- \|)+$", markdown, re.MULTILINE))


def test_text_from_cards_is_shown_as_it_stands() -> None:
    of = cards("smoke")
    for card in of.values():
        if card:
            card["provenance"] |= {
                "command": HOSTILE,
                "commit": HOSTILE,
                "device": f"{HOSTILE}\n\n# {HOSTILE}",
            }
            card["cost"]["uncounted_operators"] = {HOSTILE: 1}
    markdown = text("smoke", of)
    assert "<script" not in markdown
    shape = Shape(page(markdown))
    assert "script" not in shape.tags and shape.text.count(HOSTILE) >= 4


def test_literal_leaves_plain_names_alone() -> None:
    assert literal("aten::scaled_dot_product_attention 4") == "aten::scaled_dot_product_attention 4"
    assert literal("a\n<b>") == "a &lt;b&gt;"
