"""Every reader of files and requests: how a small valid file is written, and how it is read."""

import dataclasses
import hashlib
import io
import json
import shutil
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from fuzzing import samples
from layout_files import CELLS, LAYOUT_FILES, SIZES, inria_short, small_set, write_layout

from mrl_jax.errors import InputError

__all__ = ["READERS", "Reader"]


class Reader(NamedTuple):
    """How files of a kind are written and read.

    Attributes:
        write: into an empty folder; returns the path that is read, a file or a folder.
        read: that path; raises `InputError` where it refuses.
        sign: after a mutation, gives the files checksums that fit, so that what lies behind them is read, too.
        only: endings of the files that are damaged; empty for all.
        alone: whether each file of the folder is read by itself.
    """

    write: Callable[[Path], Path]
    read: Callable[[Path], Any]
    sign: Callable[[Path], None] | None = None
    only: tuple[str, ...] = ()
    alone: bool = False


# --- data files: their arrays, and data sets ---


def _read_arrays(path: Path) -> None:
    """Read every array of a file; those after one that is refused, too."""
    from mrl_jax.data.formats import open_arrays

    refused = None
    with open_arrays(path) as arrays:
        for key in arrays:
            try:
                value = arrays[key]
                assert isinstance(value, np.ndarray)
                assert value.dtype.kind in "biufcSU"
                value.tolist() if value.size < 10_000 else value.max()
            except InputError as error:
                refused = refused if key in samples.NEVER_READ else error
    if refused is not None:
        raise refused


def _file(write: Callable[[Path], Path], name: str) -> Callable[[Path], Path]:
    return lambda folder: write(folder / name)


def _write_layout(name: str, folder: Path) -> Path:
    return write_layout(name, folder, small_set(CELLS))[0]


@cache
def _small_catalog() -> None:
    """Give the catalog the small sizes of the layout files."""
    from mrl_jax.data.published.catalog import CATALOG

    for name, facts in CATALOG.items():
        CATALOG[name] = dataclasses.replace(facts, sizes=SIZES, class_names=())


def _load(set_name: str | None, path: Path) -> None:
    from mrl_jax.data.load import load_dataset

    _small_catalog()
    load_dataset(path, set_name=set_name).digest()


def _write_csv(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    lines = ["split,label,image,text_0,text_1,id"]
    for split, n in SIZES.items():
        for i in range(n):
            image, text = rng.normal(size=3).round(3).tolist(), rng.normal(size=2).round(3).tolist()
            lines.append(f'{split},{"abc"[i % 3]},"{image}",{text[0]},{text[1]},{split}{i}')
    path = folder / "table.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def _write_keys(folder: Path) -> Path:
    path = folder / "keys.json"
    path.write_text(json.dumps({"image": ["I_tr", "I_te"], "text": ["T_tr", "T_te"], "labels": "Y"}))
    return path


def _read_keys(path: Path) -> None:
    from mrl_jax.cut_options import key_entries, parse_keys

    parse_keys(key_entries([str(path)]))


# --- embeddings ---


def _embeddings() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = {m: rng.normal(size=(12, 4)).astype(np.float32) for m in ("image", "text")}
    names = np.array(["cat", "dog"])[np.arange(12) % 2]
    return arrays | {"labels": names, "ids": np.arange(12), "class_names": np.array(["cat", "dog"])}


def _write_embeddings(folder: Path) -> Path:
    np.savez(folder / "embeddings.npz", **_embeddings())  # type: ignore[arg-type]
    return folder / "embeddings.npz"


def _write_clip(folder: Path) -> Path:
    arrays = _embeddings()
    for at, key in (("img_emb/img_emb_0", "image"), ("text_emb/text_emb_0", "text"), ("labels/labels", "labels")):
        path = folder / "clip" / f"{at}.npy"
        path.parent.mkdir(parents=True)
        np.save(path, arrays[key])
    return folder / "clip"


def _read_embeddings(path: Path) -> None:
    from mrl_jax.eval.embeddings import read_embeddings

    read_embeddings(path)


# --- noise ---


def _read_noise(path: Path) -> None:
    from mrl_jax.noise.files import read_noise_file

    noisy, described = read_noise_file(path, samples.noisy_labels()[0], ("image", "text"), 3)
    assert noisy.labels.shape == noisy.clean.shape == (2, 60)
    assert np.isin(noisy.labels, range(3)).all()
    json.dumps(described, allow_nan=False)


def _read_matrix(path: Path) -> None:
    from mrl_jax.noise.files import read_transition_matrix

    matrix = np.array(read_transition_matrix(path, 3))
    assert matrix.shape == (3, 3)
    assert np.allclose(matrix.sum(axis=1), 1, atol=2e-6)


# --- folders of runs, sweeps and leaderboards ---


def _unchecked(write: Callable[[Path], Path]) -> Callable[[Path], Path]:
    """The folder without checksums, so that what is damaged is read."""

    def written(folder: Path) -> Path:
        path = write(folder)
        for file in path.rglob("checksums.json"):
            file.unlink()
        return path

    return written


def _write_run(folder: Path) -> Path:
    """A complete run of one epoch, without its training and its checkpoints."""
    import jax
    from toy import toy_arrays, toy_config

    from mrl_jax.run.folder import RunFolder
    from mrl_jax.run.model import Model
    from mrl_jax.training.run_spec import prepare_data, prepare_run

    config = toy_config(epochs=1, noise_rate=0.3)
    prepared = prepare_data(config, toy_arrays())
    spec = prepare_run(config, prepared)
    run = RunFolder.create(folder / "run", spec.config)
    run.settle(prepared.described, spec.noise)
    params = jax.tree.map(lambda x: np.full(x.shape, 0.1, x.dtype), spec.template.state.params)
    run.write_model(Model(params, prepared.stats), prepared.dataset.modalities, 1)
    scores: dict[str, Any] = {"map": {"sound->touch": 0.5, "touch->sound": 0.25}, "average": 0.375}
    run.log({"epoch": 1, "train": {"loss": 1.5}, "valid": scores})
    n = prepared.described["samples"]["train"]["sound"]
    run.write_samples(1, {"predicted": np.zeros((2, n), np.int32), "margin": np.zeros((2, n), np.float16)})
    both = {name: {"epoch": 1, **scores} for name in ("best", "last")}
    result = {
        "test": both,
        "valid": both,
        "chance": {"sound->touch": 0.3},
        "wrong_share": {"sound": 0.3, "touch": None},
    }
    run.write("result.json", {**result, "seconds": 1.5, "kept": "best", "device": "cpu", "versions": {"jax": "0.10"}})
    return run.path


def _read_run(path: Path) -> None:
    from mrl_jax.run.folder import RunFolder
    from mrl_jax.run.load import load_run

    folder = RunFolder.open(path)
    folder.config(), folder.data(), folder.noise(), folder.metrics(), folder.lengths(), folder.result()
    folder.samples(), folder.source(), folder.imported()
    load_run(path)


def _write_trained(folder: Path) -> Path:
    """A run with checkpoints and without a model, so that these are read."""
    from toy import lose, toy_arrays, toy_config

    from mrl_jax import train

    train(toy_config(epochs=1), folder / "run", data=toy_arrays(), keep_checkpoints=True)
    lose(folder / "run", "model.npz", "result.json")
    return folder / "run"


def _read_checkpoint(path: Path) -> None:
    from mrl_jax.run.load import load_run

    load_run(path, "last")


def _write_sweep(folder: Path) -> Path:
    from toy import toy_config

    from mrl_jax.sweep.folder import SweepFolder

    (folder / "sweep").mkdir()
    named = {f"seed={i}": toy_config(seed=i, noise_rate=0.2 * i) for i in range(3)}
    SweepFolder(folder / "sweep").write(named)
    return folder / "sweep"


def _read_sweep(path: Path) -> None:
    from mrl_jax.sweep.folder import SweepFolder

    SweepFolder.open(path).configs()


def _write_leaderboard(folder: Path) -> Path:
    from mrl_jax.checksums import write_first

    asked = {
        "methods": ["mrl", "cca"],
        "noise_rates": [0.2, 0.8],
        "seeds": 3,
        "settings": {"epochs": 2},
        "sha256": "0" * 64,
    }
    (folder / "board").mkdir()
    write_first(folder / "board", "leaderboard.json", json.dumps({"format": 1, **asked}) + "\n")
    return folder / "board"


def _read_leaderboard(path: Path) -> None:
    from mrl_jax.leaderboard.board import _asked, _configs

    _configs(_asked(path, None, None, None, {}, resume=True))


# --- prepared sets ---


def _write_prepared(folder: Path) -> Path:
    from mrl_jax.data.published.prepare import prepare

    _small_catalog()
    (folder / "source").mkdir()
    source = inria_short(folder / "source" / "INRIA-Websearch.mat", small_set())
    prepare("inria-websearch", source, data_dir=folder / "prepared")
    return folder / "prepared"


def _read_prepared(path: Path) -> None:
    from mrl_jax.data.published import prepared

    prepared.load("inria-websearch", data_dir=path).digest()
    for copy in prepared.copies("inria-websearch", path):
        prepared.verify(copy)


def _sign_prepared(path: Path) -> None:
    """Give the index the digests of what it holds, as far as it still has the entries."""
    from mrl_jax.checksums import json_checksum

    for file in path.rglob("prepared.json"):
        try:
            index = json.loads(file.read_bytes())
            lines = [f"{key} {facts['sha256']}\n" for key, facts in index["arrays"].items()]
            index["sha256"] = hashlib.sha256("".join(lines).encode()).hexdigest()
            index.pop("checksum", None)
            file.write_text(json.dumps(index | {"checksum": json_checksum(index)}))
        except Exception:
            continue


# --- indexes ---


def _write_index(metric: str, folder: Path) -> Path:
    from mrl_jax import Index

    rng = np.random.default_rng(0)
    index = Index(8, metadata={"modality": "sound"}, metric=metric)
    payloads = [{"name": f"row {i}"} for i in range(12)]
    rows = rng.normal(size=(12, 8)) > 0 if metric == "hamming" else rng.normal(size=(12, 8))
    index.add(rows, ids=np.arange(12), labels=rng.integers(0, 3, 12), payloads=payloads)
    index.save(folder / "index.npz")
    return folder / "index.npz"


def _read_index(path: Path) -> None:
    from mrl_jax import Index

    index = Index.load(path)
    assert sum(map(len, index.embeddings())) == len(index)
    repr(index)


# --- weights, archives, pictures and tables for featurize ---


def _write_official(folder: Path) -> Path:
    import torch

    def network(width: int) -> dict[str, Any]:
        sizes = [(5, width), (4, 5)]
        return {
            f"fc{i + 1}.{p}": torch.ones(s if p == "weight" else s[0])
            for i, s in enumerate(sizes)
            for p in ("weight", "bias")
        }

    content = {"epoch": 3, "C": torch.ones(4, 3), "model_state_dict_0": network(6), "model_state_dict_1": network(4)}
    torch.save(content | {"Img2Txt": np.float64(0.5), "Txt2Img": 0.25}, folder / "best_checkpoint.t7")
    return folder / "best_checkpoint.t7"


def _read_official(path: Path) -> None:
    from mrl_jax.export.official import read_official

    read_official(path)


def _write_archive(folder: Path) -> Path:
    import zipfile

    (folder / "archive").mkdir()
    with zipfile.ZipFile(folder / "archive" / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("set/a.txt", "x" * 500)
        archive.writestr("set/b/c.npy", samples.MATRIX.tobytes())
    return folder / "archive"


def _read_archive(path: Path) -> None:
    from mrl_jax.data.published.hub import unpack_zip

    try:
        unpack_zip(path / "set.zip", path / "out" / "set")
        assert {p.name for p in path.iterdir()} == {"set.zip", "out"}
    finally:
        shutil.rmtree(path / "out", ignore_errors=True)


_PICTURES = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp", "gif": "image/gif", "bmp": "image/bmp"}


def _write_picture(kind: str, folder: Path) -> Path:
    from PIL import Image

    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (12, 15, 3)).astype(np.uint8))
    frames = [picture.rotate(90 * i) for i in (1, 2)] if kind in ("gif", "webp") else []
    more: dict[str, Any] = {"save_all": True, "append_images": frames} if frames else {}
    exif = Image.Exif()
    exif[0x0112] = 6
    more |= {"exif": exif} if kind in ("jpg", "png", "webp") else {}
    picture.save(folder / f"picture.{kind}", **more)
    return folder / f"picture.{kind}"


def _read_picture(kind: str, path: Path) -> None:
    """As search, the embedded set, `featurize` and the server read it: refused where one of them refuses."""
    from PIL import Image

    from mrl_jax.data.emoji.features import picture_array
    from mrl_jax.data.featurize.raw_table import read_rgb
    from mrl_jax.search.picture_grid import open_picture
    from mrl_jax.search.server.limits import Limits, RefusedError
    from mrl_jax.search.server.pictures import as_file

    def sent() -> None:
        try:
            with as_file(path.read_bytes(), _PICTURES[kind], Limits(pixels=10**6)) as file:
                assert Path(file).is_file()
        except RefusedError as error:
            raise InputError(str(error)) from error

    Image.MAX_IMAGE_PIXELS = 10**6  # by default 89 million, which take seconds
    refused = None
    for read in (lambda: open_picture(path), lambda: picture_array(path), lambda: read_rgb(path), sent):
        try:
            read()
        except InputError as error:
            refused = error
    if refused is not None:
        raise refused


def _write_table(folder: Path) -> Path:
    from raw_files import table, write_csv

    return write_csv(folder / "texts.csv", table())


def _read_table(path: Path) -> None:
    from mrl_jax.data.featurize.raw_table import digest_inputs, find_pictures, read_table

    found = read_table(path, 0)
    find_pictures(found.rows, path.parent)
    digest_inputs(found.rows)


# --- the server ---

_REQUESTS = {
    "text": b"GET /api/search?text=cat&top=2&modality=text&gallery=image HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "row": b"GET /api/search?row=image:test:0&top=3 HTTP/1.1\r\nhost: localhost\r\naccept: */*\r\n\r\n",
    "rows": b"GET /api/rows?modality=text&find=cat&offset=10 HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "about": b"GET /api/about HTTP/1.1\r\nhost: 127.0.0.1:8000\r\norigin: http://127.0.0.1:8000\r\n\r\n",
    "picture": b"GET /api/picture/0/test/0 HTTP/1.1\r\nhost: localhost\r\nsec-fetch-site: same-origin\r\n\r\n",
}


def _write_requests(folder: Path) -> Path:
    from PIL import Image

    (folder / "requests").mkdir()
    file = io.BytesIO()
    Image.new("RGB", (9, 9), (200, 90, 30)).save(file, "PNG")
    post = b"POST /api/search?top=2 HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/png\r\n\r\n" + file.getvalue()
    for name, data in {**_REQUESTS, "post": post}.items():
        (folder / "requests" / name).write_bytes(data)
    return folder / "requests"


@cache
def _served() -> Any:
    """A run of the embedded set, served; trained for one epoch."""
    import tempfile

    from mrl_jax.train import main as train_main

    folder = Path(tempfile.mkdtemp(prefix="mrl-jax-fuzz-"))
    flags = ["--hidden-dims", "16", "--embed-dim", "8", "--epochs", "1", "--modalities", "image", "text"]
    assert train_main([*flags, "--workdir", str(folder / "run")]) == 0
    return serve(folder / "run")


def serve(workdir: Path, service: Any = None) -> Callable[[bytes], tuple[int, bytes]]:
    """The application of a run, or of its service, as a function from the bytes of a request to status and body."""
    import asyncio

    from mrl_jax.search.searcher import Searcher
    from mrl_jax.search.server.app import make_app
    from mrl_jax.search.server.guard import loopback_names
    from mrl_jax.search.server.limits import Limits
    from mrl_jax.search.server.pictures import Thumbnails
    from mrl_jax.search.server.serving import prepared

    limits, small = Limits(body=100_000, pixels=100_000), Thumbnails(None)
    if service is None:
        service, small = prepared(Searcher(workdir), None, limits)
    app, loop = make_app(service, small, limits, loopback_names("127.0.0.1"), 10), asyncio.new_event_loop()
    return lambda data: loop.run_until_complete(asked(app, data))


async def asked(app: Any, data: bytes) -> tuple[int, bytes]:
    """Send a request to an application, as a server does once it has parsed it."""
    from urllib.parse import unquote

    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    method, _, rest = first.partition(b" ")
    target = rest.rpartition(b" ")[0]
    headers = [(k.strip().lower(), v.strip()) for k, _, v in (line.partition(b":") for line in lines)]
    raw, _, query = target.partition(b"?")
    if not (method.isalpha() and raw.startswith(b"/") and target.isascii() and min(target) > 32):
        raise InputError("the parser of the server refuses this")
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method.decode().upper(),
        "scheme": "http",
        "root_path": "",
    }
    scope |= {
        "path": unquote(raw.decode()),
        "raw_path": raw,
        "query_string": query,
        "headers": headers,
        "asgi": {"version": "3.0"},
    }
    sent, messages = [{"type": "http.request", "body": body, "more_body": False}], []

    async def receive() -> Any:
        return sent.pop() if sent else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        messages.append(message)

    await app(scope, receive, send)
    return messages[0]["status"], b"".join(m.get("body", b"") for m in messages)


def check_answer(status: int, body: bytes) -> None:
    """An answer of the server is one of a request that it takes, or a refusal in one line."""
    if status >= 500 and status != 503:
        raise AssertionError(f"{status}: {body[:200]!r}")
    if status >= 400:
        message = json.loads(body)["error"]
        assert len(message.splitlines()) == 1
        raise InputError(message)


def _read_request(path: Path) -> None:
    check_answer(*_served()(path.read_bytes()))


def _noise_reader(name: str) -> Reader:
    return Reader(partial(samples.write_noise, name), _read_noise if name.startswith("noise") else _read_matrix)


READERS: dict[str, Reader] = {
    **{name: Reader(_file(write, name), _read_arrays) for name, write in samples.WRITERS.items()},
    "csv": Reader(_write_csv, partial(_load, None)),
    **{
        f"load: {name}": Reader(partial(_write_layout, name), partial(_load, facts[2]))
        for name, facts in LAYOUT_FILES.items()
    },
    "keys": Reader(_write_keys, _read_keys),
    **{name: _noise_reader(name) for name in samples.NOISE},
    "embeddings": Reader(_write_embeddings, _read_embeddings),
    "embeddings: clip-retrieval": Reader(_write_clip, _read_embeddings),
    "prepared set": Reader(_write_prepared, _read_prepared),
    "prepared set, signed": Reader(_write_prepared, _read_prepared, _sign_prepared, (".json",)),
    "run": Reader(_write_run, _read_run),
    "run, no checksums": Reader(_unchecked(_write_run), _read_run),
    "checkpoint": Reader(_write_trained, _read_checkpoint),
    "sweep": Reader(_unchecked(_write_sweep), _read_sweep),
    "leaderboard": Reader(_unchecked(_write_leaderboard), _read_leaderboard),
    "index": Reader(partial(_write_index, "cosine"), _read_index),
    "index: hamming": Reader(partial(_write_index, "hamming"), _read_index),
    "official weights": Reader(_write_official, _read_official),
    "archive": Reader(_write_archive, _read_archive),
    **{f"picture: {kind}": Reader(partial(_write_picture, kind), partial(_read_picture, kind)) for kind in _PICTURES},
    "texts": Reader(_write_table, _read_table),
    "requests": Reader(_write_requests, _read_request, alone=True),
}
"""Name -> reader."""
