"""Downloads from the hub: content is verified and complete after any fault, and errors are reported in one line."""

import fcntl
import hashlib
import io
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import warnings
import zipfile

import numpy as np
import pytest
from hub_server import HubServer

from mrl_jax.data.published import hub
from mrl_jax.data.published.hub import download, unpack_zip
from mrl_jax.errors import InputError

REPO, NAME = "someone/some-sets", "data/wiki.zip"
KEY, SUMS = f"{REPO}/{NAME}", f"{REPO}/SHA256SUMS"
BLOB = np.random.default_rng(0).bytes(300_000)


def zipped(members, compression=zipfile.ZIP_STORED):
    """A zip of (name or ZipInfo, bytes) pairs."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", compression) as file:
        warnings.simplefilter("ignore")  # duplicate names
        for name, data in members:
            file.writestr(name, data)
    return buffer.getvalue()


GOOD = zipped([("wiki/", b""), ("wiki/features.bin", BLOB), ("readme.txt", b"hello")])


def sums_of(data, path=NAME):
    return f"{'0' * 64}  data/other.zip\n{hashlib.sha256(data).hexdigest()}  {path}\n".encode()


@pytest.fixture
def server(monkeypatch):
    import huggingface_hub
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", False)
    huggingface_hub.close_session()  # a new client reads the proxy settings
    monkeypatch.setattr(hub, "_PAUSES", (0.01, 0.01))
    for name in ("HF_TOKEN", "HF_OIDC_RESOURCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with HubServer({KEY: GOOD, SUMS: sums_of(GOOD)}, cut_name=NAME) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        yield running
    huggingface_hub.close_session()


def refused(match, call, *arguments, **named):
    """The call raises an InputError of one line."""
    with pytest.raises(InputError, match=match) as caught:
        call(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def assert_complete(folder):
    assert (folder / "wiki" / "features.bin").read_bytes() == BLOB
    assert (folder / "readme.txt").read_bytes() == b"hello"
    assert names_in(folder.parent) == [folder.name]  # no other files are left


# --- downloads ---


def test_a_zip_is_downloaded_verified_and_unpacked(server, tmp_path, capfd):
    folder = tmp_path / "wiki"
    assert download(REPO, NAME, folder) == folder
    assert_complete(folder)
    assert server.asked(NAME) == [(None, len(GOOD))]
    assert capfd.readouterr() == ("", "")  # no terminal, no bar


@pytest.mark.parametrize("progress", [True, False])
def test_a_bar_is_drawn_on_a_terminal_where_progress_is_wanted(server, tmp_path, monkeypatch, progress):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    download(REPO, NAME, tmp_path / "wiki", progress=progress)
    assert (NAME in terminal.getvalue()) == progress
    assert "SHA256SUMS" not in terminal.getvalue()


def test_a_second_call_makes_no_request(server, tmp_path):
    download(REPO, NAME, tmp_path / "wiki")
    server.seen.clear()
    assert download(REPO, NAME, str(tmp_path / "wiki")) == tmp_path / "wiki"
    assert server.seen == []


def test_an_empty_folder_is_filled_and_another_refused(server, tmp_path):
    (tmp_path / "wiki").mkdir()
    download(REPO, NAME, tmp_path / "wiki")
    assert_complete(tmp_path / "wiki")
    server.seen.clear()
    refused("already holds other files", download, REPO, "data/xmedia.zip", tmp_path / "wiki")
    refused("already holds other files", download, REPO, NAME, tmp_path / "wiki", revision="v2")
    assert server.seen == []
    assert_complete(tmp_path / "wiki")


def test_a_cut_is_resumed_within_the_call(server, tmp_path):
    server.cuts = [100_000]
    download(REPO, NAME, tmp_path / "wiki")
    assert_complete(tmp_path / "wiki")
    assert server.asked(NAME) == [(None, 100_000), ("bytes=100000-", len(GOOD) - 100_000)]


def test_a_cut_that_lasts_is_reported_and_the_next_call_resumes(server, tmp_path):
    server.cuts = [100_000, 50_000, 0]
    message = refused("cannot be downloaded from", download, REPO, NAME, tmp_path / "wiki")
    assert NAME in message
    assert server.endpoint in message
    assert f"https://huggingface.co/datasets/{REPO}" in message
    assert "--data-path" in message
    assert not (tmp_path / "wiki").exists()
    server.seen.clear()
    download(REPO, NAME, tmp_path / "wiki")
    assert_complete(tmp_path / "wiki")
    assert server.asked(NAME) == [("bytes=150000-", len(GOOD) - 150_000)]


def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    server.ranges, server.cuts = False, [100_000]
    download(REPO, NAME, tmp_path / "wiki")
    assert_complete(tmp_path / "wiki")
    assert server.asked(NAME)[1] == ("bytes=100000-", len(GOOD))


def test_a_whole_file_left_by_a_kill_is_not_sent_again(server, tmp_path):
    digest = hashlib.sha256(GOOD).hexdigest()
    (tmp_path / f".wiki.{digest[:16]}.part").write_bytes(GOOD)
    download(REPO, NAME, tmp_path / "wiki")
    assert_complete(tmp_path / "wiki")
    assert server.asked(NAME) == [(f"bytes={len(GOOD)}-", 0)]


def test_another_digest_is_refused_and_the_file_deleted(server, tmp_path):
    server.files[KEY] = bad = GOOD.replace(b"hello", b"jello")
    message = refused("SHA-256 should be", download, REPO, NAME, tmp_path / "wiki")
    assert hashlib.sha256(GOOD).hexdigest() in message
    assert hashlib.sha256(bad).hexdigest() in message
    assert names_in(tmp_path) == []
    server.files[KEY] = GOOD
    download(REPO, NAME, tmp_path / "wiki")
    assert_complete(tmp_path / "wiki")
    assert server.asked(NAME) == [(None, len(GOOD))] * 2


@pytest.mark.parametrize("path", ["wiki.zip", "./data/wiki.zip", "*data/wiki.zip", "./wiki.zip\r", "*./data/wiki.zip"])
def test_sums_may_lie_at_the_root_or_in_data_and_name_the_file_either_way(server, tmp_path, path):
    del server.files[SUMS]
    server.files[f"{REPO}/data/SHA256SUMS"] = sums_of(GOOD, path)
    download(REPO, NAME, tmp_path / "wiki")
    assert_complete(tmp_path / "wiki")


def test_without_one_digest_nothing_is_downloaded(server, tmp_path):
    server.files[SUMS] = sums_of(GOOD, "data/wiki.zip.old")
    refused("SHA256SUMS does not list it, so it cannot be verified", download, REPO, NAME, tmp_path / "wiki")
    server.files[SUMS] = sums_of(GOOD) + sums_of(b"", "wiki.zip")
    refused("several digests", download, REPO, NAME, tmp_path / "wiki")
    server.files[SUMS] = b"\xff\x00 no sums"
    refused("does not list it", download, REPO, NAME, tmp_path / "wiki")
    del server.files[SUMS]
    refused("has no SHA256SUMS, so it cannot be verified", download, REPO, NAME, tmp_path / "wiki")
    assert server.asked(NAME) == []
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("status", "code", "match"),
    [
        (404, "EntryNotFound", "HTTP 404: there is no such file"),
        (404, None, "HTTP 404: there is no such file"),
        (401, "GatedRepo", "HTTP 401: .* needs a login"),
        (403, None, "HTTP 403: .* set HF_TOKEN"),
        (503, None, "HTTP 503: the server failed"),
    ],
)
def test_refusals_of_the_server_are_reported_in_one_line(server, tmp_path, status, code, match):
    server.refusals[KEY] = (status, code)
    refused(match, download, REPO, NAME, tmp_path / "wiki")
    assert len(server.asked(NAME)) == (3 if status == 503 else 1)
    server.refusals = {SUMS: (status, "RepoNotFound")}
    refused(match, download, REPO, NAME, tmp_path / "wiki")
    assert names_in(tmp_path) == []


def test_no_connection_no_answer_and_bad_names_are_reported(server, tmp_path, monkeypatch):
    from huggingface_hub import constants

    with HubServer() as gone:
        nowhere = gone.endpoint
    monkeypatch.setenv("HF_ENDPOINT", nowhere + "/")
    assert nowhere in refused("refused", download, REPO, NAME, tmp_path / "wiki")
    for endpoint in ("nonsense", "ftp://127.0.0.1", "http://[::"):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        refused("cannot be downloaded from", download, REPO, NAME, tmp_path / "wiki")
    monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
    refused("cannot be downloaded from", download, "no good//name", NAME, tmp_path / "wiki")
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.05)
    server.stall = threading.Event()
    refused("no answer in time", download, REPO, NAME, tmp_path / "wiki")
    assert names_in(tmp_path) == []


def test_offline_mode_is_reported(server, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused("HF_HUB_OFFLINE", download, REPO, NAME, tmp_path / "wiki")
    assert server.seen == []


def test_a_token_goes_to_the_hub_and_not_where_it_redirects(server, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with HubServer(server.files, cut_name=NAME, cuts=[1000]) as other:
        server.redirect = other.endpoint.replace("127.0.0.1", "localhost")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        download(REPO, NAME, tmp_path / "wiki")
        assert set(server.tokens) == {"Bearer hf_secret"}
        assert set(other.tokens) == {None}
        assert other.asked(NAME) == [(None, 1000), ("bytes=1000-", len(GOOD) - 1000)]
    assert_complete(tmp_path / "wiki")


def test_a_missing_package_is_reported_unless_the_folder_is_complete(server, tmp_path, monkeypatch):
    download(REPO, NAME, tmp_path / "wiki")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    refused(r"pip install 'huggingface-hub>=1.0'", download, REPO, NAME, tmp_path / "other")
    download(REPO, NAME, tmp_path / "wiki")


def test_two_downloads_at_once_do_not_mix(server, tmp_path):
    part = tmp_path / f".wiki.{hashlib.sha256(GOOD).hexdigest()[:16]}.part"
    with part.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        refused("another process is downloading", download, REPO, NAME, tmp_path / "wiki")
    assert part.exists()
    download(REPO, NAME, tmp_path / "wiki")
    assert_complete(tmp_path / "wiki")


# --- full disks ---


def test_no_space_for_the_download_is_reported_before_it_begins(server, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    refused("1,000 are free.*free space", download, REPO, NAME, tmp_path / "wiki")
    assert names_in(tmp_path) == []


def test_a_disk_that_fills_during_the_download_is_reported(server, tmp_path):
    part = tmp_path / f".wiki.{hashlib.sha256(GOOD).hexdigest()[:16]}.part"
    part.symlink_to("/dev/full")
    refused("No space left.*free space", download, REPO, NAME, tmp_path / "wiki")
    assert not (tmp_path / "wiki").exists()
    part.unlink()
    download(REPO, NAME, tmp_path / "wiki")
    assert_complete(tmp_path / "wiki")


def test_a_disk_that_fills_while_unpacking_keeps_the_download_alone(server, tmp_path, monkeypatch):
    def full(source, sink, size):
        sink.write(source.read(10))
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfileobj", full)
        refused("No space left on device.*free space", download, REPO, NAME, tmp_path / "wiki")
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
    download(REPO, NAME, tmp_path / "wiki")
    assert_complete(tmp_path / "wiki")
    assert [sent for _, sent in server.asked(NAME)] == [len(GOOD), 0]


def test_a_folder_that_cannot_be_made_is_reported(server, tmp_path):
    (tmp_path / "file").write_text("")
    refused("cannot be written", download, REPO, NAME, tmp_path / "file")
    refused("cannot be written", download, REPO, NAME, tmp_path / "file" / "wiki")
    refused("cannot be written", unpack_zip, tmp_path / "file", tmp_path / "file" / "wiki")


# --- unpacking ---


def special(name, mode):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


def encrypted():
    data = bytearray(zipped([("a.txt", b"x" * 50)]))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    return bytes(data)


def zeros(size):
    """A zip whose only member claims to unpack to this many bytes."""
    data = bytearray(zipped([("zeros", b"")]))
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.index(signature) + offset
        data[at : at + 4] = size.to_bytes(4, "little")
    return bytes(data)


BAD = {
    "parent": (zipped([("fine", b"1"), ("../x", b"1")]), "leaves the folder"),
    "inner parent": (zipped([("a/../../x", b"1")]), "leaves the folder"),
    "absolute": (zipped([("/tmp/x", b"1")]), "leaves the folder"),
    "drive": (zipped([("C:/x", b"1")]), "of another system"),
    "backslash": (zipped([("..\\x", b"1")]), "of another system"),
    "link": (zipped([(special("link", stat.S_IFLNK | 0o777), b"/etc/passwd")]), "is a link"),
    "device": (zipped([(special("pipe", stat.S_IFIFO | 0o644), b"")]), "is a link or a special file"),
    "twice": (zipped([("a", b"1"), ("./a", b"2")]), "occurs twice"),
    "marker": (zipped([(".mrl_jax.json", b"{}")]), "its name is reserved"),
    "encrypted": (encrypted(), "is encrypted"),
    "bomb": (zeros(2**31), "1100:1"),
    "empty": (zipped([]), "0 members"),
    "cut": (GOOD[:-100], "cannot be unpacked"),
    "cut early": (GOOD[:1000], "cannot be unpacked"),
    "no zip": (b"<html>", "cannot be unpacked"),
    "nothing": (b"", "cannot be unpacked"),
    "bad CRC": (GOOD.replace(b"hello", b"jello"), "Bad CRC-32 for file 'readme.txt'"),
    "bad deflate": (zipped([("a", bytes(500))], zipfile.ZIP_DEFLATED).replace(b"c`", b"\xff\xff"), "cannot be unpack"),
    "bad bzip2": (zipped([("a", BLOB[:500])], zipfile.ZIP_BZIP2).replace(b"BZh9", b"BZh0"), "cannot be unpacked"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BAD)
def test_unfit_zips_are_refused_and_leave_nothing(server, tmp_path, kind):
    data, match = BAD[kind]
    (tmp_path / "in").mkdir()
    archive = tmp_path / "in" / "a.zip"
    archive.write_bytes(data)
    refused(match, unpack_zip, archive, tmp_path / "out" / "set")
    assert names_in(tmp_path / "out") == []
    # The same zip as a download with the right digest.
    server.files |= {KEY: data, SUMS: sums_of(data)}
    refused(match, download, REPO, NAME, tmp_path / "out" / "set")
    assert names_in(tmp_path / "out") == []
    assert names_in(tmp_path) == ["in", "out"]


def test_a_zip_of_ones_own_is_unpacked(tmp_path):
    archive = tmp_path / "own.zip"
    archive.write_bytes(zipped([("./a/b.txt", b"1"), ("a/c/", b""), ("d..txt", bytes(10**6))], zipfile.ZIP_DEFLATED))
    unpack_zip(archive, tmp_path / "deep" / "set")
    assert names_in(tmp_path / "deep") == ["set"]
    assert names_in(tmp_path / "deep" / "set") == ["a", "d..txt"]
    assert (tmp_path / "deep" / "set" / "a" / "b.txt").read_bytes() == b"1"
    assert (tmp_path / "deep" / "set" / "a" / "c").is_dir()
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "deep" / "set").stat().st_mode) == 0o777 & ~umask
    refused("already holds other files", unpack_zip, archive, tmp_path / "deep" / "set")
    refused("does not exist or is not a file", unpack_zip, tmp_path / "absent.zip", tmp_path / "other")
    refused("does not exist or is not a file", unpack_zip, tmp_path, tmp_path / "other")


def test_no_space_for_the_content_is_reported_before_writing(tmp_path, monkeypatch):
    (tmp_path / "a.zip").write_bytes(GOOD)
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(shutil, "copyfileobj", lambda *_: pytest.fail("something was written"))
    refused("1,000 are free.*free space", unpack_zip, tmp_path / "a.zip", tmp_path / "set")
    assert names_in(tmp_path) == ["a.zip"]


_KILLED = """
import os, shutil, signal, sys
from mrl_jax.data.published.hub import download
copy = shutil.copyfileobj
def once(source, sink, size):
    copy(source, sink, size)
    sink.flush()
    os.kill(os.getpid(), signal.SIGKILL)
shutil.copyfileobj = once
download(*sys.argv[1:])
"""


@pytest.mark.slow
def test_a_kill_while_unpacking_leaves_no_copy_as_complete(server, tmp_path):
    command = [sys.executable, "-c", _KILLED, REPO, NAME, os.fspath(tmp_path / "wiki")]
    online = {**os.environ, "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=online)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "wiki").exists()
    left = next(path for path in tmp_path.iterdir() if path.suffix == ".unpack")
    assert (left / "wiki" / "features.bin").read_bytes() == BLOB  # it was killed during the download
    download(REPO, NAME, tmp_path / "wiki")
    assert_complete(tmp_path / "wiki")
    assert [sent for _, sent in server.asked(NAME)] == [len(GOOD), 0]
