"""Names and texts of unknown origin, such as those of modalities, classes and runs: shown as text, and used for files.

Nothing that a data file or a run folder names is trusted: a terminal must not obey it, a table must not break at it,
and a path must not leave its folder. Light: imports no library.
"""

import hashlib
import re

__all__ = ["base_name", "file_name", "is_file_name", "printable", "printable_lines"]

# What a terminal obeys (control characters, those of 8 bits included), what breaks a line, what turns the order of
# reading, and halves of surrogate pairs, which no encoding can write.
_UNSHOWN = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_SHOWN = re.compile(f"[{_UNSHOWN}]")
# Separators of paths, the mark of what is encoded, what Windows forbids, and ends that hide a file or change its name.
_ENCODED = re.compile(rf'[{_UNSHOWN}/\\%<>:"|?*]|^[. -]|[. ]$')
_MOST = 200  # bytes of a file name: file systems take 255, and a suffix may follow


def printable(text: object) -> str:
    r"""A text as one line that a terminal can show: characters that it would obey are escaped, as in JSON.

    All others stay, such as letters that the fonts of the machine lack. So a line of JSON stays the same JSON.

    Args:
        text: anything; its `str`.

    Example:
        >>> print(printable("red \x1b[31m\nline"))
        red \u001b[31m\nline
    """
    return _SHOWN.sub(lambda found: _SHORT.get(found[0], f"\\u{ord(found[0]):04x}"), str(text))


def printable_lines(text: str) -> str:
    """A text of several lines, each as by `printable`."""
    return "\n".join(map(printable, text.split("\n")))


def file_name(text: str) -> str:
    """A text as the name of one file or folder: it leads nowhere else, is not hidden, and not too long.

    Different texts have different names, but for upper and lower case. Letters, digits and most signs stay; others are
    encoded as in addresses. Of a name of more than 200 bytes the end is replaced by a digest.

    Args:
        text: the text.

    Example:
        >>> file_name("noise0.2-seed0"), file_name("../../evil"), file_name("..")
        ('noise0.2-seed0', '%2E.%2F..%2Fevil', '%2E%2E')
    """
    name = _ENCODED.sub(_percent, text) or "%"
    raw = name.encode()
    if len(raw) <= _MOST:
        return name
    digest = hashlib.sha256(raw).hexdigest()[:16]
    return f"{raw[: _MOST - 17].decode(errors='ignore')}~{digest}"


def is_file_name(text: str) -> bool:
    """Whether a text, as it is, names a file or folder within a folder: no path, and nothing that cannot be shown."""
    return text not in ("", ".", "..") and not set("/\\") & set(text) and printable(text) == text


def _percent(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode(errors="surrogatepass"))


def base_name(path: str) -> str:
    """The last part of a path of any system.

    Example:
        >>> base_name("/home/ann/mine.npz"), base_name(r"C:\\data\\mine.npz"), base_name("sets/wikipedia/")
        ('mine.npz', 'mine.npz', 'wikipedia')
    """
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]
