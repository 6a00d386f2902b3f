"""A service in small, killed again and again: python kill_worker.py ROOT KILLS SEED.

Files of ROOT/inbox become pages and are deleted once the spool has them; results go to JSON lines. Each life is a fork,
so that it starts in no time and dies as any process does; the last one is let finish.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from hwr_export.scanner.sinks import JsonlConfig
from hwr_export.scanner.sinks.delivery import couriers
from hwr_export.scanner.spool import Spool
from tests.scanner.fakes import document


def live(root: Path) -> None:
    """Take what is in the inbox, read it and deliver it."""
    config = JsonlConfig(kind="jsonl", name="archive", directory=root / "out", max_file_bytes=20_000)
    inbox = sorted((root / "inbox").iterdir())
    with Spool(root / "spool", 20, 1 << 20, ("archive",), reserve_bytes=0) as spool, couriers(spool, (config,)):
        while True:
            counts = spool.counts()
            if inbox and counts.unread + counts.undelivered < 10:
                path = inbox.pop(0)
                spool.add("watch", path.name, path.read_bytes(), "png")
                path.unlink()
            page = spool.next_unread()
            if page is not None:
                spool.store_result(page, document(page, spool.image(page).decode()))
                spool.forget_images(0)
            elif not inbox:
                if not spool.counts().undelivered:
                    return
                time.sleep(0.005)


def main(root: Path, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    killed = 0
    for life in range(kills + 1):
        child = os.fork()
        if not child:
            live(root)
            os._exit(0)
        if life < kills:
            time.sleep(chance.uniform(0, 0.1))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status)
        if not os.WIFSIGNALED(status) and os.waitstatus_to_exitcode(status):
            sys.exit(f"life {life} ended by itself: {status}")
    sys.stdout.write(str(killed))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
