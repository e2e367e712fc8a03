"""Text and Markdown tables: alignment, rules, and columns without content."""

from mrl_jax.report.tables import aligned_lines, markdown_table, text_table

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
