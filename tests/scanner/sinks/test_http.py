"""A real server that fails in every way a receiver can, on a real socket."""

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from hwr_export.scanner.sinks import HttpConfig, SinkRefusedError, Sinks, SinkUnavailableError
from hwr_export.scanner.sinks.delivery import Courier
from hwr_export.scanner.sinks.http import HttpSink
from hwr_export.scanner.spool import Spool
from tests.scanner.fakes import document

type_of_sinks: TypeAdapter[Any] = TypeAdapter(Sinks)


class Receiver(ThreadingHTTPServer):
    """Keeps what came, by idempotency key; `answers` are given in turn, then 200."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Callable[[Handler], None]] = []
        self.posts: list[tuple[str, dict[str, Any]]] = []
        self.headers: list[dict[str, str]] = []
        self.connections: set[int] = set()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/pages?from=scanner"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Receiver

    def do_POST(self) -> None:
        self.server.connections.add(self.client_address[1])
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.headers.append(dict(self.headers))
        self.server.posts.append((self.headers["Idempotency-Key"], json.loads(body)))
        answer = self.server.answers.pop(0) if self.server.answers else status(200)
        answer(self)

    def log_message(self, *args: object) -> None:
        pass


def status(code: int, body: bytes = b"thanks", **headers: str) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def hang(handler: Handler) -> None:
    time.sleep(1)
    handler.close_connection = True


def drop(handler: Handler) -> None:
    handler.close_connection = True


def half(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 20")
    handler.close_connection = True


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def config(url: str, **changes: Any) -> HttpConfig:
    return HttpConfig(kind="http", name="desk", url=url, first_wait_s=0.01, max_wait_s=0.05, timeout_s=0.3, **changes)


@pytest.fixture
def sink(receiver: Receiver) -> Iterator[HttpSink]:
    sink = HttpSink(config(receiver.url))
    yield sink
    sink.close()


def test_a_page_is_one_post_with_its_key(receiver: Receiver, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    sink = HttpSink(config(receiver.url, token_file=tmp_path / "token"))
    for key in ("a", "b"):
        sink.deliver({"page": {"id": key}, "value": "ä"}, key)
    (tmp_path / "token").write_text("changed")  # tokens are replaced while the service runs
    sink.deliver({}, "c")
    assert receiver.posts[0] == ("a", {"page": {"id": "a"}, "value": "ä"})
    found = [headers["Authorization"] for headers in receiver.headers]
    assert found == ["Bearer s3cret", "Bearer s3cret", "Bearer changed"]
    assert receiver.headers[0]["Content-Type"] == "application/json"
    assert len(receiver.connections) == 1
    (tmp_path / "token").unlink()
    with pytest.raises(SinkUnavailableError, match=r"no answer \(FileNotFoundError"):
        sink.deliver({}, "d")
    sink.close()


@pytest.mark.parametrize("code", [400, 401, 403, 404, 405, 410, 413, 415, 422])
def test_an_answer_that_judges_the_document_is_final(receiver: Receiver, sink: HttpSink, code: int) -> None:
    receiver.answers = [status(code, b"value 8264 is not allowed")]
    with pytest.raises(SinkRefusedError, match=f"^desk: the receiver answered {code} [A-Z]") as caught:
        sink.deliver({}, "a")
    assert "8264" not in str(caught.value)  # what the receiver says may repeat what was read


@pytest.mark.parametrize("code", [408, 409, 425, 429, 500, 502, 503, 504, 507])
def test_an_answer_that_speaks_of_the_moment_means_later(receiver: Receiver, sink: HttpSink, code: int) -> None:
    receiver.answers = [status(code)]
    with pytest.raises(SinkUnavailableError, match=f"the receiver answered {code}") as caught:
        sink.deliver({}, "a")
    assert caught.value.retry_after_s == 0
    sink.deliver({}, "a")
    assert len(receiver.connections) == 1


@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_nothing_goes_where_an_answer_points_to(receiver: Receiver, sink: HttpSink, code: int) -> None:
    receiver.answers = [status(code, Location=receiver.url)]
    with pytest.raises(SinkRefusedError, match=f"answered {code}"):
        sink.deliver({}, "a")
    assert len(receiver.posts) == 1


@pytest.mark.parametrize(
    ("asked", "date", "expected_s"),
    [
        ("7", None, 7.0),
        ("1000000", None, 3600.0),  # nobody stops a scanner for longer than an hour
        ("99999999999999999999", None, 0.0),
        # By the receiver's own clock, whatever year the scanner believes in.
        ("Wed, 21 Oct 2015 07:28:30 GMT", "Wed, 21 Oct 2015 07:28:00 GMT", 30.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:28:30 GMT", 0.0),
        ("soon", None, 0.0),
        ("-5", None, 0.0),
    ],
)
def test_the_wait_that_is_asked_for(
    receiver: Receiver, sink: HttpSink, asked: str, date: str | None, expected_s: float
) -> None:
    def answer(handler: Handler) -> None:
        handler.send_response_only(429)
        handler.send_header("Retry-After", asked)
        if date is not None:
            handler.send_header("Date", date)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    receiver.answers = [answer]
    with pytest.raises(SinkUnavailableError) as caught:
        sink.deliver({}, "a")
    assert caught.value.retry_after_s == expected_s


@pytest.mark.parametrize("answer", [hang, drop, half])
def test_no_answer_means_later_and_the_same_key_again(
    receiver: Receiver, sink: HttpSink, answer: Callable[[Handler], None]
) -> None:
    receiver.answers = [answer]
    started = time.monotonic()
    with pytest.raises(SinkUnavailableError, match="desk: no answer"):
        sink.deliver({}, "a")
    assert time.monotonic() - started < 0.9
    sink.deliver({}, "a")
    assert [key for key, _ in receiver.posts] == ["a", "a"]


def test_an_answer_without_end_is_not_read(receiver: Receiver, sink: HttpSink) -> None:
    receiver.answers = [status(200, b"x" * (1 << 20))]
    sink.deliver({}, "a")
    sink.deliver({}, "b")
    assert len(receiver.connections) == 2  # closed in the middle, and a new one for the next page


def test_nobody_there_means_later() -> None:
    sink = HttpSink(config("http://127.0.0.1:9/pages"))
    with pytest.raises(SinkUnavailableError, match=r"no answer \(NewConnectionError"):
        sink.deliver({}, "a")
    sink.close()


def test_only_a_receiver_with_a_trusted_certificate_gets_pages(receiver: Receiver, certificates: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    receiver.socket = context.wrap_socket(receiver.socket, server_side=True)
    receiver.handle_error = lambda request, client_address: None  # type: ignore[method-assign]
    url = receiver.url.replace("http:", "https:")
    trusting = HttpSink(config(url, ca_file=certificates / "ca.pem"))
    trusting.deliver({}, "a")
    trusting.close()
    for ca_file in (None, certificates / "none.pem"):
        sink = HttpSink(config(url, ca_file=ca_file))
        with pytest.raises(SinkUnavailableError, match=r"no answer \((SSLError|FileNotFoundError)"):
            sink.deliver({}, "b")
        sink.close()
    assert [key for key, _ in receiver.posts] == ["a"]


def test_a_receiver_on_its_worst_day_has_each_page_once_by_key(receiver: Receiver, tmp_path: Path) -> None:
    receiver.answers = [
        drop, status(500), hang, status(429, Retry_After="0"), half, status(200), drop, status(503), status(422)
    ]  # fmt: skip
    with Spool(tmp_path / "spool", 100, 1 << 20, ("desk",), reserve_bytes=0) as spool:
        pages = [spool.add("watch", str(i), b"x", "png") for i in range(8)]
        for page in pages:
            spool.store_result(page, document(page))
        courier = Courier(spool.outbox, config(receiver.url), HttpSink(config(receiver.url)))
        courier.start()
        deadline = time.monotonic() + 20
        while spool.counts().sinks["desk"].pending and time.monotonic() < deadline:
            time.sleep(0.02)
        (letter,) = spool.outbox.dead_letters()
        assert letter.error == "desk: the receiver answered 422 Unprocessable Entity"
        assert spool.outbox.send_again("desk") == 1
        courier.nudge()
        while spool.counts().sinks["desk"].pending and time.monotonic() < deadline:
            time.sleep(0.02)
        courier.stop()
        courier.join()
        assert spool.counts().undelivered == 0
    assert len(receiver.posts) == 16
    assert dict(receiver.posts) == {page.id: document(page) for page in pages}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://192.168.1.5/pages", "is not encrypted: use https://, or say `plain = true`"),
        ("ftp://example.org", "is no address; https://host/path was expected"),
        ("https:///pages", "is no address"),
        ("https://me:secret@example.org", "would stand in every log"),
    ],
)
def test_addresses_that_give_pages_away_are_refused(url: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        HttpConfig(kind="http", name="desk", url=url)
    assert HttpConfig(kind="http", name="desk", url="http://192.168.1.5/pages", plain=True).plain


def test_sinks_do_not_share_what_is_theirs() -> None:
    folder = {"kind": "jsonl", "name": "a", "directory": "out"}
    broker = {"kind": "mqtt", "name": "c", "host": "h", "topic": "t", "client_id": "scanner-1"}
    assert len(type_of_sinks.validate_python([folder, broker])) == 2
    for sinks, message in (
        ([folder, folder | {"directory": "other"}], "two sinks have the name 'a'"),
        ([folder, folder | {"name": "b"}], "two sinks have the directory"),
        ([broker, broker | {"name": "d"}], "two sinks have the client_id 'scanner-1'"),
        ([broker | {"tls": False, "ca_file": "ca.pem"}], "certificates are named, but tls is false"),
        ([broker | {"cert_file": "a.pem"}], "cert_file and key_file go together"),
        ([folder | {"first_wait_s": 100}], "first_wait_s 100 is longer than max_wait_s 60"),
        ([broker | {"topic": "pages/#"}], "string_pattern_mismatch"),
    ):
        with pytest.raises(ValidationError, match=message):
            type_of_sinks.validate_python(sinks)
