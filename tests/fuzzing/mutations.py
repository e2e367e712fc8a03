"""Damage to files: bytes of any file, and the parts of those whose format is known.

A mutation that knows the format keeps what a reader checks first (checksums of zip and PNG, lengths of headers), so
that what lies behind is reached: wrong types and shapes, huge claims, swapped members, deep nesting, odd numbers.
"""

import copy
import csv
import io
import json
import random
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["mutate", "mutate_bytes"]

TEXTS = (
    *(
        "",
        " ",
        "a\nb",
        "a\r\n",
        "\0",
        "\x1b[31m",
        "\u202e",
        "\ufeff",
        "é",
        "😀",
        "../../x",
        "/etc/passwd",
        "=1+1",
        "a->b",
    ),
    *("$\\frac{1}$", "%s", "{x}", "-1", "nan", "NaN", "inf", "1e999", "true", "None", "x" * 300, "y" * 100_000),
)
NUMBERS = (0, 1, -1, 2, 255, 2**15, 2**24, 2**31 - 1, 2**32 - 1, 2**40, 2**53 + 1, 2**63, 2**64 - 1, 2**70, 10**40)
FLOATS = (0.5, -0.0, 1e-320, 1e38, 3.5e38, 1.7e308, float("nan"), float("inf"), float("-inf"))


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Damage a file, in about two cases of three with regard to its format."""
    known = _known(data)
    if known is not None and rng.random() < 0.65:
        try:
            return known(data, rng)
        except Exception:  # the file is damaged already
            pass
    return mutate_bytes(data, rng)


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Damage one to four places, half of them within 512 bytes of the start or the end."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 4))):
        if not out:
            break
        where = rng.random()
        edge = min(512, len(out))
        at = rng.randrange(edge) if where < 0.25 else rng.randrange(len(out))
        if 0.25 <= where < 0.5:
            at = len(out) - 1 - rng.randrange(edge)
        span = rng.choice((1, 2, 4, 8, 16, 64, 512))
        kind = rng.randrange(10)
        if kind <= 1:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            out[at] = rng.randrange(256)
        elif kind == 3:
            del out[at:]
        elif kind == 4:
            out[at:at] = out[at : at + span]
        elif kind == 5:
            del out[at : at + span]
        elif kind == 6:
            out[at : at + span] = bytes(len(out[at : at + span]))
        elif kind == 7:
            out[at:at] = b"\xff" * span
        elif kind == 8:  # an aligned number
            size = rng.choice((2, 4, 8))
            at -= at % size
            number = rng.choice((*NUMBERS, rng.getrandbits(40)))
            out[at : at + size] = (number % (1 << 8 * size)).to_bytes(size, rng.choice(("little", "big")))
        else:  # decimal digits, as in the header of an .npy
            digits = [i for i in range(min(4096, len(out))) if 48 <= out[i] < 58] or [at]
            at = rng.choice(digits)
            out[at : at + 1] = str(rng.getrandbits(rng.choice((3, 16, 50)))).encode()
    return bytes(out)


def _known(data: bytes) -> Callable[[bytes, random.Random], bytes] | None:
    """The mutation for the format of a file."""
    if data.startswith(b"\x93NUMPY"):
        return _npy
    if data.startswith(b"PK\x03\x04"):
        return _zip
    if data.startswith(b"\x89PNG"):
        return _png
    if b"\x89HDF\r\n\x1a\n" in data[:1024]:
        return _hdf5
    if data[124:128] == b"\x00\x01IM":
        return _mat5
    if data.startswith(b"PAR1"):
        return _parquet
    if data.startswith((b"GET ", b"POST ")):
        return _request
    if data.lstrip()[:1] in (b"{", b"["):
        return _json_lines if data.count(b"\n{") else _json
    return _table if data[:1000].isascii() and data.count(b"\n") > 1 and b"\0" not in data[:1000] else None


# --- JSON ---


def odd_value(rng: random.Random) -> Any:
    """A value that JSON may hold and its reader may not expect."""
    kind = rng.randrange(9)
    if kind == 0:
        return rng.choice((None, True, False, [], {}, [[]], {"": None}))
    if kind == 1:
        return rng.choice(NUMBERS) * rng.choice((1, 1, -1))
    if kind == 2:
        return rng.choice(FLOATS)
    if kind == 3:
        return rng.choice((*TEXTS, "\ud800"))
    if kind == 4:  # deep
        value: Any = rng.choice((1, {}, "x"))
        for _ in range(rng.choice((5, 63, 70, 400))):
            value = [value] if rng.random() < 0.5 else {"a": value}
        return value
    if kind == 5:
        return [rng.choice((0, -1, 2.5, "x", None, [], True)) for _ in range(rng.choice((1, 2, 3, 60)))]
    if kind == 6:
        return {rng.choice(TEXTS[:-1]): rng.choice((1, "x", None, [])) for _ in range(3)}
    return rng.choice((1, 0, "x", 10**4400 if kind == 8 else 3))


def _places(value: Any) -> list[tuple[Any, Any]]:
    """All (container, key) of a tree; of long lists some."""
    found, todo = [], [value]
    while todo:
        at = todo.pop()
        keys = (
            list(at) if isinstance(at, dict) else range(len(at)) if len(at) < 50 else range(0, len(at), len(at) // 20)
        )
        found += [(at, key) for key in keys]
        todo += [at[key] for key in keys if isinstance(at[key], dict | list)]
    return found


def _changed_json(value: Any, rng: random.Random) -> Any:
    """Change one to three places of a tree, in place."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = _places(value) if isinstance(value, dict | list) else []
        if not places or rng.random() < 0.03:
            return odd_value(rng)
        at, key = rng.choice(places)
        kind = rng.randrange(8)
        if kind <= 2:
            at[key] = odd_value(rng)
        elif kind == 3:
            del at[key]
        elif kind == 4:  # another value of the file
            other, name = rng.choice(places)
            at[key], other[name] = copy.deepcopy(other[name]), copy.deepcopy(at[key])  # none within itself
        elif kind == 5 and isinstance(at, dict):
            at[rng.choice(TEXTS)] = at.pop(key)
        elif kind == 6 and isinstance(at, list):
            at.extend([at[key]] * (1 if isinstance(at[key], dict | list) else rng.choice((1, 2, 500))))
        elif isinstance(at[key], int | float) and not isinstance(at[key], bool):
            at[key] = rng.choice((at[key] + 1, -at[key], at[key] * 1000, str(at[key]), [at[key]], _near(at[key], rng)))
        else:
            at[key] = odd_value(rng)
    return value


def _near(number: float, rng: random.Random) -> float:
    return number * rng.choice((0.5, 1.5)) + rng.choice((-0.1, 0.1))


def _dumped(value: Any, rng: random.Random) -> bytes:
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
    if rng.random() < 0.05:
        text = text.replace("1", rng.choice(("1e999", "Infinity", "01", "1_0", "1" * 5000)), 1)
    return text.encode("utf-8", "surrogatepass")


def _json(data: bytes, rng: random.Random) -> bytes:
    return _dumped(_changed_json(json.loads(data), rng), rng) + b"\n"


def _json_lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    at, kind = rng.randrange(len(lines)), rng.randrange(6)
    if kind <= 3:
        lines[at] = _json(lines[at], rng)
    elif kind == 4:
        lines.insert(rng.randrange(len(lines)), lines[at])
    else:
        del lines[at]
    return b"".join(lines)


# --- text ---


def _table(data: bytes, rng: random.Random) -> bytes:
    """Rows of cells: another cell, row, column or separator."""
    rows = list(csv.reader(io.StringIO(data.decode())))
    mark = rng.choice((",", ",", ",", ",", ";", "\t"))
    for _ in range(rng.choice((1, 1, 2))):
        at = rng.choice((0, rng.randrange(len(rows))))
        column, kind = rng.randrange(len(rows[at]) or 1), rng.randrange(8)
        if kind <= 2:
            rows[at][column] = rng.choice((*TEXTS, "[1, 2]", "[1, [2]]", '[1, "x"]', "[" * 2000, "{}", "1;2"))
        elif kind == 3:
            rows[at][column] = str(rng.choice((*NUMBERS, *FLOATS)))
        elif kind == 4:
            del rows[at][column]
        elif kind == 5:
            rows.insert(rng.randrange(len(rows)), rows[at])
        elif kind == 6:
            for row in rows:
                row[column:column] = row[-1:]
        else:
            del rows[at]
    file = io.StringIO()
    csv.writer(file, delimiter=mark, quoting=rng.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL))).writerows(rows)
    return file.getvalue().encode("utf-8", "surrogatepass")


# --- arrays ---


def odd_array(rng: random.Random, like: np.ndarray | None = None) -> np.ndarray:
    """An array that is written without pickle, and may not be what a reader expects."""
    if like is not None and like.dtype.kind in "fiu" and like.size and rng.random() < 0.6:
        x, kind = like.copy(), rng.randrange(9)
        if kind == 0:
            x = x.astype(np.float32)
            x.flat[rng.randrange(x.size)] = rng.choice(FLOATS)
        elif kind == 1:
            x.flat[rng.randrange(x.size)] = -1 if x.dtype.kind == "i" else 2
        elif kind == 2:
            x = x[:-1]
        elif kind == 3:
            x = x.T
        elif kind == 4:
            x = x.astype(rng.choice(("f2", "f8", "i1", "u8", ">f4", "c8", "?")))
        elif kind == 5:
            x = x[None] if rng.random() < 0.5 else x.reshape(-1)
        elif kind == 6:
            x = np.concatenate([x, x])
        elif kind == 7:
            x = x.astype("U8")
        else:
            x[...] = x.flat[0]
        return x
    text = [t for t in TEXTS if len(t) < 400]
    return rng.choice(
        (
            lambda: np.zeros((0, 3), np.float32),
            lambda: np.zeros(0, np.int64),
            lambda: np.float32(rng.choice(FLOATS)),
            lambda: np.array(rng.choice(NUMBERS) % 2**64, np.uint64),
            lambda: np.zeros((2, 3, 4), np.float32),
            lambda: np.full((5, 3), rng.choice(FLOATS), np.float64),
            lambda: np.array([rng.choice(text) for _ in range(rng.choice((1, 3, 40)))]),
            lambda: np.array([b"ab", b"\xff\xfe", b""]),
            lambda: np.zeros(3, [("a", "f4"), ("b", "i8")]),
            lambda: np.array(["2020-01-01"], "M8[D]"),
            lambda: np.zeros((1,) * 32, np.int8),
            lambda: np.ones((3, 2**12), bool),
            lambda: np.array([2**63, 2**64 - 1, 0], np.uint64),
            lambda: np.zeros((100, 20_000), np.int8),
        )
    )()


def _npy_bytes(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
    return file.getvalue()


def _npy(data: bytes, rng: random.Random) -> bytes:
    """Another header before the same values, or other values."""
    file = io.BytesIO(data)
    array = np.lib.format.read_array(file, allow_pickle=False)
    if rng.random() < 0.5:
        return _npy_bytes(odd_array(rng, array))
    huge = rng.choice(NUMBERS)
    shapes = [str(array.shape), f"({array.size},)", f"({huge},)", f"({huge}, {huge})", f"(0, {huge})", f"({'1,' * 70})"]
    shapes += ["(-1,)", "()", "(0,)", "(1.0,)", "('a',)", "[2, 3]", "(True,)", "(" * 300]
    own, records = repr(array.dtype.str), "'" + "f4," * 50 + "f4'"
    kinds = [own, own, own, records, "'|O'", "'<f8'", "'<U1000000'", "'<U0'", "'|V8'", "'(2,3)<f4'", "'>i2'", "'|S0'"]
    kinds += ["[('a', '<f4')]", "'x'", "1", "None", "'<m8[s]'", "'?'"]
    shape, kind = rng.choice(shapes), rng.choice(kinds)
    order = rng.choice(("True", "False", "False", "1", "'x'"))
    head = f"{{'descr': {kind}, 'fortran_order': {order}, 'shape': {shape}, }}"
    if rng.random() < 0.1:
        head = rng.choice(("{" * 400, "[" * 90 + "]" * 90, "1" * 5000, "{'a': 1}", "\n\n", " " * 20_000, "a(" * 100))
    version = rng.choice((1, 1, 1, 2, 3, 9))
    size = struct.pack("<H" if version == 1 else "<I", len(head) + 1)
    body = data[file.tell() - array.nbytes :] if array.nbytes else b""
    return b"\x93NUMPY" + bytes((version, 0)) + size + head.encode() + b"\n" + body


def _zip(data: bytes, rng: random.Random) -> bytes:
    """Another member, packed again with sizes and checksums that fit."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [[info.filename, info.compress_type, archive.read(info)] for info in archive.infolist()]
    at, kind = rng.randrange(len(members)), rng.randrange(10)
    name, packing, content = members[at]
    if kind <= 3:
        members[at][2] = mutate(content, rng)
    elif kind == 4:
        other = rng.choice(members)
        members[at][2], other[2] = other[2], content
    elif kind == 5:
        members[at][0] = rng.choice((*TEXTS, "labels.npy", "../x.npy", "a/b.npy", "x", members[0][0])) or "x"
    elif kind == 6:
        del members[at]
    elif kind == 7:
        members[at][1] = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    elif kind == 8:  # a claim that is far larger than the file, or not
        zeros = np.zeros((rng.choice((10, 3000, 30_000)), 100), np.float32)
        members[at][1:] = [zipfile.ZIP_DEFLATED, _npy_bytes(zeros)]
    else:
        members += [[name, packing, content]] * rng.choice((1, 1, 60))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, packing, content in members:
            info = zipfile.ZipInfo(name or "x")
            info.compress_type = packing
            archive.writestr(info, content)
    out = file.getvalue()
    return mutate_bytes(out, rng) if rng.random() < 0.1 else out


def _hdf5(data: bytes, rng: random.Random) -> bytes:
    """One of its arrays is another, of any type that HDF5 has."""
    import h5py

    file = io.BytesIO(data)
    with h5py.File(file, "r+") as opened:
        names: list[str] = []
        opened.visit(lambda name: names.append(name) if isinstance(opened[name], h5py.Dataset) else None)
        name = rng.choice(names)
        attributes = dict(opened[name].attrs)
        like = opened[name][()] if opened[name].size and opened[name].dtype.kind in "fiu" else None
        del opened[name]
        kind = rng.randrange(10)
        if kind <= 4:
            value = odd_array(rng, like)
            value = value.astype("S") if value.dtype.kind == "U" and value.dtype.itemsize else value
            opened.create_dataset(name, data=value if value.dtype.kind not in "UM" else "x")
        elif kind == 5:  # claims that take no room
            shape = rng.choice(((2**40,), (2**20, 2**20), (10**5, 10**4), (0, 2**40)))
            opened.create_dataset(
                name, shape, rng.choice(("f4", "f8", "i1")), chunks=(1000,) + (10,) * (len(shape) - 1)
            )
        elif kind == 6:
            opened[name] = rng.choice((h5py.SoftLink("/x"), h5py.SoftLink("/"), h5py.ExternalLink("/etc/passwd", "/x")))
        elif kind == 7:
            opened.create_group(name)
        elif kind == 8:
            opened.create_dataset(
                name, data=[rng.choice(TEXTS).replace("\0", "") for _ in range(3)], dtype=h5py.string_dtype()
            )
        else:
            opened[name] = h5py.Empty(rng.choice(("f4", "S10")))
        if name in opened and isinstance(opened.get(name, getlink=True), h5py.HardLink):
            for key, value in attributes.items():
                if rng.random() < 0.8:
                    opened[name].attrs[key] = value
    return file.getvalue()


def _mat5(data: bytes, rng: random.Random) -> bytes:
    """One of its variables is another."""
    import scipy.io

    held = {k: v for k, v in scipy.io.loadmat(io.BytesIO(data)).items() if not k.startswith("__")}
    name = rng.choice(list(held))
    value: Any = odd_array(rng, held[name] if isinstance(held[name], np.ndarray) else None)
    kind = rng.randrange(6)
    if kind == 0:
        held[rng.choice(("x" * 31, "labels", "class_names", "train_"))] = held.pop(name)
    elif kind == 1:
        del held[name]
    elif kind == 2:
        cell = np.empty((1, rng.choice((1, 5, 300))), object)
        cell[0, :] = [rng.choice((1.0, "x", np.zeros((2, 2)))) for _ in range(cell.size)]
        held[name] = cell
    elif kind == 3:
        held[name] = rng.choice(("text", {"a": 1}, rng.choice(TEXTS)))
    else:
        held[name] = value if value.dtype.kind not in "MVS" and value.ndim < 6 else 1.0
    file = io.BytesIO()
    scipy.io.savemat(file, held, do_compression=rng.random() < 0.5)
    return file.getvalue()


def _parquet(data: bytes, rng: random.Random) -> bytes:
    """One of its columns is another, or has another name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(data))
    at, n = rng.randrange(table.num_columns), table.num_rows
    field, kind = table.schema.field(at), rng.randrange(10)
    columns = (
        lambda: pa.array([rng.choice(TEXTS[:-1]) for _ in range(n)]),
        lambda: pa.array([[rng.choice(FLOATS)] * rng.choice((0, 1, 6)) for _ in range(n)]),
        lambda: pa.array([[1.0, rng.choice(FLOATS)]] * n),
        lambda: pa.array([None] * n),
        lambda: pa.array([{"a": 1, "b": [rng.choice(TEXTS[:-1])]}] * n),
        lambda: pa.array([rng.choice(NUMBERS) % 2**63 for _ in range(n)]),
        lambda: pa.array([b"\xff\0"] * n),
        lambda: pa.array([[[1, 2], [3]]] * n),
        lambda: pa.array(["x"] * n).dictionary_encode(),
        lambda: pa.array([0] * n, pa.timestamp("ns")),
        lambda: pa.array([rng.choice((None, 1.5, float("nan"))) for _ in range(n)]),
        lambda: pa.array([True, None] * (n // 2) + [False] * (n % 2)),
        lambda: pa.array([1] * n, pa.decimal128(5, 2)),
    )
    if kind <= 6:
        table = table.set_column(at, field.name, rng.choice(columns)())
    elif kind == 7:
        table = table.rename_columns([rng.choice(TEXTS) if i == at else c for i, c in enumerate(table.column_names)])
    elif kind == 8:
        table = table.remove_column(at)
    else:
        table = table.slice(0, rng.choice((0, 1, n // 2)))
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=rng.choice((7, 1000)), compression=rng.choice(("none", "zstd", "gzip")))
    return file.getvalue()


def _png(data: bytes, rng: random.Random) -> bytes:
    """Damage a chunk and give it the checksum that fits, or put in another."""
    chunks, at = [], 8
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        chunks.append([data[at + 4 : at + 8], data[at + 8 : at + 8 + size]])
        at += size + 12
    chosen, kind = rng.choice(chunks), rng.randrange(7)
    if kind <= 2:
        chosen[1] = mutate_bytes(chosen[1], rng)
    elif kind == 3:
        head = bytearray(chunks[0][1])
        where = rng.choice((0, 4))
        head[where : where + 4] = (rng.choice(NUMBERS) % 2**32).to_bytes(4, "big")
        head[8 + rng.randrange(5)] = rng.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
        chunks[0][1] = bytes(head)
    elif kind == 4:
        names = (
            b"zTXt",
            b"iTXt",
            b"tEXt",
            b"iCCP",
            b"eXIf",
            b"tRNS",
            b"PLTE",
            b"acTL",
            b"fcTL",
            b"fdAT",
            b"gAMA",
            b"pHYs",
            b"sRGB",
        )
        text = rng.choice(
            (b"", b"Comment\0\0" + zlib.compress(bytes(10**6)), b"x" * 30, b"MM\0*\0\0\0\x08\xff\xff", b"\0" * 26)
        )
        chunks.insert(rng.randrange(len(chunks) + 1), [rng.choice(names), text])
    elif kind == 5:
        chunks.insert(rng.randrange(len(chunks) + 1), list(chosen))
    else:
        chunks.remove(chosen)
    parts = [
        len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big") for name, body in chunks
    ]
    return data[:8] + b"".join(parts)


def _request(data: bytes, rng: random.Random) -> bytes:
    """Another parameter, header or body of a request."""
    from urllib.parse import quote

    head, _, body = data.partition(b"\r\n\r\n")
    first, *headers = head.decode("latin-1").split("\r\n")
    method, _, rest = first.partition(" ")
    path, _, query = rest.rpartition(" ")[0].partition("?")
    pairs = [pair for pair in query.split("&") if pair]
    for _ in range(rng.choice((1, 1, 2, 3))):
        value = quote(
            rng.choice((*TEXTS[:-1], *map(str, NUMBERS), "image:test:0", "text:test:99999", "a:b:c", "::", "image"))
        )
        kind = rng.randrange(9)
        if kind <= 2 and pairs:
            at = rng.randrange(len(pairs))
            pairs[at] = f"{pairs[at].partition('=')[0]}={value}"
        elif kind == 3:
            pairs.append(f"{rng.choice(('text', 'row', 'gallery', 'modality', 'top', 'find', 'offset', 'x'))}={value}")
        elif kind == 4 and pairs:
            pairs.append(
                rng.choice((rng.choice(pairs), "%ff=%fe", "text=%C0%80", "=", "&&", ";", "a" * 5000, "%", "%zz=1"))
            )
        elif kind == 5 and pairs:
            del pairs[rng.randrange(len(pairs))]
        elif kind == 6:
            names = (
                "host",
                "origin",
                "sec-fetch-site",
                "content-type",
                "content-length",
                "accept-encoding",
                "cookie",
                "expect",
            )
            values = (
                "",
                "evil.example",
                "cross-site",
                "image/png",
                "image/gif",
                "-1",
                "9" * 30,
                "x" * 3000,
                "[::1",
                "null",
            )
            headers.append(f"{rng.choice(names)}: {rng.choice(values)}")
        elif kind == 7:
            paths = ["/", "/api/search", "/api/rows", "/api/about", "/docs", f"/{value}", "//", "/api/%2e%2e"]
            pictures = [f"/api/picture/{at}" for at in (f"0/test/{value}", f"{value}/test/0", f"0/{value}/0")]
            path = rng.choice([*paths, *pictures])
        elif body:
            body = mutate(body, rng)
        else:
            method = rng.choice(("GET", "POST", "HEAD", "PUT", "get"))
    query = "?" + "&".join(pairs) if pairs else ""
    return "\r\n".join([f"{method} {path}{query} HTTP/1.1", *headers]).encode("latin-1", "replace") + b"\r\n\r\n" + body
