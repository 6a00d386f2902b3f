"""Nested phases as a builder reports them -> a line and a fraction; a build that is stopped leaves no mark."""

import os
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwr_export.engine.build import engine_from_onnx
from hwr_export.engine.options import release_profiles
from hwr_export.engine.products import load_product
from hwr_export.engine.progress import Phases
from hwr_export.release import Release


def test_a_phase_inside_a_step_counts_as_part_of_it() -> None:
    phases = Phases()
    phases.start("build", None, 4)
    assert (phases.label, phases.fraction) == ("build", 0)
    phases.step("build", 0)
    phases.start("subgraph", "build", 2)
    phases.start("tactics", "subgraph", 10)
    phases.step("tactics", 4)
    assert phases.label == "build > tactics"
    assert phases.fraction == pytest.approx((1 + (0 + 5 / 10) / 2) / 4)
    phases.finish("tactics")
    assert phases.label == "build > subgraph"
    phases.step("subgraph", 0)
    phases.finish("subgraph")
    assert phases.fraction == pytest.approx(2 / 4)
    phases.finish("build")
    assert (phases.label, phases.fraction) == ("build", 1)


EVENTS = st.lists(
    st.one_of(
        st.tuples(
            st.just("start"), st.sampled_from("abcd"), st.sampled_from(["a", "b", None, "z"]), st.integers(-1, 9)
        ),
        st.tuples(st.just("step"), st.sampled_from("abcd"), st.integers(0, 20)),
        st.tuples(st.just("finish"), st.sampled_from("abcde")),
    ),
    max_size=40,
)


@given(EVENTS)
def test_whatever_a_builder_reports_the_fraction_only_grows(events) -> None:
    """A name within itself is the one thing that a builder cannot mean."""
    phases, last = Phases(), 0.0
    for event, name, *arguments in events:
        if event == "start" and arguments[0] is not None and arguments[0] >= name:
            continue
        getattr(phases, event)(name, *arguments)
        assert last <= phases.fraction <= 1
        last = phases.fraction


def build(release: Release, progress) -> bytes:
    model, product = release.read(release.onnx("fp32")), load_product(None, ["sm86"])
    return engine_from_onnx(model, product, ["sm86"], "ab" * 32, release_profiles(release.spec), progress=progress).data


def test_the_real_builder_goes_from_nothing_to_all(release: Release) -> None:
    seen: list[tuple[str, int, int]] = []
    build(release, lambda *event: seen.append(event))
    done = [d for _, d, _ in seen]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, 1000)
    assert {steps for *_, steps in seen} == {1000}
    labels = {label for label, *_ in seen}
    assert "Building engine" in labels
    assert any(label.startswith("Building engine > ") for label in labels)


def test_what_the_callback_raises_stops_the_build_and_comes_out(release: Release) -> None:
    whole = build(release, lambda *_: None)

    def fails(_phase: str, done: int, _steps: int) -> None:
        if done > 0:
            raise ValueError("the display is gone")

    with pytest.raises(ValueError, match="the display is gone"):
        build(release, fails)
    assert len(build(release, lambda *_: None)) == len(whole)


def test_ctrl_c_stops_the_build_and_not_the_next_one(release: Release) -> None:
    before = signal.getsignal(signal.SIGINT)
    events = []

    def interrupted(*event) -> None:
        events.append(event)
        if len(events) == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        build(release, interrupted)
    assert max(done for _, done, _ in events) < 1000
    assert signal.getsignal(signal.SIGINT) is before
    assert build(release, lambda *_: None)
