"""The table and its pictures: reading them, and refusals before a model is loaded."""

import hashlib
import os

import numpy as np
import pytest
from PIL import Image
from raw_files import COLORS, SPLITS, draw, job_without_models, refused, table, write_csv

from mrl_jax import InputError
from mrl_jax.data.dataset import is_picture
from mrl_jax.data.featurize import pipeline as command
from mrl_jax.data.featurize.raw_table import find_pictures, read_rgb, read_table, read_texts, shown_of


@pytest.fixture
def job(tmp_path):
    return job_without_models(tmp_path)


def test_the_table_is_read_with_a_byte_order_mark_quotes_and_other_columns(tmp_path):
    rows = [{"note": "x", **row} for row in table()]
    rows[0]["text"] = 'a "red", round\ncircle ü'
    rows[1]["split"], rows[2]["split"], rows[3]["split"] = "Validation", "val", "dev"
    path = write_csv(tmp_path / "t.csv", rows, "utf-8-sig")
    path.write_text(path.read_text("utf-8") + "\n\n", "utf-8")
    found = read_table(path, 0)
    by_id = {row.id: row for row in found.rows}
    assert by_id["p0"].text == rows[0]["text"]
    assert by_id["p1"].split == by_id["p2"].split == by_id["p3"].split == "valid"
    assert found.class_names == ["blue", "green", "red"]
    assert found.split_by == "column"
    assert [row.split for row in found.rows] == sorted((row.split for row in found.rows), key=SPLITS.index)
    assert [row.id for row in found.rows if row.split == "valid"] == ["p1", "p2", "p3", "p12", "p13", "p14"]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["10", "9", "-1"], ["-1", "9", "10"]),
        (["1", "01", "2"], ["1", "2"]),
        (["10.0", "9.0", "2.5"], ["2.5", "9.0", "10.0"]),
        (["10", "9", "cat"], ["10", "9", "cat"]),
        (["nan", "9", "10"], ["10", "9", "nan"]),
    ],
)
def test_labels_are_numbered_in_order_and_numbers_sort_as_numbers(tmp_path, labels, names):
    rows = [{**row, "label": labels[j % len(labels)]} for j, row in enumerate(table())]
    assert read_table(write_csv(tmp_path / "t.csv", rows), 0).class_names == names


def test_drawn_splits_depend_on_seed_and_id_only(tmp_path):
    rows = [{"id": f"instance {j}", "text": "a", "label": str(j % 3)} for j in range(2000)]

    def splits(rows, seed=0):
        return {row.id: row.split for row in read_table(write_csv(tmp_path / "t.csv", rows), seed).rows}

    everything = splits(rows)
    shares = [list(everything.values()).count(split) / 2000 for split in SPLITS]
    np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=0.02)
    some = splits(rows[500:100:-1])
    assert some == {key: everything[key] for key in some}
    assert splits(rows, 1) != everything
    share = int(hashlib.sha256(b"0/instance 0").hexdigest()[:16], 16) / 2**64
    assert everything["instance 0"] == ("train" if share < 0.8 else "valid" if share < 0.9 else "test")


def _edit(j, **changes):
    def change(job):
        job.rows[j].update(changes)
        job.write()

    return change


def _each(**changes):
    def change(job):
        for row in job.rows:
            row.update(changes)
        job.write()

    return change


def _file(text):
    return lambda job: job.texts.write_bytes(text if isinstance(text, bytes) else text.encode())


def _picture(name, data):
    return lambda job: (job.images / name).write_bytes(data)


def _named(name):
    def change(job):
        for j, row in enumerate(job.rows):
            row["image"] = name if j == 2 else ""
        job.write()

    return change


def _without(split, *, text=False):
    def change(job):
        kept = []
        for row in job.rows:
            if row["split"] != split:
                kept.append(row)
            elif text:
                kept.append({**row, "text": " "})
        job.rows = kept
        job.write()

    return change


def _nothing_at(j):
    def change(job):
        (job.images / f"p{j}.png").unlink()
        _edit(j, text="")(job)

    return change


def _untrained(job):
    job.rows[-1]["label"] = "violet"
    job.write()


def _png_header(width, height):
    """A PNG that claims to be huge."""
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_texts_to_show_need_no_labels(tmp_path):
    (tmp_path / "t.csv").write_text('id,text\n a ,"one, two"\nb,\n', "utf-8")
    assert read_texts(tmp_path / "t.csv") == {"a": "one, two", "b": ""}
    for content, message in (
        ("id,label\n1,a\n", "no column text .* must name id and text once"),
        ("id,text\n1,a\n1,b\n", "line 3: the id '1' occurs twice"),
        ("id,text\n1,a,b\n", "line 2: 3 fields, but the header has 2"),
    ):
        (tmp_path / "t.csv").write_text(content, "utf-8")
        with pytest.raises(InputError, match=message):
            read_texts(tmp_path / "t.csv")


REFUSED = {
    "no table": (lambda job: job.texts.unlink(), ["texts.csv cannot be read", "No such file"]),
    "empty file": (_file(""), ["no column id, text, label", "an empty file"]),
    "no rows": (_file("id,text,label\n"), ["has no rows"]),
    "missing columns": (_file("id,caption\n1,a\n"), ["no column text, label", "found: id, caption"]),
    "repeated column": (_file("id,text,label,text\n1,a,b,c\n"), ["names a column twice"]),
    "not UTF-8": (_file("id,text,label\n1,ü,b\n".encode("latin-1")), ["is not UTF-8"]),
    "open quote": (_file('id,text,label\n1,"a,b\n'), ["is not valid CSV"]),
    "too many fields": (_file("id,text,label\n1,a,b,c\n"), ["line 2: 4 fields", "header has 3"]),
    "too few fields": (_file("id,text,label\n1,a\n"), ["line 2: 2 fields"]),
    "duplicated id": (_edit(3, id="p2"), ["line 5", "'p2' occurs twice"]),
    "empty id": (_edit(3, id=" "), ["line 5: the id is empty"]),
    "empty label": (_edit(4, label=""), ["line 6: the label is empty"]),
    "unknown split": (_edit(3, split="query"), ["unknown split 'query'", "train, valid or test"]),
    "one class": (_each(label="7"), ["all labels are '7'", "at least two classes"]),
    "empty split": (_without("valid"), ["split valid has no rows"]),
    "split without texts": (_without("test", text=True), ["split test has no text at all"]),
    "class without training": (_untrained, ["class 'violet' has no row in split train"]),
    "neither text nor picture": (_nothing_at(4), ["'p4' has neither text nor picture"]),
    "ambiguous picture": (_picture("p1.JPG", b""), ["'p1' has several pictures", "p1.JPG, p1.png"]),
    "parent folder": (_named("../texts.csv"), ["'../texts.csv'", "'p2'", "is outside of the folder"]),
    "hidden parent folder": (_named("a/../../b.png"), ["is outside of the folder"]),
    "absolute path": (_named("/etc/passwd"), ["'/etc/passwd'", "is outside of the folder"]),
    "no picture": (_picture("p2.png", b"no picture"), ["p2.png cannot be read", "it is not a picture"]),
    "empty picture": (_picture("p2.png", b""), ["p2.png cannot be read"]),
    "program": (_picture("p2.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), ["p2.png cannot be read"]),
    "large picture": (_picture("p2.png", _png_header(10_000, 10_000)), ["p2.png", "decompression bomb"]),
    "huge picture": (_picture("p2.png", _png_header(60_000, 60_000)), ["p2.png", "decompression bomb"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_inputs_are_refused_in_one_line_before_a_model_is_loaded(job, case, monkeypatch):
    monkeypatch.setattr(command, "torch_device", lambda device: pytest.fail("went on to the models"))
    change, parts = REFUSED[case]
    change(job)
    refused(job, *parts)
    assert not job.work().exists()


def test_pictures_are_found_by_stem_or_by_name(job):
    (job.images / "more").mkdir()
    (job.images / "p1.png").rename(job.images / "p1.PNG")
    (job.images / "p2.png").rename(job.images / "more" / "x.png")
    (job.images / "p3.txt").write_text("no picture suffix")
    (job.images / "p4.png").unlink()
    _named("more/x.png")(job)
    rows = read_table(job.texts, 0).rows
    find_pictures(rows, job.images)
    found = {row.id: row.picture for row in rows}
    assert found["p1"] == job.images / "p1.PNG"
    assert found["p2"] == job.images / "more" / "x.png"
    assert found["p3"] == job.images / "p3.png"
    assert found["p4"] is None


def test_what_is_shown_are_short_texts_and_paths_relative_to_the_output(job):
    job.rows[0]["text"] = " it says a.png "
    job.rows[1]["text"] = "word " * 1000
    job.rows[2]["text"] = ""
    (job.images / "p3.png").unlink()
    (job.images / "far").mkdir()
    (job.images / "p4.png").rename(job.images / "far" / "other.png")
    os.symlink("p6.png", job.images / "link.png")
    named = {"p4": "far/other.png", "p5": "link.png"}
    job.rows = [{**row, "image": named.get(row["id"], "")} for row in job.rows]
    job.write()
    rows = read_table(job.texts, 0).rows[:7]
    find_pictures(rows, job.images)
    shown = shown_of(rows, job.root)
    names = ["p0.png", "p1.png", "p2.png", "", "far/other.png", "link.png", "p6.png"]
    assert shown["image"].tolist() == [name and f"images/{name}" for name in names]
    assert shown_of(rows, job.root / "new")["image"][0] == "../images/p0.png"
    texts = shown["text"].tolist()
    assert texts[0].strip() == "it says a.png"
    assert not is_picture(texts[0])
    assert texts[1] == "word " * 99 + "word…"
    assert texts[2] == ""
    assert texts[3:] == [row["text"] for row in job.rows[3:7]]


def test_pictures_of_every_kind_become_upright_rgb(tmp_path):
    path = tmp_path / "p.png"
    for mode in ("RGBA", "L", "LA", "P", "1", "CMYK"):
        draw(path.with_suffix(".tif" if mode == "CMYK" else ".png"), 1, mode)
        picture = read_rgb(path.with_suffix(".tif" if mode == "CMYK" else ".png"))
        assert (picture.mode, picture.size) == ("RGB", (40, 30))
    Image.fromarray(np.full((3, 4), 32_896, np.uint16)).save(path)
    np.testing.assert_array_equal(read_rgb(path), np.full((3, 4, 3), 128))
    Image.fromarray(np.full((3, 4), 0.5, np.float32)).save(tmp_path / "p.tif")
    refused(lambda: read_rgb(tmp_path / "p.tif"), "p.tif cannot be read", "neither 8 nor 16 bits")
    frames = [Image.new("RGB", (8, 8), color) for color in COLORS]
    frames[0].save(tmp_path / "p.gif", save_all=True, append_images=frames[1:])
    assert read_rgb(tmp_path / "p.gif").getpixel((4, 4)) == (255, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    turned = Image.new("RGB", (40, 30))
    turned.putpixel((0, 0), (255, 255, 255))
    turned.save(path, exif=exif)
    assert read_rgb(path).size == (30, 40)
    assert read_rgb(path).getpixel((29, 0)) == (255, 255, 255)


def test_a_picture_that_breaks_off_is_named(tmp_path):
    draw(tmp_path / "p.png", 1, size=(300, 300))
    (tmp_path / "p.png").write_bytes((tmp_path / "p.png").read_bytes()[:300])
    refused(lambda: read_rgb(tmp_path / "p.png"), "p.png cannot be read", "replace it")
