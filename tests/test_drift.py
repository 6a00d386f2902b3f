"""Statistics measure what they are named after, alarms are rare without drift and sure with it."""

import json
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwr_export.datasets import load_mnist
from hwr_export.drift import (
    IMAGE_STATISTICS,
    MIN_IMAGES,
    RESAMPLES,
    Alarm,
    Reference,
    default_writers,
    image_statistics,
    judge,
    make_reference,
    model_statistics,
)
from hwr_export.errors import DataError, UsageError
from tests.conftest import ROOT

TRAIN = load_mnist("train")
NAMES = tuple(IMAGE_STATISTICS)
WRITERS = np.unique(TRAIN.writers)
INSIDE = [i for i in range(60) if not TRAIN.images[i][[0, 1, 2, -3, -2, -1]].any()]
INSIDE = [i for i in INSIDE if not TRAIN.images[i][:, [0, 1, 2, -3, -2, -1]].any()]


def measured(image: np.ndarray) -> dict[str, float]:
    return dict(zip(NAMES, image_statistics(image[None])[0].tolist(), strict=True))


def of_writers(ids: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.isin(TRAIN.writers, ids))


@cache
def reference() -> Reference:
    """Of the first 40 writers."""
    index = of_writers(WRITERS[:40])
    return make_reference(image_statistics(TRAIN.images[index]), TRAIN.writers[index], {"checkpoint": "none"})


@cache
def others() -> tuple[np.ndarray, np.ndarray]:
    """Statistics and writers of another 80 people."""
    index = of_writers(WRITERS[100:180])
    return image_statistics(TRAIN.images[index]), TRAIN.writers[index]


def thickened(images: np.ndarray, share: float) -> np.ndarray:
    """Add to each pixel a share of what its brighter neighbours above and left have more."""
    padded = np.pad(images, ((0, 0), (1, 0), (1, 0))).astype(float)
    largest = np.maximum.reduce([padded[:, 1:, 1:], padded[:, :-1, 1:], padded[:, 1:, :-1], padded[:, :-1, :-1]])
    return np.round(images + share * (largest - images)).astype(np.uint8)


# -- the statistics --------------------------------------------------------------------------------------------------


def test_a_drawn_bar_measures_what_it_is() -> None:
    image = np.zeros((28, 28), np.uint8)
    image[4:24, 12:16] = 255
    found = measured(image)
    assert found["ink"] == pytest.approx(100 * 80 / 784, abs=1e-4)
    assert found["stroke width"] == pytest.approx(2 * 80 / 48, rel=0.03)  # its corners are rounded off
    assert (found["height"], found["width"]) == (20, 4)
    assert found["centre x"] == found["centre y"] == found["slant"] == found["grey"] == found["margin"] == 0
    assert found["parts minus holes"] == 1


def test_parts_and_holes_are_counted() -> None:
    image = np.zeros((28, 28), np.uint8)
    image[5:12, 5:12] = 255
    image[7:10, 7:10] = 0
    assert measured(image)["parts minus holes"] == 0
    image[20:23, 20:23] = image[23:25, 23:25] = 255  # two squares that touch at a corner are one part
    assert measured(image)["parts minus holes"] == 1
    image[20:23, 2:4] = 255
    assert measured(image)["parts minus holes"] == 2


def test_blank_and_full_frames_have_finite_statistics() -> None:
    found = image_statistics(np.stack([np.zeros((28, 28), np.uint8), np.full((28, 28), 255, np.uint8)]))
    assert np.isfinite(found).all()
    assert not found[0].any()


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(INSIDE), st.integers(-2, 2), st.integers(-2, 2))
def test_a_shift_moves_the_centre_and_nothing_else(i: int, dy: int, dx: int) -> None:
    before, after = measured(TRAIN.images[i]), measured(np.roll(TRAIN.images[i], (dy, dx), (0, 1)))
    assert after["centre x"] == pytest.approx(before["centre x"] + dx, abs=1e-5)
    assert after["centre y"] == pytest.approx(before["centre y"] + dy, abs=1e-5)
    for name in set(NAMES) - {"centre x", "centre y", "margin"}:
        assert after[name] == pytest.approx(before[name], abs=1e-5), name


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 500))
def test_a_mirror_turns_what_has_a_side(i: int) -> None:
    before, after = measured(TRAIN.images[i]), measured(TRAIN.images[i][:, ::-1])
    for name in NAMES:
        sign = -1 if name in {"slant", "centre x"} else 1
        assert after[name] == pytest.approx(sign * before[name], abs=1e-5), name


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 500))
def test_a_transposition_exchanges_rows_and_columns(i: int) -> None:
    before, after = measured(TRAIN.images[i]), measured(TRAIN.images[i].T)
    exchanged = {"height": "width", "width": "height", "centre x": "centre y", "centre y": "centre x"}
    for name in set(NAMES) - {"slant"}:
        assert after[name] == pytest.approx(before[exchanged.get(name, name)], abs=1e-5), name


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 500), min_size=1, max_size=5))
def test_an_image_is_measured_alike_alone_and_among_others(indices: list[int]) -> None:
    together = image_statistics(TRAIN.images[indices])
    alone = [image_statistics(TRAIN.images[[i]])[0] for i in indices]
    np.testing.assert_allclose(together, np.stack(alone), atol=2e-6)


def test_confidence_and_entropy() -> None:
    found = model_statistics(np.array([[1, 0, 0, 0], [0.25, 0.25, 0.25, 0.25]], np.float32))
    np.testing.assert_allclose(found, [[1, 0], [0.25, np.log(4)]], atol=1e-5)


# -- the alarm -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("writers", [2, 10])
def test_alarms_are_rare_on_other_people_of_the_same_population(writers: int) -> None:
    values, who = others()
    rng = np.random.default_rng(writers)
    alarm = Alarm(reference(), 100, writers, len(NAMES))
    least = []
    for _ in range(300):
        chosen = rng.choice(np.unique(who), writers, replace=False)
        index = np.concatenate([rng.permutation(np.flatnonzero(who == w))[: 100 // writers] for w in chosen])
        least.append(alarm.test(values[index])[1].min())
    assert np.mean(np.array(least) <= 0.01) <= 0.01
    assert np.mean(np.array(least) <= 0.1) <= 0.12


def test_a_window_by_one_writer_is_not_taken_for_many() -> None:
    """One hand differs from a crowd; an alarm that forgot whose images they are would call that drift."""
    values, who = others()
    windows = [values[who == w][:100] for w in np.unique(who) if (who == w).sum() >= 100]
    assert len(windows) > 40
    rates = []
    for writers in (100, 1):
        alarm = Alarm(reference(), 100, writers, len(NAMES))
        rates.append(np.mean([alarm.test(window)[1].min() <= 0.01 for window in windows]))
    assert rates[0] > 0.3
    assert rates[1] <= 0.05


def test_the_thicker_the_strokes_the_surer_the_alarm() -> None:
    index = np.random.default_rng(0).permutation(of_writers(WRITERS[100:180]))[:200]
    widths, p_values, alarms = [], [], []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        result = judge(reference(), image_statistics(thickened(TRAIN.images[index], share)), writers=20)
        row = next(s for s in result["statistics"] if s["name"] == "ink")
        widths.append(row["shift"])
        p_values.append(row["p_value"])
        alarms.append(result["alarm"])
    assert widths == sorted(widths)
    assert p_values == sorted(p_values, reverse=True)
    assert alarms[0] is False
    assert alarms[-1] is True


def test_the_report_names_what_moved() -> None:
    index = of_writers(WRITERS[100:180])[:300]
    shifted = np.roll(TRAIN.images[index], 3, axis=2)
    result = judge(reference(), image_statistics(shifted), writers=20)
    moved = {s["name"]: s for s in result["statistics"] if s["alarm"]}
    assert result["alarm"]
    assert moved["centre x"]["shift"] > 3
    assert moved["centre x"]["p_value"] == pytest.approx(1 / (1 + RESAMPLES))
    assert "ink" not in moved
    assert "slant" not in moved


def test_the_verdict_is_the_same_every_time_and_through_a_file() -> None:
    values = others()[0][:150]
    again = Reference.from_bytes(reference().to_bytes(), "ref.npz")
    assert judge(again, values) == judge(reference(), values)
    assert again.about == {"checkpoint": "none"}
    assert again.to_bytes() == reference().to_bytes()


def test_a_reference_is_small_and_holds_no_pixels() -> None:
    ref = reference()
    assert len(ref.to_bytes()) < 20 * len(ref)
    assert ref.bins.dtype == np.uint8
    assert ref.bins.shape == (len(ref), len(NAMES))


def test_writers_are_assumed_as_few_as_in_the_reference() -> None:
    ref = reference()
    each = np.median(np.unique(ref.writers, return_counts=True)[1])
    assert default_writers(ref, 50) == 1
    assert default_writers(ref, 1000) == round(1000 / each)
    alone = make_reference(others()[0], None, {})
    assert not alone.by_writer
    assert default_writers(alone, 50) == 50


def test_independent_images_are_judged_as_such() -> None:
    values = others()[0]
    rng = np.random.default_rng(0)
    order = rng.permutation(len(values))
    ref = make_reference(values[order[:3000]], None, {})
    alarm = Alarm(ref, 100, 100, len(NAMES))
    least = [alarm.test(values[rng.choice(order[3000:], 100, replace=False)])[1].min() for _ in range(300)]
    assert np.mean(np.array(least) <= 0.01) <= 0.02


@settings(deadline=None, max_examples=15)
@given(st.integers(MIN_IMAGES, 400), st.data())
def test_any_window_gets_p_values_that_are_probabilities(n: int, data: st.DataObject) -> None:
    writers = data.draw(st.integers(1, n))
    values = np.random.default_rng(n).normal(0, 30, (n, len(NAMES)))
    result = judge(reference(), values, writers)
    for row in result["statistics"]:
        assert 0 < row["p_value"] <= 1
        assert 0 <= row["distance"] <= 1
    assert result["alarm"] == any(row["alarm"] for row in result["statistics"])


@pytest.mark.parametrize(
    ("n", "options", "message"),
    [
        (MIN_IMAGES - 1, {}, f"{MIN_IMAGES - 1} .* say nothing about a drift; give at least {MIN_IMAGES}"),
        (0, {}, r"0 image\(s\) with ink"),
        (50, {"writers": 0}, "by 1 to 50 writers, got 0"),
        (50, {"writers": 51}, "by 1 to 50 writers, got 51"),
        (50, {"alpha": 0.0}, "false-alarm rate is from 0.001 to 0.5, got 0"),
        (50, {"alpha": float("nan")}, "false-alarm rate"),
    ],
)
def test_what_cannot_be_judged_is_refused(n: int, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        judge(reference(), others()[0][:n], **options)


def test_a_reference_of_few_writers_is_refused() -> None:
    values, who = others()
    with pytest.raises(UsageError, match=r"would hold 3 writer\(s\), and at least 20 are needed"):
        make_reference(values[np.isin(who, np.unique(who)[:3])], who[np.isin(who, np.unique(who)[:3])], {})


def renamed(names: tuple[str, ...]) -> bytes:
    ref = reference()
    return Reference(names, ref.edges, ref.bins, ref.writers, ref.mean, ref.sd, ref.about).to_bytes()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: b"", "cannot be read as a drift reference"),
        (lambda: b"not a zip file", "cannot be read as a drift reference"),
        (lambda: reference().to_bytes()[:-200], "cannot be read as a drift reference"),
        (lambda: renamed(("phase of the moon", *NAMES[1:])), "not a drift reference that this version can read"),
        (lambda: renamed(NAMES[:3]), "not a drift reference that this version can read"),
    ],
)
def test_a_file_that_is_no_reference_is_one_sentence(make, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Reference.from_bytes(make(), "ref.npz")


# -- the committed experiment ----------------------------------------------------------------------------------------


def test_the_experiment_holds_what_it_promises() -> None:
    document = json.loads((ROOT / "docs" / "figures" / "drift.json").read_text())
    told = [row for row in document["false_alarms"] if row["writers"] == row["judged_as_writers"]]
    misled = [row for row in document["false_alarms"] if row["writers"] != row["judged_as_writers"]]
    assert len(told) >= 12
    for row in told:
        assert row["windows"] >= 1000
        assert row["ci95"][0] <= document["alpha"], row
    assert all(row["rate"] > 10 * document["alpha"] for row in misled)
    found = {row["drift"] for row in document["power"] if row["smallest_window_90"]}
    assert found >= {"strokes 1 px thicker, after", "shifted by 3 px, after", "inverted, after", "letters (chars62)"}
    harmless = [row for row in document["power"] if row["drift"] in {"shifted by 3 px, before", "inverted, before"}]
    assert all(rate <= 0.05 for row in harmless for rate in row["detected"].values())
