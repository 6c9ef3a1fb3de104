"""The reference pages follow the package, and tables of pandas look as in print."""

import re
import tomllib
from pathlib import Path

import pandas as pd
import pytest
from docutils import nodes
from tools import load_tool

ROOT = Path(__file__).resolve().parents[1]
reference = load_tool("reference", "_ext")
dataframes = load_tool("dataframes", "_ext")
printed_table = dataframes.printed_table


def test_the_method_page_has_every_equation_of_the_model() -> None:
    things = reference.defined(reference.MODEL.read_text("utf-8")).values()
    computed = set().union(*map(reference.numbers_of, things))
    page = (ROOT / "book" / "method.md").read_text("utf-8")
    heads = re.findall(r"^## Equations? (.+?) ?[:(]", page, re.MULTILINE)
    assert set(re.findall(r"\d+", " ".join(heads))) == computed


def test_code_of_an_equation_is_shown_without_its_set_up() -> None:
    source = reference.MODEL.read_text("utf-8")
    assert reference.code_of("8", source).startswith("def correct(")
    shown = reference.code_of("5", source)
    assert shown.startswith("class CompletenessCheck") and "def forward" in shown
    assert "__init__" not in shown
    with pytest.raises(LookupError, match="99"):
        reference.code_of("99", source)


def test_the_api_page_lists_the_rooms_in_the_order_of_the_imports() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    page = (ROOT / "book" / "api.md").read_text("utf-8")
    rooms = re.findall(r"\{room\} (\w+)", page)
    allowed = [sorted(re.findall(r"lnln\.(\w+)", layer)) for layer in layers[::-1]]
    for layer in allowed:
        assert sorted(rooms[: len(layer)]) == layer
        del rooms[: len(layer)]
    assert rooms == []


def test_a_table_has_names_as_in_print_and_texts_told_from_numbers() -> None:
    frame = pd.DataFrame(
        {"mae": [0.5, None], "kind": ["copied", "own"], "why": ["so", 31 * "x"]},
        index=pd.Index(["a", "b"], name="method"),
    )
    shown = printed_table(
        re.search("<table.*</table>", frame._repr_html_(), re.DOTALL).group()
    )
    head, body = shown.split("<tbody>")
    assert head.count("<tr") == 1  # the name of the index has no row of its own
    assert re.findall("<th(?: [^>]*)?>([^<]*)", head) == [
        "method",
        "MAE",
        "kind",
        "why",
    ]
    assert re.findall("<td([^>]*)>([^<]*)", body) == [
        ("", "0.5"),
        (' class="text"', "copied"),
        (' class="long text"', "so"),
        ("", "–"),
        (' class="text"', "own"),
        (' class="long text"', 31 * "x"),
    ]


def test_formulas_code_and_minus_signs_of_a_table() -> None:
    frame = pd.DataFrame(
        {"gain": ["-0.00", "-0.01 ± 0.02"], "rule": ["`MASKS` or none", "-x"]},
        index=["without $L_{cc}$, a $2", "$w$ at 1"],
    )
    shown = printed_table(
        re.search("<table.*</table>", frame._repr_html_(), re.DOTALL).group()
    )
    body = shown.split("<tbody>")[1]
    math = r'<span class="math notranslate nohighlight">\({}\)</span>'
    assert re.findall("<th(?: [^>]*)?>(.*?)</th>", body) == [
        f"without {math.format('L_{cc}')}, a $2",
        f"{math.format('w')} at 1",
    ]
    assert re.findall("<td(?: [^>]*)?>(.*?)</td>", body) == [
        "0.00",
        '<code class="literal">MASKS</code> or none',
        "−0.01 ± 0.02",
        "-x",
    ]


def test_rows_of_a_table_have_names_or_none() -> None:
    """An index that only counts is left out, long names are told, losses set."""
    frame = pd.DataFrame({"dataset": ["MOSI", "SIMS"], "MAE": [1.0, 0.5]})
    counted = printed_table(
        re.search("<table.*</table>", frame._repr_html_(), re.DOTALL).group()
    )
    assert re.findall("<th(?: [^>]*)?>([^<]*)", counted) == ["data set", "MAE"]
    named = frame.rename_axis("run")
    shown = printed_table(
        re.search("<table.*</table>", named._repr_html_(), re.DOTALL).group()
    )
    assert re.findall("<th(?: [^>]*)?>([^<]*)", shown)[-2:] == ["0", "1"]
    parts = ["w/o L_cc", "w/o Missing Data for Training"]
    frame.index = pd.MultiIndex.from_product([["Table 4"], parts])
    shown = printed_table(
        re.search("<table.*</table>", frame._repr_html_(), re.DOTALL).group()
    )
    long = re.findall('<th class="long">(.*?)</th>', shown)
    assert long == [
        r'w/o <span class="math notranslate nohighlight">\(\mathcal{L}_{cc}\)</span>',
        parts[1],
    ]


def test_columns_of_numbers_of_a_written_table_stand_to_the_right() -> None:
    table = nodes.table()
    for line in (("what", "MOSI", "size"), ("a", "1,284", "3"), ("b", "–", "large")):
        row = nodes.row()
        row += [nodes.entry("", nodes.paragraph(text=word)) for word in line]
        table += row
    dataframes.align_numbers(table)
    placed = [entry["classes"] for entry in table.findall(nodes.entry)]
    assert placed == 3 * [[], ["text-right"], []]
