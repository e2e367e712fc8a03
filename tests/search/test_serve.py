"""The API of the search server: the answers of `Searcher`, several at once, and a server that ends in order."""

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import jax
import pytest
from PIL import Image
from server import Answer, Served, parsed, received, running, served
from toy import TOY_FLAGS, save_npz

from mrl_jax import InputError
from mrl_jax.data.emoji.load import load_records
from mrl_jax.search.__main__ import main
from mrl_jax.search.searcher import Query, Searcher
from mrl_jax.search.server import nearest
from mrl_jax.search.server.guard import Guard
from mrl_jax.search.server.limits import Limits
from mrl_jax.search.server.service import Ask
from mrl_jax.search.server.serving import prepared
from mrl_jax.train import main as train_main

pytestmark = pytest.mark.slow


def asked(server, **query):
    return server.ask("/api/search?" + "&".join(f"{k}={quote(str(v))}" for k, v in query.items()))


def bare(answer):
    """An answer without what only the page needs."""
    entries = [answer["query"], *answer["results"]]
    return answer | {
        "query": {k: v for k, v in entries[0].items() if k not in ("address", "picture")},
        "results": [{k: v for k, v in r.items() if k not in ("address", "picture")} for r in entries[1:]],
    }


def close_to(answer, expected):
    """The same answer, but for last bits of scores: several queries are compared at once."""
    scores = [[r.pop("score") for r in x["results"]] for x in (answer, expected)]
    assert scores[0] == pytest.approx(scores[1], abs=2e-6)
    assert answer == expected


@pytest.mark.parametrize("row", ["sound:test:5", "touch:test:6", "smell:valid:3", "touch:train:59"])
@pytest.mark.parametrize("gallery", [None, "touch", "smell"])
def test_a_row_is_answered_as_by_the_command(toy_run, toy_server, row, gallery):
    answer = asked(toy_server, row=row, top=7, **({"gallery": gallery} if gallery else {}))
    assert answer.status == 200
    close_to(bare(answer.json), Searcher(toy_run, gallery).answer(Query("row", row), 7))


def test_texts_and_pictures_are_answered_as_by_the_command(emoji_run, emoji_server, tmp_path):
    searcher = Searcher(emoji_run)
    close_to(bare(asked(emoji_server, text="red flag", top=4).json), searcher.answer("red flag", 4))
    german = asked(emoji_server, text="rote Flagge", modality="text_de", gallery="text", top=4).json
    expected = Searcher(emoji_run, "text").answer(Query("text", "rote Flagge", "text_de"), 4)
    close_to(bare(german), expected)
    record = load_records("test")[3]["png"]
    jpeg = io.BytesIO()
    Image.open(io.BytesIO(record)).convert("CMYK").save(jpeg, "JPEG", quality=95)
    for data, kind in ((record, "png"), (jpeg.getvalue(), "jpeg")):
        path = tmp_path / f"sent.{kind}"
        path.write_bytes(data)
        answer = emoji_server.ask("/api/search?top=5", "POST", data, content_type=f"image/{kind}")
        expected = searcher.answer(Query("image", str(path)), 5)
        expected["query"]["value"] = "picture"
        close_to(bare(answer.json), expected)


def test_neighbours_and_small_pictures_are_named_in_answers(toy_server):
    answer = asked(toy_server, row="sound:test:0", gallery="touch", top=26).json
    assert answer["query"]["picture"] == "/api/picture/0/test/0"
    for result in answer["results"]:
        assert result["address"] == f"touch:test:{result['row']}"
        assert ("picture" in result) == (result["row"] < 20 and result["row"] != 5)  # the name of 5 is no file
    small = toy_server.ask(answer["results"][0]["picture"]) if "picture" in answer["results"][0] else None
    small = small or toy_server.ask(answer["query"]["picture"])
    assert (small.status, small.headers["content-type"]) == (200, "image/png")
    assert max(Image.open(io.BytesIO(small.body)).size) <= 160
    again = asked(toy_server, row=answer["results"][0]["address"]).json
    assert again["query"]["modality"] == "touch"


def test_rows_are_listed_and_found(toy_server):
    first = toy_server.ask("/api/rows?modality=sound").json
    assert [r["row"] for r in first["rows"]] == list(range(27))
    assert not first["more"]
    assert first["rows"][1] | {"picture": ""} == {
        **{"id": "test-1", "label": "mid", "split": "test", "row": 1, "address": "sound:test:1", "picture": ""},
        "text": "<b>text of test-1</b><img src=x onerror=alert(1)>",
    }
    assert [r["row"] for r in toy_server.ask("/api/rows?modality=touch&offset=24").json["rows"]] == [25, 26]
    assert [r["row"] for r in toy_server.ask("/api/rows?find=ST-2").json["rows"]] == [2, *range(20, 27)]
    assert len(toy_server.ask("/api/rows?find=low").json["rows"]) == 9
    assert toy_server.ask("/api/rows?find=nothing").json == {"rows": [], "more": False}
    assert [r["row"] for r in toy_server.ask("/api/rows?find=low&offset=7").json["rows"]] == [21, 24]


def test_the_run_is_described_without_paths(toy_run, toy_server, emoji_server):
    about = toy_server.ask("/api/about")
    assert about.json["galleries"] == {"sound": 27, "touch": 26, "smell": 27}
    assert about.json["takes"]["text"]["modalities"] == []
    assert "choose a row" in about.json["takes"]["text"]["why_not"]
    assert about.json["rows"]["train"] == {"sound": 60, "touch": 60, "smell": 60}
    assert emoji_server.ask("/api/about").json["takes"] == {
        "text": {"modalities": ["text", "text_de"], "why_not": None},
        "image": {"modalities": ["image"], "why_not": None},
    }
    for path in ("/", "/docs", "/openapi.json", "/api/about", "/api/rows", "/api/search?row=sound:test:1", "/healthz"):
        answer = toy_server.ask(path)
        assert answer.status == 200
        for part in (str(toy_run.parent), "Traceback", "/site-packages/"):
            assert part.encode() not in answer.body, path


def test_the_description_of_the_api_names_its_addresses_and_loads_nothing(toy_server):
    described = toy_server.ask("/openapi.json").json
    assert described["openapi"].startswith("3.")
    assert set(described["paths"]) >= {"/api/search", "/api/rows", "/api/about", "/healthz"}
    names = {p["name"] for p in described["paths"]["/api/search"]["get"]["parameters"]}
    assert names == {"text", "row", "gallery", "modality", "top"}
    used = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(described)))
    assert used == set(described["components"]["schemas"])
    for page in ("/", "/docs"):
        text = toy_server.ask(page).body.decode()
        assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", text)
        assert "innerHTML" not in text
    docs = toy_server.ask("/docs").body.decode()
    assert "<script" not in docs
    assert all(path in docs for path in described["paths"])


def test_every_answer_forbids_what_a_page_does_not_need(toy_server):
    for path in ("/", "/docs", "/api/about", "/nothing", "/api/search", "/api/picture/0/test/0"):
        headers = toy_server.ask(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert not {"set-cookie", "access-control-allow-origin", "server"} & set(headers), path
    assert toy_server.ask("/", "HEAD").body == b""


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/api/search", "give either text or row"),
        ("/api/search?text=a&row=b", "give either text or row"),
        ("/api/search?text=cat", "cannot be computed for the data of this run"),
        ("/api/search?row=sound:test", "give MODALITY:SPLIT:INDEX"),
        ("/api/search?row=sound:test:99", "test has 27 rows of sound, 0 to 26"),
        ("/api/search?row=touch:test:2", "this instance has no touch"),
        ("/api/search?row=taste:test:2", "modality 'taste' is not in this run"),
        ("/api/search?row=sound:test:1&gallery=taste", "gallery 'taste' is not there; choose from sound, touch"),
        ("/api/search?row=sound:test:1&modality=touch", "leave modality out"),
        ("/api/search?row=sound:test:1&top=0", "top '0': it must be an integer from 1 to 100"),
        ("/api/search?row=sound:test:1&top=101", "from 1 to 100"),
        ("/api/search?row=sound:test:1&top=1e3", "from 1 to 100"),
        ("/api/search?row=sound:test:1&top=%D9%A3", "from 1 to 100"),
        ("/api/search?row=sound:test:1&row=sound:test:2", "given twice"),
        ("/api/search?row=sound:test:1&path=/etc/passwd", "parameter 'path' is unknown"),
        (f"/api/search?row={'a' * 501}", "row has 501 characters; give at most 500"),
        ("/api/search?row=%00", "no valid text"),
        ("/api/search?row=%ff", "no valid text"),
        ("/api/rows?modality=taste", "modality 'taste' is not there"),
        ("/api/rows?offset=-1", "offset '-1'"),
        ("/api/about?x=1", "parameter 'x' is unknown"),
    ],
)
def test_wrong_queries_are_refused_in_one_line(toy_server, path, message):
    answer = toy_server.ask(path)
    assert answer.status == 400
    assert message in answer.json["error"]
    assert "\n" not in answer.json["error"]


@pytest.mark.parametrize(
    ("text", "message"), [("", "the text is empty"), ("_-", "holds no letters"), ("a%ED%B3%BF", "no valid text")]
)
def test_texts_without_meaning_are_refused(emoji_server, text, message):
    answer = emoji_server.ask(f"/api/search?text={text}")
    assert (answer.status, message in answer.json["error"]) == (400, True)


def test_queries_at_once_get_each_its_own_answer(toy_server, emoji_server):
    rows = [f"{m}:test:{i}" for m in ("sound", "smell") for i in range(27)]
    alone = {row: asked(toy_server, row=row, top=3).json for row in rows}
    texts = [f"{word} {i}" for i in range(10) for word in ("cat", "red flag")]
    by_text = {text: asked(emoji_server, text=text, top=3).json for text in texts}
    with ThreadPoolExecutor(24) as threads:
        together = dict(zip(rows, threads.map(lambda row: asked(toy_server, row=row, top=3).json, rows), strict=True))
        texts_together = threads.map(lambda text: asked(emoji_server, text=text, top=3).json, texts)
        texts_together = dict(zip(texts, texts_together, strict=True))
    for one, many in ((alone, together), (by_text, texts_together)):
        for key, answer in one.items():
            close_to(many[key], answer)


def test_wrong_and_right_queries_at_once(toy_server):
    rows = ["sound:test:1", "nonsense", "touch:test:2", "smell:test:3"] * 6
    with ThreadPoolExecutor(24) as threads:
        answers = list(threads.map(lambda row: asked(toy_server, row=row).status, rows))
    assert answers == [200, 400, 400, 200] * 6


@pytest.mark.parametrize("flags", [["--method", "cca"], ["--representation", "both", *TOY_FLAGS]])
def test_runs_of_other_methods_and_representations_on_data_without_ids(tmp_path, flags):
    data, run = save_npz(tmp_path / "toy.npz"), tmp_path / "run"
    assert train_main(["--data-path", str(data), "--workdir", str(run), *flags]) == 0
    (tmp_path / "pictures").mkdir()
    with pytest.raises(InputError, match="none belongs to the data, whose ids are such as 'train:0'"):
        prepared(Searcher(run, data=data), str(tmp_path / "pictures"), Limits())
    Image.new("RGB", (9, 9)).save(tmp_path / "pictures" / "train:3.png")
    with served(run, pictures=str(tmp_path / "pictures"), splits=("valid", "test"), data=data) as server:
        searcher = Searcher(run, splits=("valid", "test"), data=data)
        for row in ("sound:test:5", "touch:valid:0", "sound:train:7"):
            answer = asked(server, row=row, top=4)
            close_to(bare(answer.json), searcher.answer(Query("row", row), 4))
            assert "picture" not in answer.json["results"][0]
        assert server.ask("/api/about").json["galleries"] == {"sound": 51, "touch": 51}
        assert server.ask("/api/picture/0/train/3").status == 200
        for place in ("0/test/5", "0/train/5", "1/valid/99"):
            assert server.ask(f"/api/picture/{place}").status == 404


@pytest.fixture
def compiled():
    """The programs that are compiled from now on."""
    names, listening = [], [True]

    def listen(name, *_, **__):
        if listening and "backend_compile" in name:
            names.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    listening.clear()


@pytest.mark.parametrize("large", [1, 1 << 20])
def test_no_request_compiles_anything(emoji_run, monkeypatch, compiled, large):
    monkeypatch.setattr(nearest, "_LARGE", large)
    jax.clear_caches()  # of other tests
    service, _ = prepared(Searcher(emoji_run), None, Limits())
    assert compiled
    compiled.clear()
    for count in (1, 2, 9, 20, 32):
        for top in (1, 15, 100):
            queries = [Ask("text", f"cat {i}", top) for i in range(count)]
            queries += [Ask("row", f"image:train:{i}", top, "text") for i in range(32 - count)]
            queries += [Ask("row", f"text_de:test:{i}", top, "image") for i in range(count)]
            answers = [answer for i in range(0, len(queries), 32) for answer in service.answer(queries[i : i + 32])]
            assert all(len(answer["results"]) == top for answer in answers)
    assert compiled == []


def test_large_galleries_are_searched_by_bounds(toy_run, monkeypatch):
    monkeypatch.setattr(nearest, "_LARGE", 1)
    with served(toy_run) as server:
        for row in ("sound:test:5", "touch:test:0"):
            close_to(bare(asked(server, row=row, top=9).json), Searcher(toy_run).answer(Query("row", row), 9))


def test_a_kind_of_query_whose_features_fail_here_is_closed(emoji_run, monkeypatch, capsys):
    from mrl_jax.data.emoji import features
    from mrl_jax.errors import InputError

    def fails(_):
        raise InputError("model /secret/place does not exist")

    monkeypatch.setattr(features, "weigh_counts", fails)
    with served(emoji_run) as server:
        assert "warning: no query is a text: model /secret/place" in capsys.readouterr().err
        answer = asked(server, text="cat")
        assert answer.status == 400
        assert "secret" not in answer.json["error"]
        assert asked(server, row="text:test:0").status == 200


def test_a_fault_of_the_program_tells_the_client_nothing(capsys):
    async def broken(scope, receive, send):
        if scope["type"] == "http":
            raise RuntimeError("/secret/place\nis broken")
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    with running(Guard(broken, Limits(), None), Limits()) as port:
        answer = Served(port).ask("/")
    assert (answer.status, answer.json) == (500, {"error": "the server failed; its own messages say why"})
    assert "error: RuntimeError: /secret/place is broken" in capsys.readouterr().err


# --- the process ---


def started(*flags):
    """The server as a process of its own, and its port."""
    command = [sys.executable, "-m", "mrl_jax.search", "--serve", "--port", "0", *map(str, flags)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
    line = process.stdout.readline()
    assert line.startswith("http://127.0.0.1:"), process.stderr.read()
    return process, int(re.findall(r":(\d+) searches", line)[0])


def test_sigterm_answers_what_has_begun_and_nothing_more(emoji_run):
    process, port = started("--workdir", emoji_run)
    try:
        data = load_records("test")[3]["png"]
        head = f"POST /api/search HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/png\r\ncontent-length: {len(data)}"
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(f"{head}\r\n\r\n".encode() + data[:100])
            assert Served(port).ask("/healthz").status == 200
            process.send_signal(signal.SIGTERM)
            while True:  # until no one else is let in
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=5).close()
                except OSError:
                    break
                time.sleep(0.02)
            connection.sendall(data[100:])
            answer = parsed(received(connection))
        assert answer.status == 200
        assert len(answer.json["results"]) == 10
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    assert out == ""
    assert err.startswith(f"loading {emoji_run}, which takes some seconds\n")
    assert err.split("\n")[-2] == "error: stopped; every request that had begun was answered; run it again to serve"
    assert "Traceback" not in err


def test_ctrl_c_ends_an_idle_server(toy_run):
    process, port = started("--workdir", toy_run, "--top", "4")
    try:
        assert len(asked(Served(port), row="sound:test:1").json["results"]) == 4
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGINT
    assert err.count("\n") == 4


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--port", "80"], "--host and --port are for the page; add --serve"),
        (["--serve", "--row", "sound:test:1"], "--row does not go with --serve"),
        (["--serve", "--interactive"], "--interactive does not go with --serve"),
        (["--serve", "--json"], "--json does not go with --serve"),
        (["--serve", "--port", "70000"], "--port 70000: it must be from 0 to 65535"),
        (["--serve", "--host", "no such host"], "this is no address of this machine"),
        (["--serve", "--top", "0"], "--top 0"),
        (["--serve", "--port", "0", "--top", "101"], "--top 101: a page has at most 100 results"),
        (["--serve", "--port", "0", "--pictures", "nowhere"], "the folder does not exist"),
    ],
)
def test_flags_that_do_not_fit_are_refused(toy_run, flags, message, capsys):
    assert main(["--workdir", str(toy_run), *flags]) == 2
    *before, error = capsys.readouterr().err.splitlines()
    assert message in error
    assert before in ([], [f"loading {toy_run}, which takes some seconds"])


def test_a_port_that_is_taken_is_named_before_anything_is_loaded(toy_run, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["--workdir", str(toy_run / "none"), "--serve", "--port", port]) == 2
    assert f"--host 127.0.0.1 --port {port} cannot be served" in capsys.readouterr().err


def test_without_its_packages_the_command_says_how_to_install_them(toy_run, monkeypatch, capsys):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name))
    assert main(["--workdir", str(toy_run), "--serve"]) == 2
    assert "--serve needs uvicorn, not installed here; run: pip install uvicorn" in capsys.readouterr().err


def test_an_answer_is_what_the_client_of_these_tests_reads():
    assert parsed(b"HTTP/1.1 200 OK\r\nA: B\r\n\r\n{}") == Answer(200, {"a": "b"}, b"{}")
