"""Darkness against the paper, whatever the paper and the resolution are."""

import cv2
import numpy as np
import pytest

from hwr_export.scanner.form.layout import Rect
from hwr_export.scanner.form.registration import Registration
from hwr_export.scanner.form.strips import PX_PER_MM, cut_strip

RECT = Rect(10, 10, 30, 10)


def seen(scale: float) -> Registration:
    return Registration(np.array([[scale, 0, -0.5], [0, scale, -0.5], [0, 0, 1]]), 0.0, 4, scale * 25.4)


def page(scale: float, ink: float = 0.2) -> np.ndarray:
    """A stroke 0.5 mm wide from (15, 15) to (35, 15) mm."""
    paper = np.ones((round(40 * scale), round(50 * scale)))
    paper[round(14.75 * scale) : round(15.25 * scale), round(15 * scale) : round(35 * scale)] = ink
    return paper


@pytest.mark.parametrize("dpi", [150, 200, 300, 400, 600])
def test_a_stroke_lies_where_it_lies_on_the_sheet(dpi: int) -> None:
    scale = dpi / 25.4
    dark = cut_strip((page(scale) * 240).astype(np.uint8), seen(scale), RECT).dark
    assert dark.shape == (10 * PX_PER_MM, 30 * PX_PER_MM)
    rows, columns = np.nonzero(dark > 100)
    assert (rows + 0.5).mean() / PX_PER_MM == pytest.approx(5, abs=0.1)
    assert (columns + 0.5).mean() / PX_PER_MM == pytest.approx(15, abs=0.1)
    assert dark[rows.min() + 1, 120] == pytest.approx(0.8 * 255, abs=12)
    assert not dark[:20].any()


def test_fine_scans_are_averaged_not_sampled() -> None:
    scale = 600 / 25.4
    noisy = page(scale) * 220 + np.random.default_rng(0).normal(0, 20, page(scale).shape)
    strip = cut_strip(noisy.clip(0, 255).astype(np.uint8), seen(scale), RECT)
    assert strip.noise < 12


def test_shading_and_stains_are_paper() -> None:
    scale = 300 / 25.4
    shade = np.linspace(1.0, 0.6, round(50 * scale))
    stained = page(scale, ink=0.3) * shade
    stain = np.zeros_like(stained, dtype=np.float32)
    cv2.circle(stain, (round(32 * scale), round(17 * scale)), round(5 * scale), 0.15, -1)
    stained = stained * (1 - cv2.GaussianBlur(stain, (0, 0), 6))
    strip = cut_strip((stained * 250).astype(np.uint8), seen(scale), RECT)
    stroke = strip.dark[40, 45:195]
    assert stroke.min() > 150
    assert np.ptp(stroke.astype(int)) < 30
    assert np.percentile(strip.dark[:30], 99) < 20


def test_a_box_blackened_whole_is_no_paper() -> None:
    scale = 300 / 25.4
    paper = np.full((round(40 * scale), round(50 * scale)), 240, np.uint8)
    paper[round(12 * scale) : round(18 * scale), round(20 * scale) : round(26 * scale)] = 60
    assert cut_strip(paper, seen(scale), RECT).dark[40, 104] > 150


def test_what_lies_beyond_the_page_is_paper() -> None:
    scale = 300 / 25.4
    paper = np.full((round(14 * scale), round(25 * scale)), 230, np.uint8)
    assert not cut_strip(paper, seen(scale), RECT).dark.any()
    assert not cut_strip(paper, seen(scale), Rect(100, 100, 20, 10)).dark.any()
