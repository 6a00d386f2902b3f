"""The review as a browser meets it: a real server on a port of this machine; requests with or without its cookie."""

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn

from hwr_export.scanner.review.app import Review
from hwr_export.scanner.review.desk import Desk
from hwr_export.scanner.review.guard import Guard
from hwr_export.scanner.review.serve import config, listening


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Served:
    """A running review, and one browser's cookie."""

    def __init__(self, desk: Desk, guard: Guard, port: int) -> None:
        self.desk, self.guard, self.port = desk, guard, port
        self.cookie = ""

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        """Send one request; `_` in a header's name stands for `-`, an empty one is left out."""
        sent = {"Host": f"127.0.0.1:{self.port}", "Cookie": self.cookie}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in sent.items():
                if value:
                    connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            found = connection.getresponse()
            return Answer(found.status, {k.lower(): v for k, v in found.getheaders()}, found.read())

    def enter(self) -> Answer:
        """Open the page with the printed link."""
        found = self.ask(self.guard.link.split(str(self.port))[1])
        self.cookie = found.headers["set-cookie"].split(";")[0]
        return found

    def call(self, name: str, said: Any, **headers: str) -> Answer:
        """Call as the page does."""
        own = {"Origin": f"http://127.0.0.1:{self.port}", "Content_Type": "application/json"} | headers
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        return self.ask(f"/api/{name}", "POST", body, **own)


@contextmanager
def served(desk: Desk, by: str = "anna") -> Iterator[Served]:
    """Serve a desk until the block ends."""
    with closing(listening(0)) as socket:
        port = socket.getsockname()[1]
        app = Review(desk, by)
        guard = Guard(app.app, port)
        server = uvicorn.Server(config(guard))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield Served(desk, guard, port)
        finally:
            server.should_exit = True
            thread.join()
            app.close()
