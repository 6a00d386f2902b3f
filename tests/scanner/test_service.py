"""The service as a process: from files, scanners and pipes to delivered results, and how it ends."""

import json
import os
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hwr_export.scan_cli import main
from hwr_export.scanner.spool import Spool
from tests.scanner.devices import A4, GRID, page_of, results, scanner_says, until, write_config, write_pgm

WATCH = '[[sources]]\nkind = "watch"\nfolder = "in"\nsettle_s = 0.3\n'


def number(digits: list, text: str) -> list:
    return [digits[int(c)][0] for c in text]


def test_the_pnm_scanner_to_json(service, device: Path, sane: Path, digits) -> None:
    write_pgm(device / "page.pgm", page_of(number(digits, "314159")))
    (device / "asked").mkdir()
    running = service(
        f'{GRID}[[sources]]\nkind = "sane"\ndevice = "pnm:0"\nmode = "flatbed"\nrequests = "asked"\n'
        f'options = {{ filename = "{device / "page.pgm"}", resolution = "300", grayify = "yes" }}\n'
    )
    (device / "asked" / "button-1").touch()
    (result,) = until(lambda: results(device))
    assert not list((device / "asked").iterdir())
    assert result["error"] is None
    assert result["release"] == {"name": "digits", "version": "1.0.0", "slot": "a"}
    assert result["page"]["source"] == "scanner"
    number_field, nothing = result["fields"]
    assert (number_field["name"], number_field["value"], number_field["rejected"]) == ("number", "314159", False)
    assert (nothing["value"], [c["label"] for c in nothing["characters"]]) == (None, [None] * 3)
    assert running.end() == 0
    assert len(results(device)) == 1


FAULTS = {
    "SANE_STATUS_JAMMED": "paper-jam",
    "SANE_STATUS_NO_DOCS": "no-paper",
    "SANE_STATUS_COVER_OPEN": "cover-open",
    "SANE_STATUS_IO_ERROR": "device-error",
    "SANE_STATUS_DEVICE_BUSY": "busy",
    "SANE_STATUS_ACCESS_DENIED": "no-access",
}


def test_six_faults_are_six_states_and_end_by_themselves(service, device: Path, sane: Path) -> None:
    (device / "asked").mkdir()
    running = service(
        '[[sources]]\nkind = "sane"\ndevice = "test:0"\nmode = "flatbed"\nrequests = "asked"\nretry_s = 0.1\n'
    )
    for n, (status, state) in enumerate(FAULTS.items()):
        scanner_says(sane, status)
        (device / "asked" / status).touch()
        now = until(lambda: (s := running.state()["sources"].get("scanner")) and s["state"] == state and s)  # noqa: B023
        assert now["advice"]
        scanner_says(sane, "Default")
        until(lambda: len(results(device)) == n + 1)  # noqa: B023
        until(lambda: running.source("scanner") == "waiting")
    assert [e["state"] for e in running.events("source-state") if e["advice"]] == list(FAULTS.values())
    assert running.end() == 0


def test_a_feeder_is_emptied_page_by_page(service, device: Path, sane: Path) -> None:
    running = service(
        '[[sources]]\nkind = "sane"\ndevice = "test:0"\nretry_s = 60.0\n'
        'options = { source = "Automatic Document Feeder" }\n'
    )
    until(lambda: running.state()["sources"].get("scanner", {}).get("state") == "no-paper")
    assert running.end() == 0
    keys = [result["page"]["key"] for result in results(device)]
    assert len(keys) == 10
    assert len({key.split("-")[0] for key in keys}) == 1
    assert [int(key.split("-")[1]) for key in keys] == list(range(1, 11))


def test_files_are_read_in_the_order_in_which_they_came(service, device: Path, digits) -> None:
    (device / "in").mkdir()
    write_pgm(device / "in" / "0.pgm", page_of(number(digits, "100000")))
    running = service(f"{GRID}{WATCH}")
    until(lambda: running.events("started"))
    until(lambda: len(results(device)) == 1)
    for n in (1, 2):
        write_pgm(device / "page.part", page_of(number(digits, f"10000{n}"))).rename(device / "in" / f"{n}.pgm")
    until(lambda: len(results(device)) == 3)
    assert [result["fields"][0]["value"] for result in results(device)] == ["100000", "100001", "100002"]
    assert [path.name for path in (device / "in").iterdir()] == [".taken"]
    assert not list((device / "in" / ".taken").iterdir())
    assert running.end() == 0


def test_what_is_no_image_is_rejected_once_with_the_reason(service, device: Path) -> None:
    (device / "in").mkdir()
    running = service(WATCH)
    until(lambda: running.events("started"))
    (device / "in" / "letter.png").write_bytes(b"not an image")
    (result,) = until(lambda: results(device))
    assert result["fields"] == []
    assert "is not an image in a format that can be read" in result["error"]
    image, reason = until(lambda: sorted((device / "in" / "rejected").iterdir()))
    assert image.read_bytes() == b"not an image"
    assert image.name.endswith("-letter.png")
    assert reason.read_text() == f"{result['error']}\n"
    assert running.end() == 0
    assert len(results(device)) == 1


def test_a_page_smaller_than_its_grid_is_rejected(service, device: Path, digits) -> None:
    (device / "in").mkdir()
    running = service(f"{GRID}{WATCH}")
    write_pgm(device / "in" / "small.pgm", page_of([], shape=A4)[:600, :600])
    (result,) = until(lambda: results(device))
    assert "beyond the page of 600 x 600 pixels" in result["error"]
    assert running.end() == 0


def test_sigterm_ends_in_order_with_all_that_came_read(service, device: Path, digits) -> None:
    (device / "in").mkdir()
    page = page_of(number(digits, "271828"))
    running = service(f"{GRID}{WATCH}")
    until(lambda: running.events("started"))
    for n in range(6):
        write_pgm(device / "page.part", page).rename(device / "in" / f"{n}.pgm")
    until(lambda: running.events("page-received"))
    assert running.end() == 0
    assert len(results(device)) == len(running.events("page-received"))
    assert running.state()["state"] == "stopped"
    running = service(f"{GRID}{WATCH}")
    until(lambda: len(results(device)) == 6)
    assert running.end() == 0
    assert {result["fields"][0]["value"] for result in results(device)} == {"271828"}


def test_the_second_sigterm_ends_at_once_and_loses_nothing(service, device: Path, sane: Path) -> None:
    (sane / "test.conf").write_text(
        "number_of_devices 1\nmode Gray\nresolution 300\nread-delay true\nread-delay-duration 200000\n"
    )
    (device / "asked").mkdir()
    (device / "asked" / "one").touch()
    text = '[[sources]]\nkind = "sane"\ndevice = "test:0"\nmode = "flatbed"\nrequests = "asked"\n'
    running = service(text)
    until(lambda: list((device / "spool" / "arriving" / "scanner").glob("*.part")))
    running.process.send_signal(signal.SIGTERM)
    until(lambda: running.events("draining"))
    started = time.monotonic()
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(5) == -signal.SIGTERM
    assert time.monotonic() - started < 1
    assert (device / "asked" / "one").exists()
    scanner_says(sane, "Default")
    running = service(text)
    until(lambda: results(device))
    assert running.end() == 0
    assert len(results(device)) == 1


def test_sighup_takes_a_good_file_and_keeps_the_old_one_for_a_bad_one(service, device: Path) -> None:
    for name in ("in", "elsewhere"):
        (device / name).mkdir()
    running = service(WATCH)
    until(lambda: running.events("started"))
    write_config(device / "scan.toml", f"{WATCH}what = 1\n")
    running.process.send_signal(signal.SIGHUP)
    (refused,) = until(lambda: running.events("reload-refused"))
    assert "sources.0.watch.what is no key; docs/scan-config.md lists them" in refused["reason"]
    (device / "in" / "one.png").write_bytes(b"no image")
    until(lambda: len(results(device)) == 1)
    write_config(device / "scan.toml", WATCH.replace('"in"', '"elsewhere"'))
    running.process.send_signal(signal.SIGHUP)
    until(lambda: running.events("reloaded"))
    (device / "elsewhere" / "two.png").write_bytes(b"no image either")
    until(lambda: len(results(device)) == 2)
    assert running.end() == 0


def test_names_through_a_pipe_come_back_when_their_pages_are_safe(service, device: Path, digits) -> None:
    pages = [write_pgm(device / f"{n}.pgm", page_of(number(digits, f"70000{n}"))) for n in range(3)]
    running = service(f'{GRID}[[sources]]\nkind = "stdin"\n', stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    lines = "".join(f"{path}\n" for path in [*pages, device / "missing.pgm", pages[0]])
    said, _ = running.process.communicate(lines.encode(), timeout=60)
    assert said.decode() == lines
    assert running.process.returncode == 0
    found = results(device)
    assert [r["fields"][0]["value"] for r in found if not r["error"]] == ["700000", "700001", "700002"]
    assert [r["page"]["key"] for r in found if r["error"]] == [str(device / "missing.pgm")]


def test_an_image_through_a_pipe(service, device: Path, digit_png: Path) -> None:
    with digit_png.open("rb") as image:
        running = service('[[sources]]\nkind = "stdin"\ncontent = "image"\n', stdin=image)
        assert running.process.wait(60) == 0
    (result,) = results(device)
    (field,) = result["fields"]
    assert (field["name"], field["value"]) == ("character", "7")


def test_logs_carry_no_read_value_and_no_image(service, device: Path, digits) -> None:
    (device / "in").mkdir()
    running = service(f"{GRID}{WATCH}")
    write_pgm(device / "in" / "page.pgm", page_of(number(digits, "918273")))
    (device / "in" / "bad.png").write_bytes(b"918273")
    until(lambda: len(results(device)) == 2)
    assert running.end() == 0
    log = running.log.read_text()
    assert all(json.loads(line)["event"] for line in log.splitlines())
    assert "918273" not in log
    assert "label" not in log
    assert "value" not in log


def test_images_are_deleted_from_the_device(service, device: Path) -> None:
    (device / "in").mkdir()
    running = service(WATCH)
    (device / "in" / "a.png").write_bytes(b"x")
    until(lambda: results(device))
    assert running.end() == 0
    assert not list((device / "spool" / "pages").iterdir())


def test_a_full_disk_is_a_state_and_nothing_is_lost(service, device: Path, digits) -> None:
    (device / "in").mkdir()

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    running = service(f"{GRID}{WATCH}", preexec_fn=small_files)
    until(lambda: running.events("started"))
    write_pgm(device / "page.part", page_of(number(digits, "161803"))).rename(device / "in" / "page.pgm")
    until(lambda: running.source("watch") == "disk-full")
    assert running.end() == 0
    assert not results(device)
    running = service(f"{GRID}{WATCH}")
    (result,) = until(lambda: results(device))
    assert result["fields"][0]["value"] == "161803"
    assert running.end() == 0


def test_a_page_that_takes_the_service_down_does_so_five_times(service, device: Path) -> None:
    (device / "in").mkdir()
    running = service(WATCH)
    until(lambda: running.events("started"))
    assert running.end() == 0
    with Spool(device / "spool", 10, 1 << 20) as spool:
        page = spool.add("watch", "key", b"no image", ".png")
    (device / "spool" / "trying").write_text(f"{page.id} 5")
    running = service(WATCH)
    (result,) = until(lambda: results(device))
    assert result["error"] == "the service ended 5 times while it read this page; it is not tried again"
    assert running.end() == 0


def test_status_tells_of_slots_sources_and_spool(service, device: Path, sane: Path) -> None:
    (device / "asked").mkdir()
    running = service(
        '[[sources]]\nkind = "sane"\ndevice = "test:0"\nmode = "flatbed"\nrequests = "asked"\nretry_s = 0.1\n'
    )
    until(lambda: running.state()["sources"].get("scanner", {}).get("state") == "waiting")

    def status(*more: str) -> Result:
        words = ["status", "--root", str(device / "root"), "--config", str(device / "scan.toml"), *more]
        return CliRunner().invoke(main, words)

    assert status().exit_code == 0, status().output
    scanner_says(sane, "SANE_STATUS_JAMMED")
    (device / "asked" / "one").touch()
    until(lambda: running.source("scanner") == "paper-jam")
    found = status()
    assert found.exit_code == 1
    for words in ("digits 1.0.0", "paper-jam", "open the feeder", "pages not read", "folder: delivered"):
        assert words in found.stdout
    document = json.loads(status("--json").stdout)
    assert document["service"]["sources"]["scanner"]["state"] == "paper-jam"
    assert document["service"]["running"]
    assert running.end() == 0


def test_systemd_hears_of_it(service, device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    (device / "in").mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(device / "notify"))
        heard.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(device / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "400000")
        running = service(WATCH)
        said = ""
        while said.count("WATCHDOG=1") < 5:
            said += heard.recv(4096).decode()
        assert said.startswith("READY=1\n")
        running.process.send_signal(signal.SIGSTOP)
        time.sleep(0.3)
        heard.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                heard.recv(4096)
        running.process.send_signal(signal.SIGCONT)
        heard.settimeout(20)
        assert running.end() == 0
        while "STOPPING=1" not in said:
            said += heard.recv(4096).decode()


def test_nothing_is_lost_or_doubled_by_kills(service, device: Path) -> None:
    kills = 6
    (device / "in").mkdir()
    images = {f"{n}.png": os.urandom(2000) for n in range(60)}
    sent = iter(images.items())
    for kill in range(kills):
        running = service(WATCH)
        until(lambda: running.events("started"))  # noqa: B023
        for name, image in [next(sent) for _ in range(60 // kills)]:
            (device / "page.part").write_bytes(image)
            (device / "page.part").rename(device / "in" / name)
        time.sleep(0.02 * kill)
        running.process.kill()
        running.process.wait()
    running = service(WATCH)
    until(lambda: len(results(device)) >= 60)
    assert running.end() == 0
    names = sorted(result["page"]["key"].rpartition("-")[2] for result in results(device))
    assert names == sorted(images)
