"""Download a data set of the Hugging Face hub: a zip is verified and unpacked, its folder is complete or absent.

huggingface_hub provides addresses, the token and the HTTP client. Its own downloads restart from zero after an
interruption (since 1.18 each writes to a new file and deletes it on failure), so this module downloads with Range
requests.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import stat
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from tqdm import tqdm

from mrl_jax.errors import InputError, first_line
from mrl_jax.files import lock
from mrl_jax.json_files import read_json

__all__ = ["download", "unpack_zip"]

_MARKER = ".mrl_jax.json"  # file in a complete folder: origin and verified digest
_SUMS = "SHA256SUMS"
_SUMS_LINE = re.compile(r"^([0-9a-fA-F]{64})[ \t]+\*?(?:\./)?(?:data/)?(.+?)\s*$", re.MULTILINE)
_PAUSES = (0.5, 1.0, 2.0)  # seconds between tries
_MAX_RATIO = 1100  # deflate reaches 1,032:1
# Base classes of transient errors, both in httpx (huggingface_hub 1) and in httpx2 (huggingface_hub 2).
_TRANSIENT = {"TimeoutException", "NetworkError", "RemoteProtocolError"}
_LOGIN = "it does not exist, or needs a login: accept its terms on its page and set HF_TOKEN"
_REFUSALS = {401: _LOGIN, 403: _LOGIN, 404: "there is no such file, revision or data set"}


def download(
    repo: str, filename: str, folder: str | os.PathLike[str], *, revision: str = "main", progress: bool = True
) -> Path:
    """Download one zip of a hub data set, verify it against SHA256SUMS of the data set, and unpack it into `folder`.

    A folder that an earlier call completed is returned without any request; an interrupted download continues where it
    stopped. The variables HF_ENDPOINT, HF_TOKEN and HF_HUB_DOWNLOAD_TIMEOUT are respected.

    Args:
        repo: the data set, as "owner/name".
        filename: path of the zip in it.
        folder: folder for the unpacked files; new, empty, or completed by an earlier call.
        revision: branch, tag or commit.
        progress: show a progress bar if standard error is a terminal.

    Returns:
        The folder.

    Raises:
        InputError: huggingface_hub is missing, there is no connection, no such file, no permission, no digest or a
            different one, a damaged or unsafe zip, no space, or a folder with other files.
    """
    folder = Path(folder).expanduser().absolute()
    origin = {"repo": repo, "filename": filename, "revision": revision}
    if _complete(folder, origin):
        return folder
    endpoint = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    source = _Source(repo, filename, revision, endpoint, folder)
    with _disk_errors(folder):
        _check_empty(folder)
        digest = source.digest()
        part = folder.parent / f".{folder.name}.{digest[:16]}.part"  # a new version of the file gets another name
        with part.open("a+b") as file:
            lock(file.fileno(), f"folder {str(folder)!r}: another process is downloading it; wait for its end")
            keep = False  # whether `part` stays
            try:
                if not _complete(folder, origin):  # else another process has completed it
                    keep = True
                    source.fetch(filename, file, progress)
                    keep = False
                    file.seek(0)
                    if (actual := hashlib.file_digest(file, "sha256").hexdigest()) != digest:
                        raise source.error(
                            f"SHA-256 should be {digest}, but is {actual}: damaged or changed, so it was deleted"
                        )
                    _unpack(part, folder, part.with_suffix(".unpack"), {**origin, "sha256": digest})
            except (OSError, KeyboardInterrupt):  # for example a full disk: the next call uses the verified file
                keep = True
                raise
            finally:
                if not keep or file.seek(0, os.SEEK_END) == 0:
                    with contextlib.suppress(OSError):
                        file.truncate(0)  # on systems that cannot delete an open file, an empty one remains
                        part.unlink()
    return folder


def unpack_zip(archive: Path, folder: Path) -> None:
    """Unpack a zip into a new or empty folder. If anything fails, the folder stays as it was.

    Args:
        archive: the zip.
        folder: the folder.

    Raises:
        InputError: the zip does not exist, is damaged, unsafe or expands to too many bytes, there is no space, or the
            folder has files.
    """
    archive, folder = Path(archive), Path(folder).expanduser().absolute()
    if not archive.is_file():
        raise InputError(f"zip file {str(archive)!r} does not exist or is not a file; give the path of a .zip")
    with _disk_errors(folder):
        _check_empty(folder)
        _unpack(archive, folder, folder.parent / f".{folder.name}.{secrets.token_hex(8)}.unpack", None)


class _RefusedError(Exception):
    """The server answered with an error instead of the file."""

    def __init__(self, response: Any) -> None:
        self.status, self.code = response.status_code, response.headers.get("X-Error-Code")
        super().__init__(f"HTTP {self.status}: {_REFUSALS.get(self.status, 'the server failed')}")


@dataclass(frozen=True)
class _Source:
    """A file of a hub data set, and the folder for its content."""

    repo: str
    filename: str
    revision: str
    endpoint: str
    folder: Path

    def error(self, reason: str) -> InputError:
        return InputError(
            f"{self.filename} of data set {self.repo} cannot be downloaded from {self.endpoint} ({reason}); check the "
            f"connection and run again, or download it by hand from https://huggingface.co/datasets/{self.repo} and "
            "give its folder with --data-path"
        )

    def digest(self) -> str:
        """SHA-256 of the file, from SHA256SUMS of the data set."""
        reason = f"the data set has no {_SUMS}"
        for name in dict.fromkeys((_SUMS, str(PurePosixPath(self.filename).parent / _SUMS))):
            sums = io.BytesIO()
            if not self.fetch(name, sums, optional=True):
                continue
            lines = _SUMS_LINE.findall(sums.getvalue().decode("utf-8", "replace"))
            digests = {digest.lower() for digest, path in lines if path == self.filename.removeprefix("data/")}
            if len(digests) == 1:
                return digests.pop()
            reason = f"{_SUMS} gives several digests of it" if digests else f"{_SUMS} does not list it"
        raise self.error(f"{reason}, so it cannot be verified")

    def fetch(self, name: str, file: BinaryIO, progress: bool = False, optional: bool = False) -> bool:
        """Append the missing bytes to `file`; False if the hub has no such file and it is optional."""
        pauses = iter(_PAUSES)
        while True:
            try:
                self._fetch_once(name, file, progress)
                return True
            except InputError:
                raise
            except Exception as error:  # errors of the client, bad addresses or names, offline mode: no common base
                kinds = {base.__name__ for base in type(error).__mro__}
                again, reason = bool(_TRANSIENT & kinds), first_line(error)
                if isinstance(error, _RefusedError):
                    if optional and error.status == 404 and error.code in (None, "EntryNotFound"):
                        return False
                    again = error.status in (408, 429) or error.status >= 500
                if not again or (pause := next(pauses, None)) is None:
                    raise self.error("no answer in time" if "TimeoutException" in kinds else reason) from error
                time.sleep(pause)

    def _fetch_once(self, name: str, file: BinaryIO, progress: bool) -> None:
        try:
            from huggingface_hub import constants, get_session, get_token, hf_hub_url
        except ImportError as error:
            raise InputError(
                "the Hugging Face hub needs huggingface-hub; run: pip install 'huggingface-hub>=1.0'"
            ) from error
        url = hf_hub_url(self.repo, name, repo_type="dataset", revision=self.revision, endpoint=self.endpoint)
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        headers = {"accept-encoding": "identity", "user-agent": "mrl_jax"}
        if not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN and (token := get_token()):
            headers["authorization"] = f"Bearer {token}"  # the client drops it on a redirect to another host
        if done := file.seek(0, os.SEEK_END):
            headers["range"] = f"bytes={done}-"
        with get_session().stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True) as response:
            if response.status_code == 416 and done:
                return  # nothing is missing; too many bytes would change the digest
            if response.status_code not in (200, 206):
                raise _RefusedError(response)
            if done and not response.headers.get("content-range", "").startswith(f"bytes {done}-"):
                done = file.seek(0)  # the server sends the complete file
                file.truncate()
            length = int(response.headers.get("content-length", 0))
            with _disk_errors(self.folder):
                _check_space(length, self.folder)
            size, off = done + length or None, None if progress else True  # None: off unless on a terminal
            with tqdm(None, name, size, leave=False, initial=done, unit="B", unit_scale=True, disable=off) as bar:
                for chunk in response.iter_bytes():
                    with _disk_errors(self.folder):
                        file.write(chunk)
                        file.flush()  # so that a kill loses nothing and a full disk is noticed here
                    bar.update(len(chunk))


def _complete(folder: Path, origin: Mapping[str, str]) -> bool:
    """Whether an earlier call completed the folder from the same file."""
    try:
        marker = read_json(folder / _MARKER, {"sha256": str}, limit=1 << 20)
        return marker == {**origin, "sha256": marker["sha256"]}
    except (OSError, ValueError):
        return False


def _check_empty(folder: Path) -> None:
    """Check that the folder is new or empty, and make its parent."""
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"folder {str(folder)!r} already holds other files; name a new folder, or empty this one")
    folder.parent.mkdir(parents=True, exist_ok=True)


def _unpack(archive: Path, folder: Path, temporary: Path, marker: Mapping[str, str] | None) -> None:
    """Unpack into the temporary folder, which has the same parent, and rename it."""
    shutil.rmtree(temporary, ignore_errors=True)  # left by a kill
    temporary.mkdir()
    try:
        with archive.open("rb") as raw:
            _extract(raw, archive, temporary)
        if marker:
            (temporary / _MARKER).write_text(json.dumps(marker, indent=2) + "\n", "utf-8")
        if folder.exists():
            folder.rmdir()  # fails if it is not empty
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _extract(raw: BinaryIO, archive: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(raw) as file:
            for info, path in _checked_members(file, archive, folder):
                target = folder / path
                (target if info.is_dir() else target.parent).mkdir(parents=True, exist_ok=True)
                if not info.is_dir():
                    with file.open(info) as source, target.open("xb") as sink:  # x: names may differ in case only
                        shutil.copyfileobj(source, sink, 1 << 20)
    except Exception as error:  # on damage, zipfile and the decompressors raise many types
        # Of the system, such as a full disk; zipfile seeks where a damaged archive points: EINVAL.
        if isinstance(error, InputError) or getattr(error, "errno", None) not in (None, errno.EINVAL):
            raise
        raise _unpack_error(archive, first_line(error)) from error


def _checked_members(file: zipfile.ZipFile, archive: Path, folder: Path) -> list[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """All members with their paths, after a check that each is a plain file or folder inside the target folder."""
    total, seen, members = 0, {PurePosixPath(_MARKER)}, []
    for info in file.infolist():
        name, path = info.orig_filename, PurePosixPath(info.orig_filename)
        if path.is_absolute() or ".." in path.parts or re.search(r"^[A-Za-z]:|\\|\0", name):
            raise _unpack_error(archive, f"member {name!r} leaves the folder, or its path is of another system")
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _unpack_error(archive, f"member {name!r} is a link or a special file")
        if info.flag_bits & 0x1:
            raise _unpack_error(archive, f"member {name!r} is encrypted")
        if path in seen and not info.is_dir():
            raise _unpack_error(archive, f"member {name!r} occurs twice, or its name is reserved")
        seen.add(path)
        members.append((info, path))
        total += info.file_size
    if not members or total > _MAX_RATIO * archive.stat().st_size:
        raise _unpack_error(
            archive, f"{len(members)} members of {total:,} bytes; 1 member and {_MAX_RATIO}:1 are the limits"
        )
    _check_space(total, folder)
    return members


def _unpack_error(archive: Path, reason: str) -> InputError:
    return InputError(f"zip file {str(archive)!r} cannot be unpacked ({reason}); download it again from its publisher")


def _check_space(size: int, folder: Path) -> None:
    if size > (free := shutil.disk_usage(folder.parent).free):
        raise OSError(errno.ENOSPC, f"{size:,} bytes are needed, {free:,} are free")


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Turn errors of the file system into an `InputError` that names the folder."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "free space on its disk, or name a folder on another disk" if full else "name another folder"
        raise InputError(f"folder {str(folder)!r} cannot be written ({error.strerror or error}); {remedy}") from error
