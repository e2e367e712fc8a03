"""The search server against a hostile client: it refuses in one line of JSON, names no path, and goes on."""

import asyncio
import io
import json
import random
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from fuzzing.mutations import mutate
from fuzzing.readers import READERS, asked, check_answer
from PIL import Image
from server import Served, parsed, received, running

from mrl_jax.errors import InputError
from mrl_jax.search.server.app import make_app
from mrl_jax.search.server.batches import Batches
from mrl_jax.search.server.guard import loopback_names
from mrl_jax.search.server.limits import Limits, RefusedError
from mrl_jax.search.server.pictures import Thumbnails

pytestmark = pytest.mark.slow

SMALL = Limits(seconds=0.4, head=4096, body=20_000, pixels=10_000, connections=30)
POST = "POST /api/search HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/png\r\n"


@pytest.fixture(scope="module")
def server(emoji_run, emoji_server):
    """The service of `emoji_server` behind small bounds."""
    app = make_app(emoji_server.service, Thumbnails(None), SMALL, loopback_names("127.0.0.1"), 10)
    with running(app, SMALL) as port:
        yield Served(port)


@pytest.fixture(autouse=True)
def goes_on(server):
    """After each attack the server still answers."""
    yield
    assert server.ask("/api/search?text=cat&top=1").status == 200


def sent(server, data, kind="image/png", path="/api/search"):
    return server.ask(path, "POST", data, content_type=kind)


def refused(answer, status, *words):
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    message = answer.json["error"]
    assert all(word in message for word in words), message
    assert answer.body.count(b"\n") == 1
    assert not any(word in message for word in ("/tmp", "/home", "/usr", "Traceback", ".py", "0x"))


def png(size=(30, 30), mode="RGB", **more):
    file = io.BytesIO()
    Image.new(mode, size, 1).save(file, "PNG", **more)
    return file.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width, height, rows=b""):
    """A PNG of a kilobyte that says it has so many pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


# --- who asks ---


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "localhost@evil", "["]
)
def test_names_of_other_machines_are_refused(server, host):
    refused(server.ask("/", host=host), 421, "answers only as")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8000", "[::1]:8000"])
def test_names_of_this_machine_are_not(server, host):
    assert server.ask("/healthz", host=host).status == 200


def test_pages_of_other_sites_are_refused(server):
    for origin in ("http://evil.example", "null", f"http://localhost:{server.port}"):
        refused(server.ask("/api/about", origin=origin), 403, "other sites")
    assert server.ask("/api/about", origin=server.url).status == 200
    refused(server.ask("/api/about", "OPTIONS", origin="http://evil.example"), 403)
    for site in ("cross-site", "same-site"):
        refused(server.ask("/api/about", sec_fetch_site=site), 403)
        assert server.ask("/", sec_fetch_site=site).status == 200  # a link
    through_a_proxy = {"origin": "https://search.example", "host": "localhost", "sec_fetch_site": "same-origin"}
    assert server.ask("/api/search", "POST", png(), content_type="image/png", **through_a_proxy).status == 200
    assert loopback_names("0.0.0.0") is None


# --- addresses ---


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "/../../../../etc/passwd",
        "/..%2f..%2f..%2fetc%2fpasswd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/page.html",
        "/static/../page.html",
        "/api/picture/0/../../../../etc/passwd/0",
        "/api/picture/0/..%2f..%2fetc/0",
        "/api/picture/0/test/..%2f..%2fetc%2fpasswd",
        "/api/picture/99/test/0",
        "/api/picture/0/nosplit/0",
        "/api/picture/0/test/99999999999999999999999",
        "/api/picture/0/test/-1",
        "/api/search/",
        "/api%00/search",
        "/\\..\\..\\windows",
        "/docs/..",
        "/API/SEARCH",
    ],
)
def test_no_path_of_the_server_is_reachable(server, path):
    refused(server.ask(path), 404)


def test_rows_and_texts_are_no_paths(server):
    for query in ("row=/etc/passwd", "row=image:test:../../0", "row=file:///etc/passwd", "image=/etc/passwd"):
        refused(server.ask(f"/api/search?{query}"), 400)
    assert server.ask("/api/search?text=/etc/passwd&top=1").status == 200  # a text like any other


def test_long_addresses_and_methods_that_do_not_fit(server):
    refused(server.ask("/api/search?text=" + "a" * 3990 + "&x=" + "b" * 200), 414, "4096 bytes")
    for method in ("PUT", "DELETE", "PATCH"):
        answer = server.ask("/api/search", method)
        refused(answer, 405, "use GET, POST")
        assert answer.headers["allow"] == "get, post"
    refused(server.ask("/healthz", "POST", b"x"), 405, "use GET")


# --- bytes that are no request, too many or too slow ---


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET * HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nhost: localhost\r\n\r\n",
        POST.encode() + b"content-length: -5\r\n\r\n",
        POST.encode() + b"content-length: 5\r\ncontent-length: 7\r\n\r\nabcde",
        POST.encode() + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\nabcde",
        POST.encode() + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_bytes_that_are_no_request(server, data):
    answer = parsed(server.raw(data))
    assert answer.status in (400, 404)
    refused(answer, answer.status)


def test_a_head_without_end_is_cut_off(server):
    refused(parsed(server.raw(b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 2000)), 431, "4096 bytes")
    refused(parsed(server.raw(b"GET /" + b"a" * 60_000)), 431)


def test_a_slow_head_is_cut_off(server):
    refused(parsed(server.raw(b"GET / HTTP/1.1\r\nhost: loc")), 408, "0.4 s")
    refused(parsed(server.raw(b"")), 408)
    with server.connect() as connection:  # a second request on the same connection
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET / HT")
        refused(parsed(received(connection)), 408)


def test_a_slow_body_is_cut_off(server):
    refused(parsed(server.raw(f"{POST}content-length: 1000\r\n\r\nabc".encode())), 408, "took more than 0.4 s")
    drops = f"{POST}transfer-encoding: chunked\r\n\r\n1\r\na\r\n".encode()
    refused(parsed(server.raw(drops)), 408)


def test_a_body_where_none_is_read_does_not_hold_a_connection(server):
    data = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000\r\n\r\nabc"
    assert server.raw(data).startswith(b"HTTP/1.1 200")


def test_huge_bodies_are_refused_at_their_head_and_where_that_lies(server):
    for length in (20_001, 10**12):
        refused(parsed(server.raw(f"{POST}content-length: {length}\r\n\r\n".encode())), 413, "20,000 bytes")
    part = b"4000\r\n" + b"a" * 0x4000 + b"\r\n"
    refused(parsed(server.raw(f"{POST}transfer-encoding: chunked\r\n\r\n".encode() + 8 * part)), 413)


def test_clients_that_go_away(server):
    for data in (b"GET / HTTP/1.1\r\n", f"{POST}content-length: 900\r\n\r\nabc".encode(), b"GET /api/search?text=cat"):
        with server.connect() as connection:
            connection.sendall(data)
    for _ in range(20):
        with server.connect() as connection:
            connection.sendall(b"GET /api/search?text=cat HTTP/1.1\r\nhost: localhost\r\n\r\n")


def test_connections_are_bounded(server):
    held = [server.connect() for _ in range(40)]
    try:
        answers = [received(connection)[:12] for connection in held]
    finally:
        for connection in held:
            connection.close()
    assert answers.count(b"HTTP/1.1 503") == 10
    assert answers.count(b"HTTP/1.1 408") == 30


# --- pictures ---


@pytest.mark.parametrize(
    "data",
    [
        b"no picture",
        png()[:60],
        png().replace(b"IDAT", b"IDAX"),
        b"\x89PNG\r\n\x1a\n" + b"0" * 50,
        b"GIF89a" + b"\xff" * 40,
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        bomb(0, 5),
        bomb(50, 50),
    ],
)
def test_broken_pictures_and_other_formats(server, data):
    refused(sent(server, data), 400, "this is no PNG picture that can be read")


def test_a_picture_is_read_only_as_what_its_content_type_says(server):
    gif = io.BytesIO()
    Image.new("P", (9, 9)).save(gif, "GIF")
    refused(sent(server, gif.getvalue()), 400, "no PNG")
    assert sent(server, gif.getvalue(), "image/gif").status == 200
    for kind in ("", "text/plain", "application/json", "image/svg+xml", "image/tiff", "multipart/form-data"):
        refused(sent(server, png(), kind), 415, "send one of image/png")
    refused(server.ask("/api/search", "POST", b"", content_type="image/png", content_length="0"), 400, "is empty")


def test_pictures_of_too_many_pixels_are_not_decoded(server):
    for size in ((101, 100), (60_000, 60_000), (2**31 - 1, 1)):
        refused(sent(server, bomb(*size)), 413, "more than 10,000 pixels; scale it down")
    refused(sent(server, bomb(2**31 - 1, 2**31 - 1)), 413)


def test_pictures_with_much_hidden_in_little(server):
    text = b"Comment\0\0" + zlib.compress(b"0" * 50_000_000)
    head, _, rest = png().partition(b"IDAT")
    at = len(head) - 4
    hidden = png()[:at] + chunk(b"zTXt", text[: 10_000 + len(text)]) + png()[at:]
    assert rest
    assert sent(server, hidden[:19_999] if len(hidden) > 20_000 else hidden).status in (200, 400, 413)
    profile = png(icc_profile=b"0" * 1000)
    assert sent(server, profile).status == 200
    assert sent(server, bomb(100, 100, b"\0" * 10_000_000)).status in (200, 400)  # more rows than it says


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_pictures_of_every_mode_are_taken(server, mode):
    assert sent(server, png((31, 7), mode)).status == 200
    frames = [Image.new("RGB", (9, 9), (i, 0, 0)) for i in range(20)]
    file = io.BytesIO()
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    assert sent(server, file.getvalue()).status == 200


# --- many at once ---


def awaited(coroutine):
    """Its result, from a thread: in this one Playwright may have an event loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


def test_queries_beyond_the_queue_are_refused_and_the_others_answered():
    free = threading.Event()

    def answer(queries):
        free.wait(20)
        return [ValueError(q) if q == 3 else q for q in queries]

    async def crowd():
        batches = Batches(answer, 2, 4)
        first = [asyncio.create_task(batches.ask(i)) for i in range(2)]
        await asyncio.sleep(0.05)
        waiting = [asyncio.create_task(batches.ask(i)) for i in range(2, 6)]
        await asyncio.sleep(0)
        with pytest.raises(RefusedError, match="too many queries wait") as refusal:
            await batches.ask(6)
        assert (refusal.value.status, refusal.value.headers) == (503, {"retry-after": "1"})
        waiting[2].cancel()  # its client is gone
        free.set()
        done = await asyncio.gather(*first, *waiting, return_exceptions=True)
        assert await batches.ask(7) == 7
        batches.close()
        return done

    done = awaited(crowd())
    assert done[:3] == [0, 1, 2]
    assert isinstance(done[3], ValueError)
    assert isinstance(done[4], asyncio.CancelledError)
    assert done[5] == 5


def test_an_error_of_a_whole_batch_reaches_every_query():
    def fails(_):
        raise ZeroDivisionError

    async def crowd():
        batches = Batches(fails, 4, 9)
        done = await asyncio.gather(*(batches.ask(i) for i in range(6)), return_exceptions=True)
        batches.close()
        return done

    assert all(isinstance(error, ZeroDivisionError) for error in awaited(crowd()))


def test_requests_and_pictures_at_once_are_bounded(emoji_run, emoji_server):
    limits = SMALL._replace(requests=2, pictures=1, seconds=20.0)
    app = make_app(emoji_server.service, Thumbnails(None), limits, loopback_names("127.0.0.1"), 10)
    with running(app, limits) as port:
        server, data = Served(port), png()
        begun = f"{POST}connection: close\r\ncontent-length: {len(data)}\r\n\r\n".encode()
        with server.connect() as first, server.connect() as second:
            first.sendall(begun)
            while (
                server.ask("/api/about").status != 200
                or server.ask("/api/search", "POST", data, content_type="image/png").status != 503
            ):
                pass
            second.sendall(begun)
            answer = parsed(received(second))  # one picture at once
            refused(answer, 503, "other pictures wait")
            assert answer.headers["retry-after"] == "1"
            assert server.ask("/healthz").status == 200
            first.sendall(data)
            assert b"200 OK" in received(first)[:20]


def test_answers_are_no_html(server):
    answer = server.ask("/api/search?text=%3Cscript%3Ealert(1)%3C/script%3E%20cat&top=1")
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(answer.body)["query"]["value"].startswith("<script>")


def test_damaged_requests_are_answered_or_refused_in_one_line(emoji_server, tmp_path):
    app = make_app(emoji_server.service, Thumbnails(None), SMALL, loopback_names("127.0.0.1"), 10)
    valid = [path.read_bytes() for path in sorted(READERS["requests"].write(tmp_path).iterdir())]

    async def all_answers():
        done, counts = asyncio.Event(), [0, 0]

        async def receive():
            if not begun.is_set():
                begun.set()
                return {"type": "lifespan.startup"}
            await done.wait()
            return {"type": "lifespan.shutdown"}

        async def ignore(_): ...

        begun = asyncio.Event()
        life = asyncio.create_task(app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, ignore))
        await begun.wait()
        for i in range(120):
            data = valid[i % 6] if i < 6 else mutate(valid[i % 6], random.Random(i))
            try:
                check_answer(*await asked(app, data))
                counts[0] += 1
            except InputError:
                assert i >= 6 or b"/api/picture/" in data  # the rows have none here
                counts[1] += 1
        done.set()
        await life
        return counts

    answered, refused_ones = awaited(all_answers())
    assert answered > 20
    assert refused_ones > 20
