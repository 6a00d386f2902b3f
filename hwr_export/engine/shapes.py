"""What a user says of a graph's inputs (`--shape NAME=SHAPE`) -> the profile to build for, and where the two part.

A shape is `1x1x28x28`; the smallest, the usual and the largest are `1x1x28x28:8x1x28x28:64x1x28x28`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from hwr_export.engine.options import Profile, Shape
from hwr_export.errors import UsageError

Axes = Sequence[str | int]  # a name, 0 or less stands for a dynamic one
_SHAPE = re.compile(r"\d+(x\d+)*")


def read_shapes(words: Sequence[str]) -> Profile:
    """Return input -> its (min, opt, max) shapes.

    Raises:
        UsageError: words of another form, an input named twice, or shapes that decrease.
    """
    profile: dict[str, tuple[Shape, Shape, Shape]] = {}
    for word in words:
        name, _, text = word.rpartition("=")  # names may hold a colon, as TensorFlow's do
        shapes = [_shape(part) for part in text.split(":") if _SHAPE.fullmatch(part)]
        if not name or len(shapes) != text.count(":") + 1 or len(shapes) not in (1, 3):
            raise UsageError(
                f"--shape {word} is not of the form NAME=1x1x28x28, or NAME=MIN:OPT:MAX with three such shapes"
            )
        if name in profile:
            raise UsageError(f"--shape names the input {name} twice; give it once, a range as {name}=MIN:OPT:MAX")
        smallest, usual, largest = shapes * 3 if len(shapes) == 1 else shapes
        same_rank = len(smallest) == len(usual) == len(largest)
        if not same_rank or not all(0 < a <= b <= c for a, b, c in zip(smallest, usual, largest, strict=True)):
            raise UsageError(f"--shape {word} must not decrease from the smallest to the largest, in any axis")
        profile[name] = (smallest, usual, largest)
    return profile


def misfits(inputs: Mapping[str, Axes | None], shapes: Profile) -> Iterator[tuple[str, str]]:
    """Yield (input, sentence) wherever the shapes given are not those that a graph needs.

    Args:
        inputs: None where the file does not say the shape.
    """
    for name in sorted(set(shapes) - set(inputs)):
        yield name, f"the graph has no input of this name for --shape; it has {', '.join(inputs) or 'none'}"
    for name, axes in inputs.items():
        if name not in shapes:
            sentence = _not_said(name, axes)
        else:
            fits = axes is None or all(_fits(shape, axes) for shape in shapes[name])
            given = ":".join(map(_written, dict.fromkeys(shapes[name])))
            sentence = "" if fits else f"the graph takes {_written(axes or ())} and --shape gives it {given}"
        if sentence:
            yield name, sentence


def _not_said(name: str, axes: Axes | None) -> str:
    """Return what must be said of an input's shape; empty where the file says all."""
    if axes is None:
        return f"the file does not say the shape of this input; say it: --shape {name}=1x1x28x28"
    dynamic = [axis for axis in axes if not _is_size(axis)]
    if not dynamic:
        return ""
    example = [1 if not _is_size(axis) else axis for axis in axes]
    first = next(i for i, axis in enumerate(axes) if not _is_size(axis))
    shapes = ":".join(_written([*example[:first], n, *example[first + 1 :]]) for n in (1, 1, 8))
    return (
        f"its shape is {_written(axes)} and a plan needs sizes for {', '.join(map(_axis, dynamic))}; "
        f"give one shape, or the smallest, the usual and the largest: --shape {name}={shapes}"
    )


def _fits(shape: Shape, axes: Axes) -> bool:
    return len(shape) == len(axes) and all(
        not _is_size(axis) or axis == side for axis, side in zip(axes, shape, strict=True)
    )


def _shape(text: str) -> Shape:
    return tuple(int(side) for side in text.split("x"))


def _is_size(axis: str | int) -> bool:
    return isinstance(axis, int) and axis > 0


def _axis(axis: str | int) -> str:
    return str(axis) if isinstance(axis, str) or axis > 0 else "?"


def _written(axes: Axes) -> str:
    return "x".join(map(_axis, axes))
