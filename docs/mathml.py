"""Equations of the site as MathML, made while it is built: no page needs a script or a network."""

import html
import re

MATH = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.+?)\\[)\]]</\1>', re.S)
TEXT = re.compile(r"\\text\w*{[^}]*}")


def on_page_content(content, **_):
    """Replace what pymdownx.arithmatex marks."""
    from latex2mathml.converter import convert

    def mathml(found: re.Match) -> str:
        display = "inline" if found[2] == "(" else "block"
        # The converter takes what stands in text as it is.
        words = TEXT.sub(lambda text: text[0].replace(r"\_", "_"), html.unescape(found[3]))
        return convert(words, display=display)

    return MATH.sub(mathml, content)
