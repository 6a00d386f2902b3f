"""The endurance runs: short by default, at full length among the slow ones."""

from pathlib import Path

import pytest

from tests.scanner.endurance import pages_in_a_row, pages_killed


@pytest.mark.parametrize(("kills", "pages"), [(8, 80), pytest.param(200, 2000, marks=pytest.mark.slow)])
def test_nothing_is_lost_doubled_or_half_written(tmp_path: Path, sane: Path, kills: int, pages: int) -> None:
    found = pages_killed(tmp_path / "device", kills, pages)
    assert found["pages"] == pages
    assert (found["lost"], found["duplicated"], found["half_written"], found["with_error"]) == (0, 0, 0, 0)
    assert found["by_source"] == {"scanner": pages // 2, "watch": pages // 2}


@pytest.mark.parametrize("pages", [15, pytest.param(1000, marks=pytest.mark.slow)])
def test_a4_pages_are_read_in_time_and_in_little_memory(tmp_path: Path, sane: Path, pages: int) -> None:
    found = pages_in_a_row(tmp_path / "device", pages)
    assert found["page_s"]["p50"] <= 1.0
    assert found["rss_mb"]["max"] <= 200
    assert found["rss_mb"]["last_fifth"] <= found["rss_mb"]["second_fifth"] + 5
    assert found["numbers_read_right"] >= 0.9 * pages
