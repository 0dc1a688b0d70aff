"""Formulas as MathML, which browsers show without scripts or fonts from elsewhere."""

import re

from docutils.nodes import SkipNode
from latex2mathml.converter import convert

THIN_SPACE = '<mspace width="0.17em" />'


def to_mathml(latex, display):
    """Return a formula with the spacing that TeX gives to names of functions and to relations."""
    mathml = convert(latex, display=display).replace("<mi>&#x0007E;</mi>", "<mo>&#x0223C;</mo>")
    for name in ("log", "exp"):
        mathml = re.sub(rf"<mi>{name}</mi>(?=<m(i|n|frac|sub)\b)", f"<mi>{name}</mi>{THIN_SPACE}", mathml)
        mathml = re.sub(rf"(</m(?:i|sub|frac)>)(<mi>{name}</mi>)", rf"\1{THIN_SPACE}\2", mathml)
    # A prime is raised already: as a superscript it would be raised twice, and small.
    mathml = re.sub(r"<msup>(<mi>.</mi>)<mi>(&#x0203[23];)</mi></msup>", r'\1<mo lspace="0" rspace="0">\2</mo>', mathml)
    return mathml.replace("<mo>&#x02223;</mo>", '<mo lspace="0.28em" rspace="0.28em">&#x02223;</mo>')


def write_inline(translator, node):
    """Write a formula within a line."""
    translator.body.append(to_mathml(node.astext(), "inline"))
    raise SkipNode


def write_block(translator, node):
    """Write a formula on a line of its own."""
    translator.body.append(f'<div class="formula">{to_mathml(node.astext(), "block")}</div>')
    raise SkipNode


def setup(app):
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (write_inline, None), (write_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
