"""`docs/troubleshooting*.md`: every message that they quote is one that the source writes."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted(ROOT.glob("docs/troubleshooting*.md"))
HEAD = "| message | what it means | remedy |"
FIELD = "\0"


def templates():
    """All texts of the source but docstrings, with a mark in place of every field of an f-string."""
    for path in [*ROOT.glob("mrl_jax/**/*.py"), ROOT / "setup.py"]:
        nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
        docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if id(node) in docstrings:
                continue
            if isinstance(node, ast.JoinedStr):
                yield "".join(str(v.value) if isinstance(v, ast.Constant) else FIELD for v in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def quoted(page):
    for table in page.split(HEAD)[1:]:
        for row in table.lstrip().splitlines()[1:]:
            if not row.startswith("|"):
                break
            yield re.match(r"\| `([^`]+)` \|", row)[1]


def pattern(message):
    """The fixed parts of a message in their order, with at least one field wherever … stands between two of them."""
    parts = [re.escape(part.strip()) for part in message.split("…") if part.strip()]
    return re.compile(rf"[^{FIELD}]*{FIELD}.*?".join(parts), re.DOTALL)


def test_the_source_has_every_message_of_the_page():
    messages = [message for page in PAGES for message in quoted(page.read_text("utf-8"))]
    texts = list(templates())
    assert len(messages) > 100
    assert len(set(messages)) == len(messages)
    for message in messages:
        fixed = message.replace("…", "")
        assert len(re.findall(r"\w", fixed)) >= 10, f"too little of a message to search for: {message}"
        assert any(pattern(message).search(text) for text in texts), f"not in the source: {message}"


def test_a_message_that_nobody_writes_is_found():
    texts = list(templates())
    for message in ("workdir … already holds …; call the cat", "give the rows … of the moon", "no such message at all"):
        assert not any(pattern(message).search(text) for text in texts)
