"""One look for all tables, whichever page they are on.

Columns of numbers stand to the right. The stored outputs of pandas stay as the
chapters made them; on the pages metrics are called as in print, the names of
the index stand in the row of the column names, an index that only counts is
left out, texts are told from numbers (the style sheet aligns them), formulas
and code are set as in the text, and what is missing is a dash.
"""

import re
from typing import Any
from xml.etree import ElementTree as ET

from docutils import nodes
from sphinx.application import Sphinx

from lnln.evaluation.tables import NAMES

PRINTED = NAMES | {
    "missing_rate": "r",
    "dataset": "data set",
    "alpha": "α",
    "beta": "β",
    "gamma": "γ",
}
TABLE = re.compile(r'<table[^>]*class="dataframe".*?</table>', re.DOTALL)
NUMBER = re.compile(r"[-−+]?[\d.,]+(e[-+]?\d+)?( ?[±%].*)?|–")
ROUNDED_TO_ZERO = re.compile(r"-(?=0(\.0*)?(\s|$))")
LONG = 30  # letters; longer texts may take several lines
LONG_NAME = 16  # letters of a row's name; longer ones do so on a phone
LOSS = re.compile(r"\bL_(cc|adv|rec|sp)\b")
FORMULA_OR_CODE = re.compile(r"\$([^$]+)\$|`([^`]+)`")


def printed_table(markup: str) -> str:
    """A table of pandas as the book shows it.

    Args:
        markup: from `DataFrame._repr_html_`, `<table …>` to `</table>`.

    Returns:
        The same table in a frame that scrolls where the page is narrow.
    """
    table = ET.fromstring(markup.replace("&nbsp;", "\u00a0"))
    # The theme has a look of its own for the class "dataframe".
    table.attrib = {"class": "printed"}
    for cell in (c for c in table.iter() if c.tag in ("th", "td")):
        text = (cell.text or "").strip()
        cell.text = "–" if text in ("NaN", "None") else PRINTED.get(text, text)
        if NUMBER.fullmatch(cell.text):
            text = ROUNDED_TO_ZERO.sub("", cell.text)
            cell.text = re.sub("^-", "−", text)
        cell.text = LOSS.sub(r"$\\mathcal{L}_{\1}$", cell.text)
    head, body = table.find("thead"), table.find("tbody")
    assert head is not None and body is not None
    levels = sum(cell.tag == "th" for cell in body[0])
    if levels == 1 and _only_counts(head, body):
        levels = 0
        for row in (*head, *body):
            row.remove(row[0])
    _join_names(head, levels)
    _mark_texts(head, body)
    _mark_long_names(body, levels)
    for cell in body.iter():
        _set_formulas_and_code(cell)
    text = ET.tostring(table, encoding="unicode")
    return f'<div class="table-frame">{text}</div>'


def _only_counts(head: ET.Element, body: ET.Element) -> bool:
    """Whether the index has no name and says 0, 1, 2 and so on."""
    unnamed = not any(row[0].text for row in head)
    return unnamed and all(row[0].text == str(i) for i, row in enumerate(body))


def _join_names(head: ET.Element, levels: int) -> None:
    """Put the names of the index beside those of the columns."""
    for cell in head.iter("th"):
        cell.text = re.sub(" (?=[(%])", "\u00a0", cell.text or "")
        cell.text = cell.text.replace("-", "\u2011")  # no break within "Acc-7"
    for row in head:
        for cell in list(row)[:levels]:
            cell.set("class", "text")
            # What the columns are, where their names tell it anyway.
            cell.text = "" if cell.text == "metric" else cell.text
    rows = list(head)
    last = [cell.text for cell in rows[-1]]
    if len(rows) > 1 and any(last[:levels]) and not any(last[levels:]):
        for cell, name in zip(rows[-2], last[:levels], strict=False):
            cell.text = (
                f"{name}\u00a0↓ {cell.text}\u00a0→" if cell.text else name
            )
        head.remove(rows[-1])


def _mark_texts(head: ET.Element, body: ET.Element) -> None:
    """Give columns of texts the class "text", their names too."""
    rows = [[cell for cell in row if cell.tag == "td"] for row in body]
    for place, column in enumerate(zip(*rows, strict=True)):
        if not all(NUMBER.fullmatch(cell.text or "") for cell in column):
            names = list(head[-1])[-len(rows[0]) :]
            longest = max(len(cell.text or "") for cell in column)
            for cell in (*column, *names[place : place + 1]):
                cell.set("class", "long text" if longest > LONG else "text")


def _mark_long_names(body: ET.Element, levels: int) -> None:
    """Give the names of rows the class "long" where one of a level is long."""
    rows = [[cell for cell in row if cell.tag == "th"] for row in body]
    for level in range(levels):
        # A name that holds for several rows stands in the first of them only.
        own = (row for row in rows if len(row) >= levels - level)
        column = [row[level - levels] for row in own]
        if max(len(cell.text or "") for cell in column) > LONG_NAME:
            for cell in column:
                cell.set("class", "long")


def _set_formulas_and_code(cell: ET.Element) -> None:
    """Give `$…$` and what stands in backticks the elements of the text."""
    before, *parts = FORMULA_OR_CODE.split(cell.text or "")
    if not parts:
        return
    cell.text = before
    for formula, code, behind in zip(
        parts[::3], parts[1::3], parts[2::3], strict=True
    ):
        if formula:
            part = ET.SubElement(
                cell, "span", {"class": "math notranslate nohighlight"}
            )
            part.text = rf"\({formula}\)"
        else:
            part = ET.SubElement(cell, "code", {"class": "literal"})
            part.text = code
        part.tail = behind


def align_numbers(table: nodes.table) -> None:
    """Put the columns of a written table that hold numbers to the right."""
    rows = [list(row.findall(nodes.entry)) for row in table.findall(nodes.row)]
    for name, *cells in zip(*rows, strict=False):
        if cells and all(NUMBER.fullmatch(cell.astext()) for cell in cells):
            for cell in (name, *cells):
                cell["classes"].append("text-right")


def _doctree_read(app: Sphinx, doctree: nodes.document) -> None:
    for node in doctree.findall(nodes.raw):
        shown = TABLE.search(node.astext())
        if node.get("format") == "html" and shown is not None:
            new = nodes.raw("", printed_table(shown.group()), format="html")
            node.replace_self(new)
    for table in doctree.findall(nodes.table):
        align_numbers(table)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the change.

    Args:
        app: the running Sphinx application.

    Returns:
        The extension's metadata.
    """
    app.connect("doctree-read", _doctree_read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
