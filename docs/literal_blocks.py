"""Blocks of a docstring that stand further in, tables and equations, stay as they are on the site.

Markdown would put their lines into one paragraph. mkdocstrings loads this file, see mkdocs.yml.
"""

import re
from typing import Any

import griffe

# Of Google's style: what follows is not free text.
SECTION = re.compile(r"(Args|Attributes|Returns|Yields|Raises|Examples?):$")


class LiteralBlocks(griffe.Extension):
    """Makes code of what is indented in the free text of docstrings."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Read the docstring of a module, class or function."""
        if obj.docstring is not None:
            obj.docstring.value = literal(obj.docstring.value)


def literal(text: str) -> str:
    """Return a docstring whose indented paragraphs are code to Markdown: four spaces in."""
    lines, free, inside = [], True, False
    for line in text.splitlines():
        free = free and not SECTION.match(line)
        starts = not inside and (not lines or not lines[-1])
        inside = free and line.startswith("  ") and (starts or inside)
        lines.append(f"    {line}" if inside else line)
    return "\n".join(lines)
