"""Tables that programs of the tests write into pages."""

from pathlib import Path

END = "<!-- end -->"


def table_of(page: Path, name: str) -> str:
    """What stands in a page between the line `<!-- name -->` and the next `<!-- end -->`."""
    return page.read_text("utf-8").split(f"<!-- {name} -->\n", 1)[1].split(END, 1)[0].strip()


def write_table(page: Path, name: str, table: str) -> None:
    """Put a table there."""
    head, rest = page.read_text("utf-8").split(f"<!-- {name} -->\n", 1)
    tail = rest.split(END, 1)[1]
    page.write_text(f"{head}<!-- {name} -->\n\n{table}\n\n{END}{tail}", "utf-8")
