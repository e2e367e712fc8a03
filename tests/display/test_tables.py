"""Text and Markdown tables: alignment, rules, and columns without content."""

from mrl_jax.display.tables import aligned_lines, display_width, markdown_table, text_table

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
