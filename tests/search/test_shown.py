"""Texts and pictures that columns of the data give: in search, on its page, in reports and audits."""

import io
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from server import served
from toy import toy_config

from mrl_jax import Dataset, load_dataset, train
from mrl_jax.audit.__main__ import main as audit_main
from mrl_jax.config import with_settings
from mrl_jax.errors import InputError
from mrl_jax.report import write_report
from mrl_jax.report.samples import Samples
from mrl_jax.search.__main__ import main as search_main
from mrl_jax.search.searcher import Query, Searcher

ROWS = 90
COLOURS = {"ant": (200, 30, 30), "bee": (30, 200, 30), "cat": (30, 30, 200)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`mine.csv` with captions and pictures beside it; row 4 has no caption, the picture of row 7 is not there."""
    base = tmp_path_factory.mktemp("shown")
    rng = np.random.default_rng(3)
    kind = np.arange(ROWS) % 3
    names = np.array([*COLOURS])[kind]
    centres = {"image": rng.normal(size=(3, 6)), "text": rng.normal(size=(3, 4))}
    frame = pd.DataFrame({"label": names, "id": [f"n{i:02}" for i in range(ROWS)]})
    for m, mean in centres.items():
        x = mean[kind] + 0.3 * rng.normal(size=(ROWS, mean.shape[1]))
        frame = frame.join(pd.DataFrame(x.round(4)).add_prefix(f"{m}_"))
    frame["caption"] = [f"{name}, <b>number</b> {i}" for i, name in enumerate(names)]
    frame["file"] = [f"pictures/{i}.png" for i in range(ROWS)]
    frame.loc[4, "caption"] = None
    (base / "pictures").mkdir()
    for i, name in enumerate(names):
        if i != 7:
            Image.new("RGB", (12, 10 + i), COLOURS[name]).save(base / "pictures" / f"{i}.png")
    frame.to_csv(base / "mine.csv", index=False)
    frame.to_parquet(base / "mine.parquet")
    return base


pytestmark = pytest.mark.slow
KEYS = ("image=image", "text=text", "text_shown=caption", "image_shown=file")
SHOWN = {"text": "caption", "image": "file"}


@pytest.fixture(scope="module")
def run(folder):
    config = with_settings(
        toy_config(modalities=("image", "text"), split="60/15/25", epochs=1),
        data_path=str(folder / "mine.csv"),
        keys=KEYS,
    )
    train(config, folder / "run")
    return folder / "run"


def rows_of(data, split="test"):
    """Numbers of the rows of a split in the table."""
    return [int(name[1:]) for name in data.splits[split].ids.tolist()]


def test_columns_of_every_kind_of_table_give_what_is_shown(folder):
    frame = pd.read_csv(folder / "mine.csv")
    by_column = Dataset.from_frame(frame, {"image": "image", "text": "text"}, shown=SHOWN, split="60/15/25")
    renamed = frame.rename(columns={"caption": "text_shown", "file": "image_shown"})
    others = [
        load_dataset(folder / "mine.csv", keys=KEYS, split="60/15/25"),
        load_dataset(folder / "mine.parquet", keys=KEYS, split="60/15/25"),
        load_dataset(by_column),
        Dataset.from_frame(renamed, split="60/15/25"),
        Dataset.from_frame(renamed, {"image": "image", "text": "text"}, split="60/15/25"),
    ]
    for name, split in by_column.splits.items():
        rows = rows_of(by_column, name)
        assert split.shown["text"].tolist() == ["" if i == 4 else frame["caption"][i] for i in rows]
        assert split.shown["image"].tolist() == [f"pictures/{i}.png" for i in rows]
        for other in others:
            assert {m: x.tolist() for m, x in other.splits[name].shown.items()} == {
                m: x.tolist() for m, x in split.shown.items()
            }
    without = Dataset.from_frame(frame.drop(columns=["caption", "file"]), split="60/15/25")
    assert without.digest() == by_column.digest()  # runs on the data without them stay valid
    assert without.splits["test"].shown == {}


def test_arrays_with_texts_are_cut_with_their_rows(folder):
    frame = pd.read_csv(folder / "mine.csv", keep_default_na=False)
    arrays = {m: frame.filter(regex=rf"^{m}_\d").to_numpy() for m in ("image", "text")}
    arrays |= {"labels": frame["label"].to_numpy(str), "ids": frame["id"].to_numpy(str)}
    arrays["text_shown"] = frame["caption"].to_numpy(str)
    np.savez(folder / "mine.npz", **arrays)
    data = load_dataset(folder / "mine.npz", split="60/15/25")
    for name, split in data.splits.items():
        assert split.shown["text"].tolist() == [frame["caption"][i] for i in rows_of(data, name)]


@pytest.mark.parametrize(
    ("shown", "message"),
    [
        ({"text": "image_0"}, "column 'image_0' holds numbers; what is shown of a sample is a text"),
        ({"text": "captoin"}, "text_shown: there is no column 'captoin'"),
        ({"sound": "caption"}, "sound_shown: there is no modality 'sound'; there are image, text"),
        ({"text": ["caption", "file"]}, "text_shown: 2 columns are named; name one"),
    ],
)
def test_wrong_columns_are_refused(folder, shown, message):
    with pytest.raises(InputError, match=message) as error:
        Dataset.from_frame(pd.read_csv(folder / "mine.csv"), shown=shown, split="60/15/25")
    assert "\n" not in str(error.value)


def test_arrays_of_another_length_or_kind_are_refused(folder):
    data = Dataset.from_frame(pd.read_csv(folder / "mine.csv"), split="60/15/25")
    arrays = {f"{s}_{m}": x for s, split in data.splits.items() for m, x in split.features.items()}
    arrays |= {f"{s}_labels": split.labels["text"] for s, split in data.splits.items()}
    for wrong in (np.array(["a"] * 3), np.arange(len(data.splits["test"]))):
        with pytest.raises(InputError, match=r"test_text_shown is .*; give a text, or the path of a picture"):
            load_dataset(arrays | {"test_text_shown": wrong})


def test_results_have_their_texts_and_a_grid_their_pictures(run, tmp_path, capsys):
    grid, found = tmp_path / "found.png", tmp_path / "found.json"
    query = ["--workdir", str(run), "--row", "image:test:0", "--top", "4", "--split", "train"]
    assert search_main([*query, "--json", str(found)]) == 0
    capsys.readouterr()
    assert search_main(query) == 0
    table = capsys.readouterr().out
    results = json.loads(found.read_text())["queries"][0]["results"]
    for result in results:
        number = int(result["id"][1:])
        assert result.get("text") == (None if number == 4 else f"{result['label']}, <b>number</b> {number}")
        assert str(result.get("text", "")) in table
    assert table.splitlines()[2].split()[-1] == "text"
    assert search_main([*query[:2], "--row", "text:test:0", "--png", str(grid), "--top", "3"]) == 0
    seen = {colour for _, colour in Image.open(grid).convert("RGB").getcolors(1 << 20)}
    for hit in Searcher(run).answer(Query("row", "text:test:0"), 3)["results"]:
        wanted = COLOURS[hit["label"]]  # 256 colours are left
        assert min(max(abs(a - b) for a, b in zip(c, wanted, strict=True)) for c in seen) < 12


def test_texts_that_change_are_shown_anew(run, folder, tmp_path):
    """The gallery of a run is saved with its texts."""
    query = Query("row", "image:test:0")
    before = Searcher(run, splits=("train",)).answer(query, 1)["results"][0]
    frame = pd.read_csv(folder / "mine.csv")
    frame["caption"] = "other " + frame["caption"].fillna("one")
    frame.to_csv(tmp_path / "other.csv", index=False)
    after = Searcher(run, splits=("train",), data=tmp_path / "other.csv").answer(query, 1)["results"][0]
    assert after == before | {"text": f"other {before.get('text', 'one')}"}
    assert Searcher(run, splits=("train",)).answer(query, 1)["results"][0] == before


def test_the_page_shows_them_and_no_path_of_the_server(run):
    with served(run) as server:
        answer = server.ask("/api/search?row=image:test:0&top=5").json
        assert all(r["text"].startswith(r["label"]) for r in answer["results"] if r["id"] != "n04")
        assert "text" not in answer["query"]  # it is a picture
        picture = server.ask(answer["query"]["picture"])
        assert picture.headers["content-type"] == "image/png"
        assert Image.open(io.BytesIO(picture.body)).getpixel((3, 3))[:3] == COLOURS[answer["query"]["label"]]
        listed = server.ask("/api/rows?modality=text&find=number").json["rows"]
        ids = server.service.galleries["text"].ids.tolist()
        assert len(listed) == len(ids) - ids.count("n04")
        assert ".png" not in json.dumps([answer, listed])


def test_a_picture_that_is_not_there_is_left_out(folder):
    data = load_dataset(folder / "mine.csv", keys=KEYS, split="60/15/25")
    samples = Samples(data, data=folder / "mine.csv")
    there = {s: rows_of(data, s) for s in data.splits}
    for split, numbers in there.items():
        for row, number in enumerate(numbers):
            sample = samples.of("image", split, row)
            assert (sample.picture is None) == (number == 7)
            assert (sample.text, sample.id) == ("", f"n{number:02}")
            assert samples.of("text", split, row).text.endswith("" if number == 4 else f"number</b> {number}")


@pytest.mark.parametrize("inspect", ["report", "audit"])
def test_reports_and_audits_show_texts_and_pictures(run, tmp_path, inspect):
    html = tmp_path / "page.html"
    if inspect == "report":
        write_report(run, html)
    else:
        assert audit_main(["--workdir", str(run), "--html", str(html)]) == 0
    page = html.read_text("utf-8")
    assert page.count("&lt;b&gt;number&lt;/b&gt; ") > 3
    assert "<b>number" not in page
    assert page.count("data:image/webp;base64,") + page.count("data:image/png;base64,") > 3
    assert "pictures/" not in page


def test_a_frame_in_memory_shows_them_when_it_is_given_again(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)  # relative paths of pictures
    frame = pd.read_csv("mine.csv").rename(columns={"caption": "text_shown", "file": "image_shown"})
    train(toy_config(modalities=("image", "text"), split="60/15/25", epochs=1), tmp_path / "run", data=frame)
    found = Searcher(tmp_path / "run", data=frame).answer(Query("row", "image:test:1"), 2)["results"]
    assert all("number" in result.get("text", "number") for result in found)
    write_report(tmp_path / "run", tmp_path / "page.html", data=frame)
    assert "data:image/" in (tmp_path / "page.html").read_text("utf-8")


def test_a_cleaned_file_keeps_them(run, tmp_path):
    cleaned = tmp_path / "cleaned.npz"
    assert audit_main(["--workdir", str(run), "--write-cleaned", str(cleaned)]) == 0
    before, after = load_dataset(run.parent / "mine.csv", keys=KEYS, split="60/15/25"), load_dataset(cleaned)
    for name, split in after.splits.items():
        assert split.shown["text"].tolist() == before.splits[name].shown["text"].tolist()
