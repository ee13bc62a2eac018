"""A report as a page: the same Markdown, in one HTML file without scripts, for light and dark and narrow screens."""

from __future__ import annotations

from html import escape

from markdown_it import MarkdownIt

STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --page: #ffffff; --line: #d1d9e0; --pale: #f6f8fa; --link: #0550ae; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --page: #0d1117; --line: #3d444d; --pale: #161b22; --link: #79c0ff; }
}
body { margin: 0 auto; max-width: 64rem; padding: 1rem; color: var(--ink); background: var(--page);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1, h2 { border-bottom: 1px solid var(--line); padding-bottom: .2em; }
a { color: var(--link); }
img { max-width: 100%; height: auto; }
.table { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .9rem; overflow-wrap: normal; }
th, td { border: 1px solid var(--line); padding: .25rem .6rem; text-align: left; vertical-align: top; }
th, tr:nth-child(even) td { background: var(--pale); }
sub { vertical-align: baseline; font-size: .85em; }
blockquote { margin: 1rem 0; padding: 0 1rem; border-left: .25rem solid var(--line); }
pre { background: var(--pale); padding: .8rem; overflow-x: auto; }
summary { cursor: pointer; margin: .5rem 0; }
"""


def page(markdown: str) -> str:
    """The HTML page of a report's Markdown, whose first line is its title.

    HTML in the Markdown is kept, for ``<details>`` and line breaks: whatever comes from cards or settings must have
    been made :func:`~benchmarks.reports.text.literal`.
    """
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    tokens = parser.parse(markdown)
    title = next(token.content for token in tokens if token.type == "inline")
    body = parser.renderer.render(tokens, parser.options, {})
    body = body.replace("<table>", '<div class="table"><table>').replace("</table>", "</table></div>")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )
