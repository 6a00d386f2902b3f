"""Only the page that was opened with the link is answered, and it is given what its look may know: no more."""

import json
from contextlib import closing
from pathlib import Path

import pytest

from hwr_export.errors import UsageError
from hwr_export.scanner.review.ledger import FIRST, SECOND
from hwr_export.scanner.review.serve import listening
from tests.scanner.review.conftest import Opened
from tests.scanner.review.serving import Served, served

SECRETS = ("204811", "204817", "204877", "anna")  # what was read of the first field, and what was answered by whom


def test_the_link_opens_the_page_and_the_cookie_keeps_it_open(review: Served) -> None:
    for path in ("/", "/static/review.js", "/pictures/0/field.png", "/api/begin"):
        assert review.ask(path).status == 403
    assert review.call("next", {"by": "anna"}).status == 403
    assert review.ask("/?token=wrong").status == 403
    assert "set-cookie" not in review.ask("/?token=").headers
    entered = review.enter()
    assert entered.status == 200
    cookie = entered.headers["set-cookie"]
    assert cookie.startswith(f"hwr-review-{review.port}=")
    assert "HttpOnly; SameSite=Strict; Path=/" in cookie
    assert review.guard.link.split("=")[1] not in cookie
    assert review.ask("/").status == review.ask("/static/editor.js").status == 200
    assert review.enter().status == 200  # a second window


def test_the_link_that_a_browser_is_started_with_is_good_once(review: Served) -> None:
    path = review.guard.link_once.split(str(review.port))[1]
    assert [review.ask(path).status for _ in range(2)] == [200, 403]


def test_another_name_for_this_address_is_refused(review: Served) -> None:
    review.enter()
    for host in ("evil.example", f"evil.example:{review.port}", "127.0.0.1", f"127.0.0.1:{review.port + 1}", ""):
        refused = review.ask("/", Host=host)
        assert refused.status in (400, 421), host
        assert b"<html" not in refused.body
    assert review.ask("/", Host=f"localhost:{review.port}").status == 200


def test_another_site_cannot_answer(review: Served) -> None:
    review.enter()
    ask = {"by": "anna"}
    assert review.call("next", ask).status == 200
    for wrong in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": f"http://127.0.0.1:{review.port + 1}"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Content_Type": "text/plain"},
        {"Content_Type": "application/x-www-form-urlencoded"},
    ):
        assert review.call("next", ask, **wrong).status == 403, wrong
    for method in ("PUT", "DELETE", "OPTIONS", "TRACE"):
        assert review.ask("/api/next", method).status == 405
    assert review.ask("/api/next").status == 405


def test_every_answer_forbids_what_the_page_does_not_need(review: Served) -> None:
    review.enter()
    for path in ("/", "/static/review.css", "/pictures/0/field.png", "/static/none", "/nowhere"):
        headers = review.ask(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers
    page = review.ask("/").body.decode()
    assert "style=" not in page
    assert "onclick" not in page
    assert page.count("<script") == page.count('<script type="module" src="/static/review.js"></script>') == 1


def test_nothing_else_is_served(review: Served, results: Path) -> None:
    review.enter()
    (results.parent / "secret.png").write_bytes((results.parent / "first.png").read_bytes())
    for path in (
        "/static/../app.py",
        "/static/%2e%2e%2fapp.py",
        "/static/..%2f..%2f..%2f..%2fetc%2fpasswd",
        f"/static/{results}/review.jsonl",
        "/pictures/6/field.png",
        "/pictures/-1/field.png",
        "/pictures/..%2fsecret.png/field.png",
        "/pictures/0/page-901.jpg",
        "/pictures/0/secret.png",
        "//etc/passwd",
    ):
        assert review.ask(path).status == 404, path
    assert review.ask("/pictures/0/field.png").body.startswith(b"\x89PNG")
    assert review.ask("/pictures/0/page-900.jpg").body.startswith(b"\xff\xd8")


def test_what_is_no_request_is_said(review: Served) -> None:
    review.enter()
    for body, status, said in (
        (b"{", 400, "A request is one JSON document."),
        (b"\xff", 400, "A request is one JSON document."),
        ({}, 400, "by: Field required"),
        ({"by": "  "}, 400, "a name is needed"),
        ({"by": "a\nb"}, 400, "characters that cannot be printed"),
        ({"by": "a" * 41}, 400, "at most 40 characters"),
        ({"by": "anna", "path": "/etc/passwd"}, 400, "Extra inputs are not permitted"),
        (b'"' + b"a" * 20_000 + b'"', 413, "10,000 bytes"),
    ):
        answer = review.call("next", body)
        assert (answer.status, said in answer.json["error"]) == (status, True), answer.json
    taken = {"by": "anna", "number": 0, "look": SECOND, "written": "1"}
    assert review.call("answer", taken).status == 409
    assert review.call("answer", taken | {"number": 77, "look": FIRST}).status == 409


def test_a_first_look_sees_what_was_read(review: Served) -> None:
    review.enter()
    about = review.call("begin", {}).json
    assert (about["title"], about["by"], about["two_pass"], about["accepted"]) == ("Payment order", "anna", False, 14)
    item = review.call("next", {"by": "anna"}).json["item"]
    assert (item["start"], item["field"]["slots"], item["look"]) == ("204811", 6, 1)
    assert [p["written"] for p in item["proposals"]] == ["204811", "204817", "204877"]
    assert item["reasons"] == ["its probability is below what the release's calibration asks for"]
    assert [c["confidence"] for c in item["characters"]] == [0.99, 0.97, 0.99, 0.9, 0.99, 0.55]
    assert len(item["boxes"]) == 6
    assert all(0 <= v <= 1 for box in [*item["boxes"], item["area"]] for v in box)
    checked = review.call("check", {"number": 3, "written": "   12645"}).json
    assert checked["shown"] == "126.45 EUR"
    assert checked["rules"][0] == {
        "says": "Total is the sum of Goods and Postage",
        "kept": None,
        "others": [{"label": "Goods", "value": None}, {"label": "Postage", "value": "4.95 EUR"}],
    }


def test_a_second_look_is_told_nothing_and_a_third_everything(desk: Opened) -> None:
    with served(desk(two_pass=True)) as review:
        review.enter()
        assert review.call("begin", {}).json["by"] == ""
        for _ in range(6):
            item = review.call("next", {"by": "anna"}).json["item"]
            review.call(
                "answer", {"by": "anna", "number": item["number"], "look": 1, "written": item["start"] or "yes"}
            )
        assert review.call("next", {"by": "anna"}).json["item"] is None
        second = review.call("next", {"by": "ben"})
        assert not any(secret in second.body.decode() for secret in SECRETS)
        item = second.json["item"]
        assert (item["look"], item["start"], item["reasons"], item["characters"], item["proposals"]) == (
            2,
            "",
            [],
            [],
            [],
        )
        answer = {"by": "ben", "number": 0, "look": 2, "written": "204817"}
        assert review.call("answer", answer | {"by": "Anna"}).status == 409
        third = review.call("answer", answer).json
        assert third["progress"]["third"] == 1
        undone = review.call("undo", {"by": "ben"})
        assert not any(secret in undone.body.decode() for secret in SECRETS if secret != "204817")
        assert undone.json["item"]["start"] == "204817"  # what ben wrote
        review.call("answer", answer)
        for _ in range(5):
            item = review.call("next", {"by": "ben"}).json["item"]
            review.call("answer", {"by": "ben", "number": item["number"], "look": 2, "unreadable": "illegible"})
        item = review.call("next", {"by": "ben"}).json["item"]
        assert (item["number"], item["look"], item["start"]) == (0, 3, "")
        assert [(p["written"], p["from"]) for p in item["proposals"]] == [
            ("204811", "first look, anna"),
            ("204817", "second look, ben"),
        ]


def test_where_nothing_was_read_nothing_is_proposed(desk: Opened) -> None:
    with served(desk()) as review:
        review.enter()
        review.call("answer", {"by": "anna", "number": 0, "look": 1, "written": "204817"})
        item = review.call("next", {"by": "anna"}).json["item"]
        assert (item["field"]["name"], item["start"], item["proposals"], item["characters"]) == (
            "reference",
            "",
            [],
            [],
        )
        checked = review.call("check", {"number": 1, "written": ""}).json
        assert (checked["valid"], checked["remarks"]) == (
            True,
            ["Something seems to be written here. Accept again if the field is empty."],
        )
        assert review.call("check", {"number": 1, "look": 2, "written": ""}).json["remarks"] == []


def test_a_missing_image_is_said_and_the_rest_goes_on(review: Served, results: Path) -> None:
    review.enter()
    (results.parent / "first.png").unlink()
    item = review.call("next", {"by": "anna"}).json["item"]
    assert item["problem"].startswith("there is no image ")
    assert review.ask("/pictures/0/field.png").status == review.ask("/pictures/0/page-900.jpg").status == 404
    assert review.call("answer", {"by": "anna", "number": 0, "look": 1, "written": "204817"}).json["kept"]["n"] == 2


def test_it_listens_on_this_machine_alone() -> None:
    with closing(listening(0)) as bound:
        assert bound.getsockname()[0] == "127.0.0.1"
        with pytest.raises(UsageError, match=r"port \d+ of 127\.0\.0\.1 cannot be used: .*; leave out --port"):
            listening(bound.getsockname()[1])


def test_answers_survive_the_server(desk: Opened, results: Path) -> None:
    with served(desk()) as review:
        review.enter()
        kept = review.call("answer", {"by": "änna", "number": 0, "look": 1, "written": "204817"}).json
        assert kept["kept"] == {"n": 2, "value": "204817", "unreadable": ""}
        assert kept["item"]["number"] == 1
    lines = [json.loads(line) for line in (results / "review.jsonl").read_text().splitlines()]
    assert lines[1]["by"] == "änna"
    with served(desk()) as review:
        review.enter()
        assert review.call("next", {"by": "änna"}).json["item"]["number"] == 1
