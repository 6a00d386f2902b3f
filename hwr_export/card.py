"""Evidence in a release -> `MODEL_CARD.md`: what the model is, what was proven, what was not.

Written anew by every stage that adds evidence, from files of the release alone.
"""

import json
from collections.abc import Callable
from typing import Any

from hwr_export.release import BENCH, CHECKPOINT, MODEL_CARD, PARITY, Change, ManifestFile


def write_card(change: Change) -> None:
    """Write the model card of the release as it will be after this change."""
    made_from = [f.sha256 for f in change.manifest.files if f.path in (CHECKPOINT, PARITY, BENCH)]
    made_from += [f.sha256 for f in change.manifest.files if f.role in ("onnx", "engine")]

    def load(path: str) -> dict[str, Any] | None:
        data = change.read(path)
        return None if data is None else dict(json.loads(data))

    engines = [side for f in change.manifest.files if f.role == "sidecar" and (side := load(f.path))]
    change.write(MODEL_CARD, render(change, load, engines).encode(), "card", made_from)


def render(change: Change, load: Callable[[str], dict[str, Any] | None], engines: list[dict[str, Any]]) -> str:
    """Return the card as Markdown."""
    manifest, spec = change.manifest, change.manifest.model
    checkpoint = load(CHECKPOINT) or {}
    parts = [
        f"# {manifest.name}",
        (
            f"A recogniser of {len(spec.labels)} handwritten characters (`{spec.labels}`), one a crop, made with "
            f"hwr-export {manifest.hwr_export}. Generated from the release's own files; do not edit."
        ),
        "## Use",
        (
            f"Input `image`: uint8 (N, {spec.image_shape[0]}, {spec.image_shape[1]}), raw pixels, white ink on black, "
            f"N from 1 to {spec.max_batch}. Outputs: `logits` and `probabilities`, float32 (N, {len(spec.labels)}). "
            f"Preprocessing, softmax and temperature ({spec.temperature:.3f}) are in the graph "
            f"(ONNX opset {manifest.opset})."
        ),
        _rejection(spec.reject_below, checkpoint.get("metrics", {})),
        (
            "Crops come from `hwr-export read`, which finds the ink on light or dark paper. Meant for single, "
            "separated characters; not for cursive words, and not for anything that is not a character of "
            "the label set."
        ),
        "## Training",
        _training(checkpoint),
        "## Parity with the eager model",
        _parity(load(PARITY)),
        "## Latency",
        _bench(load(BENCH)),
        "## Engines",
        _engines(engines),
        "## Files",
        _table(
            ("file", "bytes", "sha256"), [(f.path, f"{f.size_bytes:,}", f.sha256[:16]) for f in _shown(manifest.files)]
        ),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _shown(files: tuple[ManifestFile, ...]) -> list[ManifestFile]:
    return [f for f in files if f.path != MODEL_CARD]


def _rejection(threshold: float, metrics: dict[str, Any]) -> str:
    if not threshold:
        return "No rejection threshold was fitted: every answer is accepted."
    text = f"Answers with a confidence below {threshold:.4f} are rejected: blank beats wrong."
    if "validation_rejected" in metrics:
        text += (
            f" On validation data, where the threshold was chosen, {100 * metrics['validation_rejected']:.2f} % are "
            f"rejected and {100 * metrics['validation_error_accepted']:.3f} % of the accepted are wrong."
        )
    return text


def _training(checkpoint: dict[str, Any]) -> str:
    rows: list[tuple[str, Any]] = [
        ("architecture", checkpoint.get("architecture", "unknown")),
        ("parameters", f"{checkpoint.get('parameters', 0):,}"),
    ]
    data, metrics = checkpoint.get("data"), checkpoint.get("metrics") or {}
    if data:
        rows += [
            (
                "data",
                f"{data['name']}, {data['train']['n']:,} training and {data['validation']['n']:,} validation images",
            ),
            ("split", data["split"]),
        ]
    if checkpoint.get("recipe"):
        rows.append(("recipe", f"{checkpoint['recipe']['name']}, seed {checkpoint['seed']}"))
    if "validation_accuracy" in metrics:
        rows.append(("validation accuracy", f"{100 * metrics['validation_accuracy']:.2f} % (epoch {metrics['epoch']})"))
    text = _table(("", ""), rows)
    if data and data["name"] == "mnist":
        text += (
            "\n\nMNIST (Y. LeCun, C. Cortes, C. J. C. Burges; CC BY-SA 3.0) was written by US census workers and "
            "students in 1995: expect more errors on other hands, pens and cameras. `goldens.npz` holds 250 of its "
            "training images under that licence."
        )
    return text


def _parity(parity: dict[str, Any] | None) -> str:
    if parity is None:
        return "Not compared yet: run `hwr-export parity`."
    rows = [
        (
            f"{c['backend']} {c.get('backend_version', '')}",
            c["precision"],
            c["verdict"],
            f"{c['agreement']}/{c['n']}",
            _percent(c["accuracy"]),
            _percent(c["eager_accuracy"]),
            "-" if c["max_abs_logit_diff"] is None else f"{c['max_abs_logit_diff']:.2g}",
            "-" if c["tolerance"] is None else f"{c['tolerance']:.2g}",
        )
        for c in parity["cells"]
    ]
    heading = f"Verdict **{parity['verdict']}** on {parity['data']['n']:,} images of {parity['data']['name']}."
    columns = ("backend", "precision", "verdict", "agreement", "accuracy", "eager", "max logit diff", "tolerance")
    reasons = [f"- {c['backend']} {c['precision']}: {reason}" for c in parity["cells"] for reason in c["reasons"]]
    return "\n\n".join(filter(None, [heading, _table(columns, rows), "\n".join(reasons)]))


def _bench(bench: dict[str, Any] | None) -> str:
    if bench is None:
        return "Not measured yet: run `hwr-export bench`."
    rows = [
        (
            c["backend"],
            c["precision"],
            c["batch"],
            c["threads"],
            f"{c['p50_us']:.0f}",
            "-" if c["p99_us"] is None else f"{c['p99_us']:.0f}",
            "-" if c["speedup_vs_eager"] is None else f"{c['speedup_vs_eager']:.1f}x",
        )
        for c in bench["cells"]
    ]
    machine = bench["machine"]
    heading = (
        f"From uint8 image to label and confidence, on {machine['cpu']} ({machine['cores']} cores); all backends "
        "interleaved in one run. The ratio is what carries over to other machines."
    )
    return f"{heading}\n\n" + _table(
        ("backend", "precision", "batch", "threads", "p50 us", "p99 us", "against eager"), rows
    )


def _engines(engines: list[dict[str, Any]]) -> str:
    if not engines:
        return "None in this release: `hwr-export trt` builds them from the ONNX file."
    rows = [
        (
            e["path"],
            f"{e['product']} {e['product_version']}",
            ", ".join(e["targets"]),
            f"{e['size_bytes']:,}",
            e["status"],
        )
        for e in engines
    ]
    return _table(("engine", "product", "targets", "bytes", "status"), rows)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"


def _table(columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
