"""Text and Markdown tables: alignment, rules, and columns without content."""

import csv
import io

import pytest

from mrl_jax.display.tables import (
    aligned_lines,
    csv_table,
    display_width,
    markdown_table,
    markdown_text,
    text_table,
)

ROWS = [["mAP", "queries", "", "last"], ["a->b", "1,000", "", "0.5"], ["average", "", "", "0.25"]]


def test_aligned_lines_pad_each_column_to_its_widest_cell():
    assert aligned_lines(ROWS, left=(0, 3)) == [
        "mAP      queries    last",
        "a->b       1,000    0.5",
        "average             0.25",
    ]


def test_text_table_leaves_out_empty_columns_and_draws_rules():
    lines = ["mAP      queries  last", "a->b       1,000   0.5", "average           0.25"]
    rule = "-" * 22
    assert text_table(ROWS) == "\n".join([lines[0], rule, *lines[1:]])
    assert text_table(ROWS, separate_last=True) == "\n".join([lines[0], rule, lines[1], rule, lines[2]])


def test_markdown_table_has_a_rule_below_the_header():
    assert markdown_table([["a", "b"], ["1", "long"]]) == "| a | b    |\n| - | ---- |\n| 1 | long |"


def test_characters_of_two_columns_are_aligned():
    rows = [["mAP", "best"], ["图像->文本", "0.5"], ["image", "0.25"]]
    assert text_table(rows) == "mAP         best\n----------------\n图像->文本   0.5\nimage       0.25"
    assert [display_width(x) for x in ("图像", "e\u0301", "a→b", "テキスト")] == [4, 1, 3, 8]


def test_cells_stay_in_their_line_and_column():
    rows = [["name", "value"], ["a\nb|\x1b[1m", "1"]]
    assert text_table(rows) == "name            value\n---------------------\na\\nb|\\u001b[1m      1"
    assert markdown_table([["name"], [markdown_text("a\nb|`<b>$x$ _y_ s_t")]]).splitlines()[2] == (
        r"| a\\nb\|\`\<b\>\$x\$ \_y\_ s_t |"
    )


@pytest.mark.parametrize(
    "text", ["=1", "+A1", "-A1", "@SUM(1)", "\t=1", "\r=1", "\n=1", "\uff1d1", "-2+3", "\t1", "\n1"]
)
def test_no_text_begins_a_formula_in_a_spreadsheet(text):
    assert next(csv.reader(io.StringIO(csv_table([[text, "b"]]), newline=""))) == [f"'{text}", "b"]


def test_numbers_and_other_texts_stay_in_a_spreadsheet():
    rows = [[-0.1, 1 / 3, -2, None, "-0.5", "-1e-05", "a=b", "", True, "a,b", "'x"]]
    assert next(csv.reader([csv_table(rows)])) == ["" if x is None else str(x) for x in rows[0]]
    assert csv_table(rows) == f'-0.1,{1 / 3!r},-2,,-0.5,-1e-05,a=b,,True,"a,b",\'x\n'
