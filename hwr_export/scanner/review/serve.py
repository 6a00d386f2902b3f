"""RESULTS -> the review on 127.0.0.1 until it is ended; every answer is on the disk by then."""

import getpass
import socket
import webbrowser
from contextlib import closing
from pathlib import Path

import uvicorn
from rich.console import Console

from hwr_export.console import progress_bar
from hwr_export.errors import UsageError
from hwr_export.scanner.review.app import Review
from hwr_export.scanner.review.crops import Crops
from hwr_export.scanner.review.desk import Desk
from hwr_export.scanner.review.guard import Guard
from hwr_export.scanner.review.pictures import Pictures
from hwr_export.scanner.review.referred import RESULTS, Folder, Referred
from hwr_export.scanner.review.store import Store


def review(
    results: Path,
    console: Console,
    port: int = 0,
    two_pass: bool = False,
    labelled: Path | None = None,
    browser: bool = True,
) -> None:
    """Serve the review until Ctrl-C.

    Args:
        port: 0 takes any that is free.

    Raises:
        FormError: no folder of results, or it is being reviewed.
        UsageError: the port is taken.
    """
    folder = Folder(results)
    with Store(results, two_pass) as store, closing(_indexed(folder, console)) as referred:
        pictures = Pictures(folder.layout, results)
        crops = None if labelled is None else Crops(labelled, pictures, store.ledger.id)
        desk = Desk(folder, referred, store, pictures, crops)
        with closing(_listening(port)) as listening:
            app = Review(desk, _login())
            guard = Guard(app.app, listening.getsockname()[1])
            console.print(f"Review of {len(referred):,} referred fields; Ctrl-C ends it. Open\n\n    {guard.link}\n")
            if browser:
                webbrowser.open(guard.link_once)
            config = uvicorn.Config(
                guard, log_level="warning", access_log=False, server_header=False, proxy_headers=False, lifespan="off",
                ws="none", timeout_graceful_shutdown=2,
            )  # fmt: skip
            try:
                uvicorn.Server(config).run(sockets=[listening])
            except KeyboardInterrupt:
                pass
            finally:
                app.close()
                if crops is not None:
                    crops.write_tables()
        done = desk.progress("")
        console.print(f"{done.done:,} of {done.of:,} fields are settled; everything answered is kept in {store.path}.")


def _indexed(folder: Folder, console: Console) -> Referred:
    with progress_bar(console, counted=False) as bar:
        task = bar.add_task("finding the referred fields", total=(folder.path / RESULTS).stat().st_size)
        return Referred(folder, lambda end: bar.update(task, completed=end))


def _listening(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
    except OSError as err:
        listening.close()
        raise UsageError(
            f"port {port} of 127.0.0.1 cannot be used: {err.strerror}; leave out --port for a free one"
        ) from err
    return listening


def _login() -> str:
    try:
        return getpass.getuser()[:40]
    except (OSError, KeyError, ImportError):  # a user without a name
        return "reviewer"
