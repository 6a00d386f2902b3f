"""The review as a web application: the page, the pictures of the field before a person, and what they answer.

Nothing is served but the page's own files and pictures drawn of the pages that the results list, by number.
"""

import importlib.resources
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from pydantic import Field, ValidationError, field_validator
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hwr_export.errors import FormError, HwrError
from hwr_export.scanner.review.cards import UNREADABLE, card, considered
from hwr_export.scanner.review.desk import Desk, TakenError
from hwr_export.scanner.review.ledger import FIRST
from hwr_export.scanner.review.pictures import PAGE_WIDTHS
from hwr_export.spec import Strict, first_problem

STATIC = {
    "": ("index.html", "text/html"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
    "review.css": ("review.css", "text/css"),
    "review.js": ("review.js", "text/javascript"),
    "editor.js": ("editor.js", "text/javascript"),
    "views.js": ("views.js", "text/javascript"),
}
MAX_BODY = 10_000  # bytes of a request
REFUSED_SHOWN = 200  # pages that the last screen lists


class Asked(Strict):
    """What the page sends; what a call does not need is not looked at."""

    by: str = Field("", max_length=40)
    number: int = Field(0, ge=0)
    look: int = Field(FIRST, ge=1, le=3)
    written: str = Field("", max_length=64)
    unreadable: str = Field("", max_length=200)

    @field_validator("by", "written", "unreadable")
    @classmethod
    def _printable(cls, text: str) -> str:
        if not text.isprintable():
            raise ValueError("characters that cannot be printed")
        return text


class Named(Asked):
    """The same, with who it is."""

    by: str = Field(min_length=1, max_length=40)

    @field_validator("by")
    @classmethod
    def _stripped(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("a name is needed")
        return text.strip()


class Review:
    """The routes, over one desk."""

    def __init__(self, desk: Desk, reviewer: str) -> None:
        self._desk, self._reviewer = desk, reviewer
        self._ahead = ThreadPoolExecutor(1)  # draws the page of the next field while a person looks at this one
        files = importlib.resources.files("hwr_export.scanner.review") / "static"
        self._static = {name: ((files / file).read_bytes(), kind) for name, (file, kind) in STATIC.items()}
        calls = {"begin": self._begin, "next": self._next, "check": self._check, "answer": self._answer}
        calls |= {"skip": self._skip, "undo": self._undo}
        self.app = Starlette(
            routes=[
                Route("/", self._file, methods=["GET"]),
                Route("/static/{name}", self._file, methods=["GET"]),
                Route("/pictures/{number:int}/field.png", self._field, methods=["GET"]),
                Route("/pictures/{number:int}/page-{width:int}.jpg", self._page, methods=["GET"]),
                *(Route(f"/api/{name}", _called(call), methods=["POST"]) for name, call in calls.items()),
            ]
        )

    def close(self) -> None:
        """End the thread that works ahead."""
        self._ahead.shutdown(cancel_futures=True)

    def _file(self, request: Request) -> Response:
        found = self._static.get(request.path_params.get("name", ""))
        return Response("There is no such file.", 404) if found is None else Response(found[0], media_type=found[1])

    def _field(self, request: Request) -> Response:
        return self._picture(request, lambda item: (self._desk.pictures.field_png(item.page, item.place), "image/png"))

    def _page(self, request: Request) -> Response:
        width = request.path_params["width"]
        if width not in PAGE_WIDTHS:
            return Response(f"Pages are drawn {' or '.join(map(str, PAGE_WIDTHS))} pixels wide.", 404)
        return self._picture(request, lambda item: (self._desk.pictures.page_jpeg(item.page, width), "image/jpeg"))

    def _picture(self, request: Request, draw: Callable[[Any], tuple[bytes, str]]) -> Response:
        try:
            picture, kind = draw(self._desk.item(request.path_params["number"]))
        except HwrError as err:
            return Response(str(err), 404)
        return Response(picture, media_type=kind)

    def _begin(self, body: Any) -> dict[str, Any]:
        """Say what is reviewed, and who does it unless they say otherwise."""
        Asked.model_validate(body)
        form = self._desk.folder.form
        return {
            "title": form.title or form.id,
            "two_pass": self._desk.two_pass,
            "by": "" if self._desk.two_pass else self._reviewer,
            "unreadable": UNREADABLE,
        } | self._desk.overview(REFUSED_SHOWN)

    def _next(self, body: Any) -> dict[str, Any]:
        return self._following(Named.model_validate(body).by)

    def _check(self, body: Any) -> dict[str, Any]:
        asked = Asked.model_validate(body)
        item = self._desk.item(asked.number)
        verdict = self._desk.consider(item, asked.written, asked.look)
        return considered(item, verdict, self._desk.known_values(item), self._desk)

    def _answer(self, body: Any) -> dict[str, Any]:
        asked = Named.model_validate(body)
        item = self._desk.item(asked.number)
        entry, remark = self._desk.answer(item, asked.look, asked.by, asked.written, asked.unreadable)
        kept = {"n": entry.n, "value": entry.value, "unreadable": entry.unreadable}
        return self._following(asked.by) | {"kept": kept, "remark": remark}

    def _skip(self, body: Any) -> dict[str, Any]:
        asked = Named.model_validate(body)
        self._desk.skip(self._desk.item(asked.number), asked.look, asked.by)
        return self._following(asked.by)

    def _undo(self, body: Any) -> dict[str, Any]:
        by = Named.model_validate(body).by
        undone = self._desk.undo(by)
        if undone is None:
            return {"undone": False, "progress": asdict(self._desk.progress(by))}
        item, entry = undone
        before = entry if entry.do == "answer" else None
        shown = card(self._desk, item, self._desk.asked(item.number), before)
        return {"undone": True, "item": shown, "progress": asdict(self._desk.progress(by))}

    def _following(self, by: str) -> dict[str, Any]:
        """Return the field that comes next for somebody, and how far everything is."""
        number = self._desk.next_for(by)
        shown = None
        if number is not None:
            shown = card(self._desk, self._desk.item(number), self._desk.asked(number))
            self._ahead.submit(self._draw_ahead, by, number)
        return {"item": shown, "progress": asdict(self._desk.progress(by))}

    def _draw_ahead(self, by: str, after: int) -> None:
        number = self._desk.next_for(by, after)
        if number is not None:
            try:
                self._desk.prepare(self._desk.item(number))
            except HwrError:
                return  # it is said when the field's turn comes


def _called(call: Callable[[Any], dict[str, Any]]) -> Callable[[Request], Any]:
    """Return an endpoint that answers with what a call returns, or with the sentence that says why not."""

    async def endpoint(request: Request) -> Response:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MAX_BODY:
                return _refused(413, f"A request may have {MAX_BODY:,} bytes.")
        try:
            return JSONResponse(await run_in_threadpool(call, json.loads(body)))
        except TakenError as err:
            return _refused(409, str(err))
        except ValidationError as err:
            return _refused(400, first_problem(err))
        except ValueError:
            return _refused(400, "A request is one JSON document.")
        except (HwrError, OSError) as err:
            return _refused(500 if isinstance(err, FormError | OSError) else 422, str(err))

    return endpoint


def _refused(status: int, why: str) -> Response:
    return JSONResponse({"error": why}, status)
