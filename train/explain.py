"""Checkpoint + image files -> one picture of why the eager model answers as it does.

Every image goes through what `hwr-export read` does before it reaches the network. Grad-CAM and integrated gradients
are Captum's; the attributions of the latter sum to what the explained logit gains over that of blank paper.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from hwr_export.checkpoint import Checkpoint, load_checkpoint
from hwr_export.errors import CheckpointError, ImageError, UsageError
from hwr_export.files import write_atomic
from hwr_export.glyph import load_grey, normalize
from hwr_export.program import Recognizer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FloatArray = npt.NDArray[np.float64]
MAX_IMAGES = 64  # rows of a picture that anyone can still look at
# Integrated gradients are summed over ever more steps until they miss the logit difference by at most this share of
# all that they attribute, for and against (the difference itself may be zero).
STEPS = (64, 256, 1024)
COMPLETENESS = 0.01
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Explanation:
    """Of one crop, for the class `target`: what each pixel and each region did.

    `grad_cam` (H, W) >= 0, in logits, scaled up from the last convolution's size; `gradients` (H, W), signed, in
    logits, sums to `difference` (the target's logit minus that of blank paper) but for `delta`, over `steps` steps.
    """

    target: int
    probabilities: FloatArray
    grad_cam: FloatArray
    gradients: FloatArray
    difference: float
    delta: float
    steps: int


def explain(path: Path, images: Sequence[Path], out: Path, target: str | None = None) -> dict[str, Any]:
    """Draw a row an image into `out` and return the machine-readable part.

    Args:
        target: the label to explain; else the model's own answer to each image.

    Raises:
        CheckpointError: no checkpoint, or a saved program, whose convolutions cannot be observed.
        ImageError: an image is missing, broken or without ink.
        UsageError: `target` is not in the label set, `out` is no .png, or there are too many images.
    """
    if out.suffix.lower() != ".png":
        raise UsageError(f"the picture is a PNG file, got {out}; give -o a name that ends in .png")
    if not 1 <= len(images) <= MAX_IMAGES:
        raise UsageError(f"a picture shows 1 to {MAX_IMAGES} images, got {len(images)}; explain fewer at a time")
    checkpoint = load_checkpoint(path)
    info = checkpoint.info
    if target is not None and (len(target) != 1 or target not in info.labels):
        raise UsageError(f"--target {target!r} is not a label of {info.name}, which knows {info.labels}")
    greys = [load_grey(image) for image in images]
    crops = []
    for image, grey in zip(images, greys, strict=True):
        crop = normalize(grey, *info.spec().image_shape)
        if crop is None:
            raise ImageError(f"there is no ink in {image}, so there is nothing to explain; leave it out")
        crops.append(crop)
    explainer = Explainer(checkpoint)
    wanted = None if target is None else info.labels.index(target)
    explanations = [explainer.explain(crop, wanted) for crop in crops]
    figure = _figure(checkpoint, [image.name for image in images], greys, crops, explanations)
    write_atomic(out, _png(figure))
    return {
        "schema": 1,
        "checkpoint": str(path),
        "picture": str(out),
        "layer": explainer.layer_name,
        "results": [
            _result(image, info.labels, info.reject_below, e) for image, e in zip(images, explanations, strict=True)
        ],
    }


class Explainer:
    """A checkpoint's eager model with Captum's two methods around it."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        info = checkpoint.info
        if info.kind == "program":
            raise CheckpointError(
                f"{info.name} is a saved program: its graph has no convolution modules to observe, which Grad-CAM "
                "needs; explain the checkpoint that it was exported from"
            )
        self._recognizer = Recognizer(checkpoint.module, info.spec()).eval()
        for module in self._recognizer.modules():
            if hasattr(module, "inplace"):
                module.inplace = False  # it would overwrite what Captum has observed
        self._temperature = info.temperature
        self._shape = info.spec().image_shape
        blank = torch.zeros((1, *self._shape), dtype=torch.uint8)
        self._blank = self._recognizer.preprocess(blank).contiguous()
        self.layer_name, self._layer = last_convolution(self._recognizer.network, self._blank)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Preprocessed float32 (N, C, H, W) -> (N, classes)."""
        output = self._recognizer.network(x)
        found: torch.Tensor = output[0] if isinstance(output, tuple | list) else output
        return found

    def explain(self, crop: npt.NDArray[np.uint8], target: int | None = None) -> Explanation:
        """Explain one crop, uint8 (H, W), for a class; else for the one that the model answers."""
        from captum.attr import LayerGradCam

        x = self._recognizer.preprocess(torch.tensor(crop[None])).contiguous()
        with torch.no_grad():
            logits, paper = self.logits(x)[0], self.logits(self._blank)[0]
        target = int(logits.argmax()) if target is None else target
        cam = LayerGradCam(self.logits, self._layer).attribute(x, target=target, relu_attributions=True)
        large = nn.functional.interpolate(cam.detach(), self._shape, mode="bilinear", align_corners=False)
        difference = float(logits[target] - paper[target])
        gradients, delta, steps = self._integrated(x, target, difference)
        return Explanation(
            target=target,
            probabilities=torch.softmax(logits.double() / self._temperature, dim=0).numpy(),
            grad_cam=large[0, 0].double().numpy(),
            gradients=gradients,
            difference=difference,
            delta=delta,
            steps=steps,
        )

    def _integrated(self, x: torch.Tensor, target: int, difference: float) -> tuple[FloatArray, float, int]:
        """Integrate from blank paper to `x` in as few steps as complete it; (H, W), what is missing, steps."""
        from captum.attr import IntegratedGradients

        for steps in STEPS:
            found = IntegratedGradients(self.logits).attribute(
                x, baselines=self._blank, target=target, n_steps=steps, internal_batch_size=64
            )
            pixels = found.detach().double().sum(dim=1)[0].numpy()
            delta = float(pixels.sum()) - difference
            if abs(delta) <= COMPLETENESS * float(np.abs(pixels).sum()):
                break
        return pixels, delta, steps


def last_convolution(network: nn.Module, x: torch.Tensor) -> tuple[str, nn.Module]:
    """Return the last part of a network whose output is still a map of the image, by name.

    That is the last convolution to run, or rather the outermost module around it with an output of the same size: of a
    residual block the sum, not the one branch that happens to come last.

    Raises:
        CheckpointError: the network has no convolution.
    """
    names = {module: name for name, module in network.named_modules()}
    done: list[tuple[nn.Module, tuple[int, ...]]] = []

    def note(module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.ndim == 4:
            done.append((module, tuple(output.shape[2:])))

    hooks = [module.register_forward_hook(note) for module in names]
    try:
        with torch.no_grad():
            network(x)
    finally:
        for hook in hooks:
            hook.remove()
    ran = [i for i, (module, _) in enumerate(done) if isinstance(module, CONVOLUTIONS)]
    if not ran:
        raise CheckpointError(f"{type(network).__name__} has no convolution, which Grad-CAM needs to look at")
    convolution, size = done[ran[-1]]
    # Whatever encloses the convolution finishes after it; the last of them is the outermost.
    around = [m for m, s in done[ran[-1] :] if s == size and any(part is convolution for part in m.modules())]
    return names[around[-1]], around[-1]


def _result(image: Path, labels: str, reject_below: float, e: Explanation) -> dict[str, Any]:
    top = int(e.probabilities.argmax())
    return {
        "image": str(image),
        "label": labels[top],
        "confidence": float(e.probabilities[top]),
        "rejected": bool(e.probabilities[top] < reject_below),
        "target": labels[e.target],
        "target_probability": float(e.probabilities[e.target]),
        "logit_difference": e.difference,
        "convergence_delta": e.delta,
        "steps": e.steps,
    }


# -- the picture -----------------------------------------------------------------------------------------------------

INK = "#1f2933"
ACCEPTED, OTHER, LIMIT = "#2a6f97", "#b8c4ce", "#c2410c"
ROW_INCHES, WIDTH_INCHES = 1.75, 10.2
TITLES = ("image", "the model's input", "Grad-CAM", "integrated gradients", "calibrated probability")


def _figure(
    checkpoint: Checkpoint,
    names: Sequence[str],
    greys: Sequence[npt.NDArray[np.uint8]],
    crops: Sequence[npt.NDArray[np.uint8]],
    explanations: Sequence[Explanation],
) -> "Figure":
    from matplotlib.figure import Figure

    info = checkpoint.info
    rows = len(crops)
    height = rows * ROW_INCHES + 1.0
    figure = Figure(figsize=(WIDTH_INCHES, height), dpi=130, facecolor="white")
    grid = figure.add_gridspec(
        rows, 5, width_ratios=(1, 1, 1, 1, 1.35), left=0.03, right=0.975, top=1 - 0.62 / height, bottom=0.52 / height,
        wspace=0.14, hspace=0.34,
    )  # fmt: skip
    axes: list[list[Axes]] = [[figure.add_subplot(grid[r, c]) for c in range(5)] for r in range(rows)]
    for row, name, grey, crop, explanation in zip(axes, names, greys, crops, explanations, strict=True):
        _draw_row(row, name, grey, crop, explanation)
        _bars(row[4], info.labels, info.reject_below, explanation)
    for column, title in enumerate(TITLES):
        box = axes[0][column].get_position()
        middle = (box.x0 + box.x1) / 2
        figure.text(middle, 1 - 0.24 / height, title, ha="center", fontsize=10, weight="bold", color=INK)
    notes = {3: "red speaks for it, blue against it", 4: f"dashed: what is below {info.reject_below:.3f} is left blank"}
    for column, note in notes.items():
        box = axes[-1][column].get_position()
        figure.text((box.x0 + box.x1) / 2, 0.1 / height, note, ha="center", va="bottom", fontsize=7.5, color=INK)
    return figure


def _draw_row(
    row: Sequence["Axes"], name: str, grey: npt.NDArray[np.uint8], crop: npt.NDArray[np.uint8], e: Explanation
) -> None:
    row[0].imshow(grey, cmap="gray", vmin=0, vmax=255)
    row[1].imshow(crop, cmap="gray", vmin=0, vmax=255)
    row[2].imshow(crop, cmap="gray_r", vmin=0, vmax=255, alpha=0.55)
    top = float(e.grad_cam.max())
    strength = e.grad_cam / top if top > 0 else e.grad_cam
    row[2].imshow(
        strength, cmap="inferno", vmin=0, vmax=1, alpha=np.clip(strength, 0, 1) * 0.8, interpolation="bilinear"
    )
    # A few pixels stand far out; at their scale all others would look white.
    limit = max(float(np.quantile(np.abs(e.gradients), 0.99)), 1e-12)
    row[3].imshow(e.gradients, cmap="RdBu_r", vmin=-limit, vmax=limit)
    row[3].contour(crop, levels=[float(crop.max()) / 2], colors=[INK], linewidths=0.6, alpha=0.6)
    short = name if len(name) <= 26 else f"{name[:12]}…{name[-12:]}"
    captions = (
        short,
        None,
        None if top > 0 else "no region speaks for it",
        f"sum {e.difference:+.1f}, off by {abs(e.delta):.1g}",
    )
    for axes, caption in zip(row[:4], captions, strict=True):
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_edgecolor(OTHER)
        if caption:
            axes.set_xlabel(caption, fontsize=7.5, color=INK, labelpad=3, parse_math=False)


def _bars(axes: "Axes", labels: str, reject_below: float, e: Explanation) -> None:
    """Draw the five likeliest classes; the one explained is dark, and takes the last place where it is none of them."""
    order = [int(i) for i in np.argsort(-e.probabilities)[:5]]
    top = order[0]
    if e.target not in order:
        order[-1] = e.target
    values = [float(e.probabilities[i]) for i in order]
    places = range(len(order))
    axes.barh(places, values, color=[ACCEPTED if i == e.target else OTHER for i in order], height=0.7)
    for place, value in zip(places, values, strict=True):
        inside = value > 0.6
        end = min(value, reject_below) if reject_below > 0.6 else value  # the dashed line must not cross the number
        axes.text(
            end - 0.02 if inside else value + 0.02, place, _percent(value), va="center", fontsize=7.5,
            ha="right" if inside else "left", color="white" if inside and order[place] == e.target else INK,
        )  # fmt: skip
    axes.axvline(reject_below, color=LIMIT, linewidth=1, linestyle="--")
    axes.set_yticks(list(places), [labels[i] for i in order], fontsize=9, color=INK, parse_math=False)
    axes.set_xlim(0, 1)
    axes.set_xticks([])
    axes.invert_yaxis()
    axes.tick_params(length=0)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["left"].set_edgecolor(OTHER)
    verdict = "left blank" if e.probabilities[top] < reject_below else f"reads {labels[top]}"
    why = "" if e.target == top else f", explained: {labels[e.target]}"
    axes.set_title(verdict + why, fontsize=8.5, color=INK, pad=3, loc="left", parse_math=False)


def _percent(value: float) -> str:
    if value > 0.9999:
        return "> 99.99 %"
    return f"{100 * value:.1f} %" if 0.0005 <= value < 0.9995 else f"{100 * value:.2f} %"


def _png(figure: "Figure") -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()
