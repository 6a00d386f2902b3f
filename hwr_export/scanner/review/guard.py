"""Requests -> only those of the page that was opened with the link: this machine, this address, this token.

A name that another site points at 127.0.0.1 is refused by the Host header, another site's request by Origin and the
strict cookie; the policy lets the page ask nobody but this server.
"""

import hmac
import secrets
from http.cookies import CookieError, SimpleCookie
from typing import Any

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Guard:
    """Stands before the application. One link may be used again and again, the one a browser is started with once."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app = app
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        self._token, self._once = secrets.token_urlsafe(32), {secrets.token_urlsafe(32)}
        self._cookie, self._session = f"hwr-review-{port}", secrets.token_urlsafe(32)
        self.link = f"http://127.0.0.1:{port}/?token={self._token}"
        # Other users of the machine see a started browser's arguments: what stands there is of no use twice.
        self.link_once = f"http://127.0.0.1:{port}/?token={next(iter(self._once))}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        admitted = self._admits(QueryParams(scope["query_string"]).get("token", "")) if scope["path"] == "/" else False

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = MutableHeaders(scope=message)
                added.update(HEADERS)
                if admitted:
                    cookie = f"{self._cookie}={self._session}; HttpOnly; SameSite=Strict; Path=/"
                    added.append("Set-Cookie", cookie)
            await send(message)

        status, said = self._refusal(scope, headers, admitted)
        answer = PlainTextResponse(said, status) if said else self._app
        await answer(scope, receive, with_headers)

    def _refusal(self, scope: Scope, headers: Headers, admitted: bool) -> tuple[int, str]:
        host = headers.get("host", "")
        if host not in self._hosts:
            return 421, "This server answers to 127.0.0.1 alone."
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return 405, "GET and POST are what this server knows."
        if not admitted and not self._knows(headers.get("cookie", "")):
            return 403, "Open the review with the link that `hwr-export review` printed."
        if scope["method"] == "POST":
            own = (
                headers.get("origin") == f"http://{host}"
                and headers.get("sec-fetch-site", "same-origin") == "same-origin"
            )
            if not own or headers.get("content-type", "") != "application/json":
                return 403, "Only the page itself may send answers."
        return 0, ""

    def _admits(self, token: str) -> bool:
        once = next((known for known in self._once if hmac.compare_digest(known.encode(), token.encode())), None)
        if once is not None:
            self._once.remove(once)
        return once is not None or hmac.compare_digest(self._token.encode(), token.encode())

    def _knows(self, cookies: str) -> bool:
        try:
            found: Any = SimpleCookie(cookies).get(self._cookie)
        except CookieError:
            return False
        return found is not None and hmac.compare_digest(self._session.encode(), found.value.encode())
