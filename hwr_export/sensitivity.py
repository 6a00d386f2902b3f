"""Q/DQ file + held-out images -> what each quantised layer costs, and the fewest to leave in float. Torch-free.

Cost is counted in decisions: answers that differ from the float model's (flips), and the divergence of the two as the
tie-break. Layers are toggled by removing their Q/DQ pairs, so that it holds for every runtime that reads the file.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from hwr_export.errors import QuantizationError
from hwr_export.qdq import quantized_layers, with_float_layers
from hwr_export.runners import Arrays, onnx_runner
from hwr_export.spec import LOGITS, ModelSpec
from hwr_export.statistics import softmax


@dataclass(frozen=True)
class Cost:
    """What a file changes against the float model, over `n` images.

    `flips` are other answers, `kl` the mean divergence of the softmax of the logits in nats, `drop_pt` the accuracy
    lost in percentage points (negative: gained).
    """

    n: int
    flips: int
    kl: float
    accuracy: float
    drop_pt: float

    @property
    def order(self) -> tuple[int, float]:
        """Less is better."""
        return self.flips, self.kl


@dataclass(frozen=True)
class LayerCost:
    """A layer, and the cost of the file with everything quantised but this layer; `gain` is what that saves."""

    layer: str
    flips: int
    kl: float
    drop_pt: float
    flips_saved: int
    kl_saved: float


@dataclass(frozen=True)
class Choice:
    """The layers left in float, the file, and its cost."""

    float_layers: tuple[str, ...]
    model: onnx.ModelProto
    cost: Cost


class Judge:
    """Held-out images and the float model's answers to them, on one backend."""

    def __init__(
        self,
        backend: str,
        spec: ModelSpec,
        images: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.int64],
        reference: bytes,
    ) -> None:
        self.backend = backend
        self._spec = spec
        self._images = images
        self._labels = labels
        self._reference = self._run(reference)[LOGITS]
        self.accuracy = float((self._reference.argmax(1) == labels).mean())

    def cost(self, model: bytes) -> Cost:
        """Run a file on the held-out images and compare.

        Raises:
            RunnerError: the backend cannot run it.
            QuantizationError: its logits are not finite.
        """
        logits = self._run(model)[LOGITS]
        if not np.isfinite(logits).all():
            raise QuantizationError("the quantised model returns NaN or infinity on real images; its scales are broken")
        accuracy = float((logits.argmax(1) == self._labels).mean())
        return Cost(
            n=len(logits),
            flips=int((logits.argmax(1) != self._reference.argmax(1)).sum()),
            kl=divergence(self._reference, logits),
            accuracy=accuracy,
            drop_pt=round(100 * (self.accuracy - accuracy), 6),
        )

    def _run(self, model: bytes) -> Arrays:
        with onnx_runner(self.backend, model, self._spec) as runner:
            return runner.infer_all(self._images)


def divergence(reference: npt.NDArray[Any], logits: npt.NDArray[Any]) -> float:
    """Return the mean KL divergence of the softmax of `logits` from that of `reference`, (N, classes), in nats."""
    p, q = softmax(reference), softmax(logits)
    tiny = np.finfo(np.float64).tiny
    return float(np.maximum((p * np.log((p + tiny) / (q + tiny))).sum(axis=1), 0).mean())


def layer_costs(
    model: onnx.ModelProto, judge: Judge, whole: Cost, say: Callable[[str], None] = lambda _: None
) -> list[LayerCost]:
    """Measure the file once for each layer, with that layer alone back in float; the costliest layer comes first."""
    found = []
    layers = quantized_layers(model)
    for i, layer in enumerate(layers):
        say(f"layer {i + 1} of {len(layers)} in float")
        cost = judge.cost(_bytes(with_float_layers(model, [layer])))
        saved = whole.flips - cost.flips, whole.kl - cost.kl
        found.append(LayerCost(layer, cost.flips, cost.kl, cost.drop_pt, *saved))
    return sorted(found, key=lambda c: (c.flips, c.kl))


def fewest_float_layers(
    model: onnx.ModelProto, ranked: Sequence[LayerCost], judge: Judge, whole: Cost, budget_pt: float
) -> Choice:
    """Leave as few layers in float as keep the accuracy lost within the budget.

    None or one: exact, every one was measured. More: the costliest are added in turn until the budget is met, then
    each that turns out not to be needed is taken back.

    Raises:
        QuantizationError: not even the last quantised layer can stay.
    """
    if whole.drop_pt <= budget_pt:
        return Choice((), model, whole)

    def measured(layers: Sequence[str]) -> Choice:
        changed = with_float_layers(model, layers)
        return Choice(tuple(layers), changed, judge.cost(_bytes(changed)))

    single = next((c.layer for c in ranked if c.drop_pt <= budget_pt), None)
    if single is not None:
        return measured([single])
    names = [c.layer for c in ranked]
    for k in range(2, len(names)):
        choice = measured(names[:k])
        if choice.cost.drop_pt <= budget_pt:
            return _pruned(choice, measured, budget_pt)
    raise QuantizationError(
        f"no layer can be quantised within a budget of {budget_pt:g} points: with all of them in int8 "
        f"{whole.drop_pt:.3f} points of accuracy are lost on {whole.n:,} held-out images; fine-tune with "
        "`python -m train qat`, or raise --budget"
    )


def as_rows(costs: Sequence[LayerCost]) -> list[dict[str, Any]]:
    """Return the ranking as a report keeps it."""
    return [asdict(cost) for cost in costs]


def sensitivity_png(rows: Sequence[dict[str, Any]], title: str) -> bytes:
    """Draw what each layer costs, costliest on top: divergence saved with the layer in float, flips in words."""
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 1 + 0.28 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    names = [row["layer"] for row in rows]
    bars = axes.barh(names, [row["kl_saved"] for row in rows], color="#3b6ea5")
    axes.bar_label(bars, [f"{row['flips_saved']:+d}" if row["flips_saved"] else "0" for row in rows], padding=4)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel("divergence saved with this layer in float (nats); at the bar: flips saved", loc="left")
    axes.set_title(title)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()


def _pruned(choice: Choice, measured: Callable[[Sequence[str]], Choice], budget_pt: float) -> Choice:
    """Take layers back, the least costly first, while the budget holds."""
    for layer in reversed(choice.float_layers):
        fewer = measured([name for name in choice.float_layers if name != layer])
        if fewer.cost.drop_pt <= budget_pt:
            choice = fewer
    return choice


def _bytes(model: onnx.ModelProto) -> bytes:
    return bytes(model.SerializeToString(deterministic=True))
