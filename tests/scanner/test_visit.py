"""Beside a running service, by another process's connection."""

from pathlib import Path

import pytest

from hwr_export.errors import ScannerError
from hwr_export.scanner.spool import Spool
from hwr_export.scanner.visit import Visit
from tests.scanner.fakes import document


def test_a_visitor_counts_and_sends_again_while_the_service_runs(tmp_path: Path) -> None:
    with Spool(tmp_path / "spool", 10, 1 << 20, ("desk",), reserve_bytes=0) as spool:
        page = spool.add("watch", "a", b"x", "png")
        spool.store_result(page, document(page))
        delivery = spool.outbox.pending("desk")
        assert delivery is not None
        spool.outbox.dead_letter(delivery, "422")
        with Visit(tmp_path / "spool") as visit:
            assert visit.counts() == spool.counts()
            (letter,) = visit.outbox.dead_letters()
            assert (letter.page_id, letter.error) == (page.id, "422")
            assert visit.outbox.send_again("desk", page.id) == 1
        assert spool.outbox.pending("desk") is not None
        spool.outbox.delivered(delivery)
        spool.forget_images(0)
    with Visit(tmp_path / "spool") as visit:
        assert visit.counts().sinks["desk"].delivered == 1


def test_a_visit_makes_no_spool(tmp_path: Path) -> None:
    with pytest.raises(ScannerError, match="there is no spool; it is made when the service first starts"):
        Visit(tmp_path)
    assert list(tmp_path.iterdir()) == []
