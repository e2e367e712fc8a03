"""The search command: rows of any run, and texts and pictures for runs whose features can be computed."""

import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from toy import TOY_FLAGS, save_npz, toy_arrays, toy_config, unchecked

from mrl_jax import Index, InputError, load_run, train
from mrl_jax.data.emoji.features import text_counts
from mrl_jax.data.emoji.ngrams import hashed_counts
from mrl_jax.retrieval.similarity import METRICS
from mrl_jax.search import picture_grid
from mrl_jax.search.__main__ import _parser, main
from mrl_jax.search.output import _notes, answer_table
from mrl_jax.search.searcher import Query, Searcher, search
from mrl_jax.train import main as train_main

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three modalities; "touch" is missing in row 2 of the test split; one picture per id."""
    base = tmp_path_factory.mktemp("search")
    arrays = toy_arrays(("sound", "touch", "smell")) | {"test_touch_mask": np.arange(27) != 2}
    arrays |= {"class_names": np.array(["low", "mid", "high"])}
    arrays |= {
        f"{s}_ids": np.array([f"{s}-{i}" for i in range(n)]) for s, n in (("train", 60), ("valid", 24), ("test", 27))
    }
    data = save_npz(base / "toy.npz", arrays)
    assert train_main([*TOY_FLAGS, "--keep-checkpoints", "--data-path", str(data), "--workdir", str(base / "run")]) == 0
    (base / "pictures").mkdir()
    for i in range(27):
        Image.new("RGB", (20 + i, 30), (9 * i, 90, 200)).save(base / "pictures" / f"test-{i}.png")
    return base / "run"


def asked(run, *flags, code=0):
    assert main(["--workdir", str(run), *map(str, flags)]) == code


def expected(run, query, modality, split="test", rows=slice(None)):
    """Rows of a gallery by float64 similarity to a row of the test split."""
    with np.load(run.parent / "toy.npz") as data:
        m, j = query
        z = load_run(run).embed({m: data[f"test_{m}"][[j]]})[m][0].astype(np.float64)
        gallery = load_run(run).embed({modality: data[f"{split}_{modality}"]})[modality].astype(np.float64)
    scores = gallery @ z
    return scores, np.argsort(-scores, kind="stable")


def test_a_row_finds_its_nearest_in_the_other_modality(run, capsys):
    asked(run, "--row", "sound:test:5", "--top", 4, "--json")
    (answer,) = json.loads(capsys.readouterr().out)["queries"]
    assert answer["query"] == {
        **{"kind": "row", "value": "sound:test:5", "modality": "sound", "split": "test", "row": 5},
        **{"label": "high", "id": "test-5"},
    }
    assert answer["gallery"] == {"modality": "touch", "splits": ["test"], "size": 26, "epoch": load_run(run).epoch} | {
        "representation": "embedding",
        "metric": "cosine",
        "ties": "gallery order",
    }
    scores, order = expected(run, ("sound", 5), "touch")
    order = order[order != 2]  # that sample is not there
    assert [r["row"] for r in answer["results"]] == order[:4].tolist()
    for rank, r in enumerate(answer["results"]):
        assert set(r) == {"rank", "score", "label", "hit", "id", "split", "row"}
        assert (r["rank"], r["id"], r["split"]) == (rank + 1, f"test-{r['row']}", "test")
        assert r["label"] == ("low", "mid", "high")[r["row"] % 3]
        assert r["hit"] is (r["label"] == "high")
        assert r["score"] == pytest.approx(scores[r["row"]], abs=2e-6)


def test_the_table_shows_hits_and_misses(run, capsys):
    asked(run, "--row", "smell:valid:3", "--modality", "sound", "--top", 27)
    lines = capsys.readouterr().out.splitlines()
    gallery = f"27 of test, epoch {load_run(run).epoch}; by cosine, ties in gallery order"
    assert lines[0] == f"row 'smell:valid:3' (valid-3, low) as smell -> sound: {gallery}"
    assert lines[2].split() == ["score", "label", "hit", "id"]
    assert len(lines) == 3 + 27
    rows = [line.split() for line in lines[3:]]
    assert [r[0] for r in rows] == [str(i + 1) for i in range(27)]
    assert {(r[2], r[3]) for r in rows} == {("low", "hit"), ("mid", "miss"), ("high", "miss")}


def test_products_rank_and_are_saved_beside_cosines(run, capsys):
    asked(run, "--row", "sound:test:5", "--top", 4, "--metric", "dot", "--json")
    (answer,) = json.loads(capsys.readouterr().out)["queries"]
    assert answer["gallery"]["metric"] == "dot"
    _, order = expected(run, ("sound", 5), "touch")
    order = order[order != 2]
    assert [r["row"] for r in answer["results"]] == order[:4].tolist()
    assert (run / "search" / "1-test-dot.npz").is_file()
    again = Searcher(run, metric="dot")
    assert again.answer(Query("row", "sound:test:5"), 4) == answer
    assert Searcher(run).answer(Query("row", "sound:test:5"), 4)["gallery"]["metric"] == "cosine"
    asked(run, "--row", "sound:test:5", "--metric", "hamming", code=2)
    message = "embeddings of this run are real numbers of unit length; choose cosine, or binarise"
    assert message in capsys.readouterr().err
    with pytest.raises(InputError, match=message):
        Index.build(run, metric="hamming")
    asked(run, "--row", "sound:test:5", "--metric", "l2", code=2)


def test_distances_of_codes_are_shown_as_such():
    result = {"rank": 1, "score": 3.0, "label": "low", "id": "a", "split": "test", "row": 0}
    gallery = {"modality": "b", "splits": ["test"], "size": 2, "epoch": 1, "representation": "embedding"}
    gallery |= {"metric": "hamming", "ties": "gallery order"}
    answer = {"query": {"kind": "text", "value": "x", "modality": "a"}, "gallery": gallery, "results": [result]}
    lines = answer_table(answer).splitlines()
    assert lines[0].endswith("; by hamming, ties in gallery order")
    assert lines[2].split() == ["distance", "label", "id"]


def test_the_command_knows_the_metrics():
    choices = next(a.choices for a in _parser()._actions if a.dest == "metric")
    assert choices == METRICS


def test_a_row_is_not_its_own_result_and_a_smaller_gallery_gives_fewer(run, capsys):
    asked(run, "--row", "touch:test:6", "--modality", "touch", "--top", 1000, "--json")
    (answer,) = json.loads(capsys.readouterr().out)["queries"]
    rows = [r["row"] for r in answer["results"]]
    assert len(rows) == 25
    assert not {2, 6} & set(rows)


def test_several_queries_splits_and_a_json_file(run, tmp_path, capsys):
    flags = ["--row", "sound:test:0", "--row", "touch:train:59", "--split", "valid", "train", "--top", 3]
    asked(run, *flags, "--json", tmp_path / "a.json")
    answers = json.loads((tmp_path / "a.json").read_text())["queries"]
    assert [a["query"]["value"] for a in answers] == ["sound:test:0", "touch:train:59"]
    assert [a["gallery"]["modality"] for a in answers] == ["touch", "sound"]
    assert {a["gallery"]["size"] for a in answers} == {84}
    out = capsys.readouterr().out
    assert out.count("score") == 2
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert answers[0] == search(run, row="sound:test:0", splits=("valid", "train"), top=3)


def test_one_modality_after_the_other_can_be_searched_without_a_folder(run):
    arrays = dict(np.load(run.parent / "toy.npz"))
    answer = search(load_run(run), row="sound:test:5", data=arrays, top=4)
    assert answer == search(run, row="sound:test:5", top=4)


# --- the saved gallery ---


def test_a_gallery_is_kept_and_used_again(run, tmp_path, monkeypatch):
    copied = tmp_path / "run"
    shutil.copytree(run, copied, ignore=shutil.ignore_patterns("search"))
    first = search(copied, row="sound:test:5")
    kept = copied / "search" / "1-test.npz"
    assert sorted(p.name for p in kept.parent.iterdir()) == ["0-test.npz", "1-test.npz"]
    before = kept.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Searcher, "_embedded", None)
        assert search(copied, row="sound:test:5") == first
    other = search(copied, row="sound:test:5", checkpoint=1 if first["gallery"]["epoch"] == 3 else 3)
    assert other["results"] != first["results"]  # another checkpoint: embedded again
    assert kept.read_bytes() != before
    for damaged in (before[:200], b"", before):
        kept.write_bytes(damaged)
        assert search(copied, row="sound:test:5") == first
        assert kept.read_bytes() == before
    assert train(load_run(copied).config, copied, resume=True).scores  # the run still is one


def test_other_data_are_embedded_anew(run, tmp_path):
    arrays = dict(np.load(run.parent / "toy.npz"))
    arrays["test_touch"] = arrays["test_touch"][::-1]
    other = save_npz(tmp_path / "other.npz", arrays)
    first = search(run, row="sound:test:5")
    changed = search(run, row="sound:test:5", data=other)
    assert changed["results"] != first["results"]
    assert search(run, row="sound:test:5") == first


def test_a_gallery_belongs_to_all_parameters_and_hyperparameters_that_embed_may_use(run):
    own = load_run(run)

    def key(config=own.config, params=own.model.params):
        searcher = Searcher(run)
        searcher.run = dataclasses.replace(own, config=config, model=own.model._replace(params=params))
        return searcher._key("touch", ("test",))

    others = [
        key(params=own.model.params._replace(centers=own.model.params.centers + 1)),
        key(params=own.model.params._replace(encoders=own.model.params.encoders[::-1])),
        key(config=dataclasses.replace(own.config, tau1=0.123)),
        key(config=dataclasses.replace(own.config, precision="bfloat16")),
    ]
    assert key() == key()
    assert len({key(), *others}) == 5


def test_a_folder_that_cannot_be_written_keeps_nothing(run, tmp_path):
    copied = tmp_path / "run"
    shutil.copytree(run, copied, ignore=shutil.ignore_patterns("search"))
    (copied / "search").write_text("in the way")
    assert search(copied, row="sound:test:5") == search(run, row="sound:test:5")


# --- the picture grid ---


def test_texts_of_ones_own_by_id(run, tmp_path, capsys):
    table = tmp_path / "texts.csv"
    table.write_text("id,text\n" + "".join(f"test-{i},{'long ' * 30}text {i}\n" for i in range(27)), "utf-8")
    asked(run, "--row", "sound:test:3", "--texts", table, "--top", 5, "--json")
    (answer,) = json.loads(capsys.readouterr().out)["queries"]
    for entry in (answer["query"], *answer["results"]):
        assert entry["text"] == f"{'long ' * 30}text {entry['id'].removeprefix('test-')}"
    asked(run, "--row", "sound:test:3", "--texts", table)
    assert "long long …" in (shown := capsys.readouterr().out)
    assert max(map(len, shown.splitlines())) < 180
    asked(run, "--row", "sound:test:3", "--json")  # the saved gallery has no texts
    assert "text" not in json.loads(capsys.readouterr().out)["queries"][0]["results"][0]


def check_table(searcher, queries):
    """Without pictures, a table of text and one of HTML with the numbers of `answer`."""
    shown = searcher.show(*queries, top=3)
    head, *lines = repr(shown).splitlines()
    assert head.split() == ["query", "rank", "similarity", "text", "or", "id", "label", "hit"]
    entries = [(q, r) for q in queries for r in searcher.answer(q, 3)["results"]]
    assert len(lines) == len(entries) == 6
    for line, (query, r) in zip(lines, entries, strict=True):
        hit = "hit" if r["hit"] else "miss"
        assert line.split()[-5:] == [str(r["rank"]), f"{r['score']:.3f}", r["id"], r["label"], hit]
        assert line.startswith(query.value) == (r["rank"] == 1)
    html = shown._repr_html_()
    assert html.count("<tr>") == 7
    assert all(f"<td>{r['score']:.3f}</td><td>{r['id']}</td><td>{r['label']}</td>" in html for _, r in entries)
    assert [answer["results"] for answer in shown] == [searcher.answer(q, 3)["results"] for q in queries]


def test_pictures_of_ones_own_by_id(run, tmp_path):
    flags = ["--row", "sound:test:5", "--row", "touch:test:0", "--top", 3, "--png", tmp_path / "grid.png"]
    asked(run, *flags, "--pictures", run.parent / "pictures")
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.format == "PNG"
        pixels = np.asarray(grid.convert("RGB")).reshape(-1, 3)
    searcher, queries = Searcher(run), [Query("row", row) for row in ("sound:test:5", "touch:test:0")]
    shown = searcher.show(*queries, top=3, pictures=run.parent / "pictures")  # from Python
    np.testing.assert_array_equal(np.asarray(shown.convert("RGB")).reshape(-1, 3), pixels)
    with pytest.raises(InputError, match="no query given"):
        searcher.show()
    check_table(searcher, queries)
    assert repr(searcher).endswith("gallery the other modality of test, representation embedding, metric cosine)")
    assert str(run) in searcher._repr_html_()
    results = [r for row in ("sound:test:5", "touch:test:0") for r in search(run, row=row, top=3)["results"]]
    colours = {tuple(c) for c in pixels}
    for r in results:  # each picture is of one colour
        assert min(np.abs(np.array(sorted(colours)) - (9 * r["row"], 90, 200)).sum(1)) <= 6
    green, red = (sum(np.abs(pixels.astype(int) - c).sum(1) < 8) for c in ((26, 127, 55), (207, 34, 46)))
    assert (green > 100) == any(r["hit"] for r in results)
    assert (red > 100) == (not all(r["hit"] for r in results))
    answer = search(run, row="sound:test:5", top=3)
    assert _notes(answer) == [answer["query"]["label"], f"{sum(r['hit'] for r in answer['results'])} of 3 hit"]
    del answer["query"]["label"]  # as of a text
    assert _notes(answer) == []


def test_captions_are_drawn_with_a_font_that_has_their_letters():
    assert picture_grid.font_for(11, "cat · naïve…") is picture_grid.font_for(11)
    font = picture_grid.font_for(11, "красный флаг")
    assert font.getname()[0] == "DejaVu Sans"  # comes with matplotlib
    # Without a font that has them, letters are boxes, as before: no error.
    line = picture_grid.Line("猫 and кот", None, [picture_grid.Tile("旗 " * 40, "0.9", None, None)])
    assert picture_grid.draw_grid([line]).size[0] > 100


# --- interactive ---


def test_interactive_answers_line_by_line(run, monkeypatch, capsys):
    lines = ":row sound:test:5\n\n:row nonsense\n:frob x\na word\n:row touch:test:0\n:quit\n:row sound:test:1\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    asked(run, "--interactive", "--json", "--top", 2, "--row", "smell:test:1")
    captured = capsys.readouterr()
    answers = [json.loads(line) for line in captured.out.splitlines()]
    values = [answer["query"]["value"] for answer in answers if "query" in answer]
    assert values == ["smell:test:1", "sound:test:5", "touch:test:0"]
    errors = captured.err.splitlines()
    assert len(errors) == 3
    assert [f"error: {answer['error']}" for answer in answers if "error" in answer] == errors
    assert ["error" in answer for answer in answers] == [False, False, True, True, True, False]  # a line for each
    assert all(line.startswith("error: ") for line in errors)
    assert "give MODALITY:SPLIT:INDEX" in errors[0]
    assert ":frob is unknown; give TEXT, :text TEXT, :image FILE, :row MODALITY:SPLIT:INDEX, :help, :quit" in errors[1]
    assert "search with --row" in errors[2]


@pytest.mark.parametrize("as_json", [False, True])
def test_the_prompt_says_help_and_help_lists_what_a_line_may_be(run, monkeypatch, capsys, as_json):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdin", Terminal(":help\n:helf\n:help me\n"))
    asked(run, "--interactive", *(["--json"] if as_json else []))
    out, err = capsys.readouterr()
    greeting, *rest = err.replace("> ", "").splitlines()
    assert ":help" in greeting
    words = ["TEXT", ":text TEXT", ":image FILE", ":row MODALITY:SPLIT:INDEX", ":help", ":quit"]
    starts = [next(w for w in reversed(words) if line.startswith(w)) for line in rest[:6]]
    assert starts == words
    assert rest[6].startswith("error: :helf is unknown; give TEXT, ")
    assert rest[7:] == rest[:6]
    assert [list(json.loads(line)) for line in out.splitlines()] == ([["help"], ["error"], ["help"]] if as_json else [])


# --- bad input ---


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "nothing to search for; give --text, --image or --row, or --interactive"),
        (["--text", "cat"], "features of a typed text cannot be computed"),
        (["--image", "cat.png"], "features of a picture file cannot be computed"),
        (["--row", "sound:test"], "give MODALITY:SPLIT:INDEX, such as sound:test:0"),
        (["--row", "sound:dev:0"], "give MODALITY:SPLIT:INDEX"),
        (["--row", "sound:test:-1"], "give MODALITY:SPLIT:INDEX"),
        (["--row", "taste:test:0"], "modality 'taste' is not in this run; choose from sound, touch, smell"),
        (["--row", "sound:test:27"], "test has 27 rows of sound, 0 to 26"),
        (["--row", "touch:test:2"], "this instance has no touch"),
        (["--row", "sound:test:0", "--modality", "taste"], "modality 'taste' is not in this run"),
        (["--row", "sound:test:0", "--top", "0"], "--top 0"),
        (["--row", "sound:test:0", "--top", "x"], "invalid int value"),
        (["--row", "sound:test:0", "--split", "dev"], "invalid choice: 'dev'"),
        (["--row", "sound:test:0", "--split", "test", "test"], "each once"),
        (["--row", "sound:test:0", "--checkpoint", "99"], "no checkpoint of epoch 99"),
        (["--row", "sound:test:0", "--data-path", "none.npz"], "does not exist"),
        (["--row", "sound:test:0", "--json", ""], "is no file name"),
        (["--row", "sound:test:0", "--query-modality", "touch"], "a row has its own modality"),
        (["--row", "sound:test:٣"], "give MODALITY:SPLIT:INDEX"),
        (["--row", "sound:test:0", "--png", "x", "--json", "./x"], "--json and --png are both"),
        (["--image", ""], "--image '' is no file name"),
        (["--row", "sound:test:0", "--json", "/no/such/x.json"], "cannot be written"),
        (["--row", "sound:test:0", "--png", ""], "is no file name"),
        (["--row", "sound:test:0", "--png", "x.png"], "give a folder of pictures: --pictures FOLDER"),
        (["--row", "sound:test:0", "--png", "x.png", "--pictures", "nowhere"], "the folder does not exist"),
        (["--row", "sound:test:0", "--pictures", "nowhere"], "add --png FILE"),
        (["--interactive", "--json", "x.json"], "leave the file out"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, flags, message, capsys):
    asked(run, *flags, code=2)
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_no_run_and_changed_data_are_reported(run, tmp_path, capsys):
    assert main(["--workdir", str(tmp_path), "--row", "a:test:0"]) == 2
    assert "holds no run" in capsys.readouterr().err
    copied = tmp_path / "run"
    shutil.copytree(run, copied, ignore=shutil.ignore_patterns("search"))
    arrays = dict(np.load(run.parent / "toy.npz"))
    arrays["test_touch"][0, 0] += 1
    config = json.loads((run / "config.json").read_text())
    config["data_path"] = str(save_npz(tmp_path / "changed.npz", arrays))
    (unchecked(copied) / "config.json").write_text(json.dumps(config))
    asked(copied, "--row", "sound:test:0", code=2)
    assert "have changed since the run was trained" in capsys.readouterr().err


def test_arrays_in_memory_must_be_given_again(tmp_path):
    train(toy_config(preset="emoji"), tmp_path / "run", data=toy_arrays())
    with pytest.raises(InputError, match=r"trained on arrays in memory; .*--data-path FILE"):
        search(tmp_path / "run", row="sound:test:0")
    with pytest.raises(InputError, match="features of a typed text cannot be computed"):
        search(tmp_path / "run", text="cat")
    assert search(tmp_path / "run", row="sound:test:0", data=toy_arrays())["results"][0]["id"].startswith("test:")
    with pytest.raises(InputError, match="0 queries given; give one of text, image and row"):
        search(tmp_path / "run")


# --- the embedded data set ---


def test_hashed_counts_equal_those_of_the_data_set():
    rng = np.random.default_rng(0)
    texts = [
        "",
        " ",
        "a",
        "Grinning Face",
        "flag_of-a  country",
        "Straße",
        "ﬁne",
        "猫の顔",
        "قطة",
        "👩‍🚀 x",
        "a\tb\n c",
        "\x1c.",
    ]
    texts += ["".join(map(chr, rng.integers(32, 0xD7FF, size=rng.integers(0, 30)))) for _ in range(200)]
    np.testing.assert_array_equal(hashed_counts(texts), text_counts(texts))


@pytest.fixture(scope="module")
def emoji_run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("emoji") / "run"
    flags = ["--hidden-dims", "64", "--embed-dim", "32", "--epochs", "2", "--learning-rate", "3e-3"]
    assert train_main([*flags, "--modalities", "image", "text", "text_de", "--workdir", str(workdir)]) == 0
    return workdir


def test_a_text_finds_pictures_and_a_picture_words(emoji_run, tmp_path, capsys):
    asked(emoji_run, "--text", "flag of a country", "--text", "Flagge", "--json", "--png", tmp_path / "a.png")
    answers = json.loads(capsys.readouterr().out)["queries"]
    assert [a["query"]["modality"] for a in answers] == ["text", "text"]
    assert {a["gallery"]["modality"] for a in answers} == {"image"}
    assert sum(r["label"] == "Flags" for r in answers[0]["results"]) >= 5
    assert set(answers[0]["results"][0]) == {"rank", "score", "label", "id", "split", "row", "character", "name"}
    with Image.open(tmp_path / "a.png") as grid:
        assert grid.width > 1500

    from mrl_jax.data.emoji.load import load_records

    record = load_records("test", texts=("text_de", "text_en"))[3]
    (tmp_path / "p.png").write_bytes(record["png"])
    asked(emoji_run, "--image", tmp_path / "p.png", "--modality", "text_de", "--json", "--png", tmp_path / "b.png")
    (answer,) = json.loads(capsys.readouterr().out)["queries"]
    by_row = search(emoji_run, row="image:test:3", modality="text_de")
    assert [r["id"] for r in answer["results"]] == [r["id"] for r in by_row["results"]]
    actual = by_row["results"][0]
    assert actual["name"] == load_records("test", texts=("text_de",))[actual["row"]]["text_de"]
    assert (by_row["query"]["character"], by_row["query"]["name"]) == (record["character"], record["text_en"])
    assert (tmp_path / "b.png").stat().st_size > 1000
    asked(emoji_run, "--row", "text_de:test:3", "--top", 2)
    assert record["text_de"] in capsys.readouterr().out
    with pytest.raises(InputError, match="choose among"):
        load_records("test", texts=("text_xx",))


def test_another_language_is_another_encoder(emoji_run):
    searcher = Searcher(emoji_run)
    one, two = (searcher.answer(Query("text", "Katze", m), 3) for m in ("text", "text_de"))
    assert one["results"] != two["results"]
    with pytest.raises(InputError, match=r"modality 'image' does not take a typed text; choose from text, text_de"):
        searcher.answer(Query("text", "Katze", "image"), 3)
    by_text = searcher.answer("Katze", 3)
    assert by_text == searcher.answer(Query("text", "Katze"), 3)
    assert by_text["query"] == {"kind": "text", "value": "Katze", "modality": "text"}
    for wrong in (None, 3, ("text", "Katze"), b"Katze"):
        with pytest.raises(InputError, match="give a text, or a Query of kind text, image or row"):
            searcher.answer(wrong)
    with pytest.raises(InputError, match="query 'sound' is unknown"):
        searcher.answer(Query("sound", "x"), 3)
    with pytest.raises(InputError, match="top 0"):
        searcher.answer(Query("text", "x"), 0)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--text", ""], "the text is empty"),
        (["--text", " \t"], "the text is empty"),
        (["--text", "_-"], "holds no letters or signs"),
        (["--text", "a\udcff"], "not valid Unicode"),
        (["--image", "none.png"], "cannot be read"),
        (["--image", "DIR"], "cannot be read"),
        (["--image", "DIR/broken.png"], "cannot be read"),
        (["--text", "cat", "--query-modality", "taste"], "is not in this run"),
    ],
)
def test_bad_texts_and_pictures(emoji_run, tmp_path, flags, message, capsys):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 50)
    asked(emoji_run, *(f.replace("DIR", str(tmp_path)) for f in flags), code=2)
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_a_first_answer_needs_no_slow_packages(emoji_run):
    asked(emoji_run, "--text", "cat")
    code = f"""
import sys
from mrl_jax.search.__main__ import main
assert main(["--workdir", {str(emoji_run)!r}, "--text", "cat"]) == 0
slow = {{"sklearn", "skimage", "matplotlib", "tensorflow_datasets", "torch", "PIL", "optax"}}
print(sorted(slow & set(sys.modules)))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert done.stdout.endswith("[]\n")
    assert done.stderr == ""
