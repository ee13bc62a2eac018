"""Markdown from templates, which lie in the folder ``templates`` of the room that they belong to."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template


@cache
def template(room: str, name: str) -> Template:
    """The template called ``name`` of a room of the harness, such as ``reports``."""
    environment = Environment(
        loader=PackageLoader(f"benchmarks.{room}"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        autoescape=False,  # Markdown, from our own cards, configs and files
    )
    return environment.get_template(name)
