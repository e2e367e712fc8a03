"""Files that are something else than the data, recognised from their first bytes: pointers, archives, web pages."""

from pathlib import Path

from mrl_jax.errors import InputError

__all__ = ["HEAD", "refuse_foreign"]

HEAD = 512
"""How many bytes of a file `refuse_foreign` needs."""

_ARCHIVES = {
    "gzip": b"\x1f\x8b",
    "bzip2": b"BZh",
    "xz": b"\xfd7zXZ\x00",
    "zstd": b"\x28\xb5\x2f\xfd",
    "RAR": b"Rar!\x1a\x07",
    "7z": b"7z\xbc\xaf\x27\x1c",
}


def refuse_foreign(head: bytes, path: Path, what: str = "data file") -> None:
    """Refuse a pointer of Git LFS, an archive (other than zip, which `.npz` is) or a web page.

    Args:
        head: the first `HEAD` bytes of the file.
        path: the file, for the message.
        what: what it should be, for the message.

    Raises:
        InputError: it is one of them.
    """
    if head.startswith(b"version https://git-lfs"):
        raise InputError(
            f"{what} {str(path)!r} is a pointer of Git LFS, not the data; run git lfs pull in its folder (after git "
            "lfs install)"
        )
    kind = next((name for name, magic in _ARCHIVES.items() if head.startswith(magic)), None)
    if kind is None and head[257:262] == b"ustar":
        kind = "tar"
    if kind is not None:
        raise InputError(f"{what} {str(path)!r} is an archive ({kind}); unpack it, and give the path of what is in it")
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head")):
        raise InputError(
            f"{what} {str(path)!r} is a web page, not the data; open the address in a browser, which may ask for a "
            "confirmation, and download the file itself"
        )
