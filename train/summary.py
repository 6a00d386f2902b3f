"""An evaluation -> the tables that a terminal shows."""

from typing import Any

from hwr_export.console import print_table

FIGURES = ("checkpoint", "backend", "parameters", "data", "n", "left_out", "without_ink")


def print_summary(result: dict[str, Any]) -> None:
    """Print the figures, the garbage, and the classes with what they are taken for."""
    rows = [(name, str(result[name])) for name in FIGURES]
    for name, interval in (("accuracy", "ci95"), ("top3_accuracy", "top3_ci95"), ("merged_accuracy", "merged_ci95")):
        if result[name] is not None:
            low, high = result[interval]
            rows.append((name, f"{_percent(result[name])} ({100 * low:.2f} to {100 * high:.2f})"))
    rows += [
        ("ece before, after temperature", f"{_percent(result['ece_before_temperature'])}, {_percent(result['ece'])}"),
        (f"rejected below {result['reject_below']:.4f}", _percent(result["rejected"])),
        ("wrong among the accepted", _percent(result["error_accepted"], 3)),
    ]
    for share, point in result["at_rejection"].items():
        error = _percent(point["error"], 3)
        rows.append((f"wrong when {share} are rejected", f"{error} ({point['wrong']} of {point['accepted']})"))
    rows.append(("aurc", f"{result['aurc']:.3g}"))
    print_table(("measure", "value"), rows)

    thresholds = result["garbage"]["thresholds"]
    print_table(
        ("no character", "n", "most often", *(f"accepted at {t:.4f} ({name})" for name, t in thresholds.items())),
        [
            (kind, row["n"], row["most_often"], *(_percent(row["accepted"][name]) for name in thresholds))
            for kind, row in result["garbage"]["kinds"].items()
        ],
    )
    print_table(
        ("class", "n", "accuracy", "most often taken for"),
        [
            (
                label,
                row["n"],
                f"{row['accuracy']:.4f}",
                f"{row['taken_for']} ({row['taken_for_n']})" if row["taken_for_n"] else "",
            )
            for label, row in result["per_class"].items()
        ],
    )


def _percent(value: float, digits: int = 2) -> str:
    return f"{100 * value:.{digits}f} %"
