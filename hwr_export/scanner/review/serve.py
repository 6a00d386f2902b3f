"""RESULTS -> the review on 127.0.0.1 until it is ended; every answer is on the disk by then."""

import getpass
import signal
import socket
import threading
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
from hwr_export.scanner.review.referred import Referred
from hwr_export.scanner.review.results_folder import RESULTS, Folder
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
        pictures = Pictures(folder.layout)
        crops = None if labelled is None else Crops(labelled, folder.layout, pictures, store.ledger.id)
        desk = Desk(folder, referred, store, pictures, crops)
        with closing(listening(port)) as bound:
            app = Review(desk, _login())
            guard = Guard(app.app, bound.getsockname()[1])
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # both end it in order
            told = f"Review of {len(referred):,} referred fields; Ctrl-C ends it. Open\n\n    {guard.link}\n"
            console.print(told, soft_wrap=True)
            if browser:
                threading.Thread(target=webbrowser.open, args=[guard.link_once], daemon=True).start()
            try:
                uvicorn.Server(config(guard)).run(sockets=[bound])
            except KeyboardInterrupt:
                pass
            finally:
                app.close()
                if crops is not None:
                    crops.write_tables()
        done = desk.progress("")
        console.print(
            f"{done.done:,} of {done.of:,} fields are settled; everything answered is kept in {store.path}.",
            soft_wrap=True,
        )


def config(guard: Guard) -> uvicorn.Config:
    """Return how the server runs: silent, so that no log holds a link, and for nobody but this machine."""
    return uvicorn.Config(
        guard, log_level="warning", access_log=False, server_header=False, proxy_headers=False, lifespan="off",
        ws="none", timeout_graceful_shutdown=2,
    )  # fmt: skip


def _indexed(folder: Folder, console: Console) -> Referred:
    with progress_bar(console, counted=False) as bar:
        task = bar.add_task("finding the referred fields", total=(folder.path / RESULTS).stat().st_size)
        return Referred(folder, lambda end: bar.update(task, completed=end))


def listening(port: int) -> socket.socket:
    """Return a socket on 127.0.0.1.

    Raises:
        UsageError: the port is taken.
    """
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(("127.0.0.1", port))
    except OSError as err:
        bound.close()
        raise UsageError(
            f"port {port} of 127.0.0.1 cannot be used: {err.strerror}; leave out --port for a free one"
        ) from err
    bound.listen(16)  # a browser that is quicker than the server waits
    return bound


def _login() -> str:
    try:
        return getpass.getuser()[:40]
    except (OSError, KeyError, ImportError):  # a user without a name
        return "reviewer"
