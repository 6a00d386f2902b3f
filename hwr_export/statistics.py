"""The few statistics that training, parity and benches share. NumPy only.

Logits and probabilities are float (N, classes); labels and predictions int (N,).
"""

import math

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.integer]


def softmax(logits: FloatArray, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Return softmax(logits / temperature) in float64, overflow-safe."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    scaled -= scaled.max(axis=-1, keepdims=True)
    exp = np.exp(scaled)
    return np.asarray(exp / exp.sum(axis=-1, keepdims=True))


def negative_log_likelihood(logits: FloatArray, labels: IntArray, temperature: float = 1.0) -> float:
    """Return the mean -log p(label), in nats."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    top = scaled.max(axis=1, keepdims=True)
    log_sum = (top + np.log(np.exp(scaled - top).sum(axis=1, keepdims=True)))[:, 0]
    return float(np.mean(log_sum - scaled[np.arange(len(labels)), labels]))


def fit_temperature(logits: FloatArray, labels: IntArray) -> float:
    """Return the temperature in [1/20, 20] that minimises the NLL (Guo et al. 2017), by golden-section search."""
    low, high = math.log(1 / 20), math.log(20)
    ratio = (math.sqrt(5) - 1) / 2

    def loss(log_t: float) -> float:
        return negative_log_likelihood(logits, labels, math.exp(log_t))

    a, b = high - ratio * (high - low), low + ratio * (high - low)
    loss_a, loss_b = loss(a), loss(b)
    while high - low > 1e-4:
        if loss_a < loss_b:
            high, b, loss_b = b, a, loss_a
            a = high - ratio * (high - low)
            loss_a = loss(a)
        else:
            low, a, loss_a = a, b, loss_b
            b = low + ratio * (high - low)
            loss_b = loss(b)
    return math.exp((low + high) / 2)


def rejection_threshold(confidence: FloatArray, correct: npt.NDArray[np.bool_], max_error: float) -> float:
    """Return the lowest confidence to accept at so that at most `max_error` of the accepted are wrong.

    1.0 (accept only certainty) where no threshold holds the bound on the samples given.
    """
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence = confidence[order]
    error = np.cumsum(~correct[order]) / np.arange(1, len(order) + 1)
    # Equal confidences are accepted together, so a cut is only possible where the confidence changes.
    last_of_tie = np.append(np.diff(sorted_confidence) != 0, True)
    good = np.flatnonzero((error <= max_error) & last_of_tie)
    return float(sorted_confidence[good[-1]]) if len(good) else 1.0


def wilson_interval(successes: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion (E. B. Wilson 1927), 95 % by default."""
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def median(values: npt.NDArray[np.floating]) -> float:
    """Return what `np.median` returns of an array (N,) without NaN, N >= 1, ten times faster where N is small."""
    half = len(values) // 2
    parted = np.partition(values, half)
    return float(parted[half] if len(values) % 2 else (parted[:half].max() + parted[half]) / 2)


def standard_error(rate: float, n: int) -> float:
    """Return the standard error of a proportion that was measured on `n` images."""
    return math.sqrt(rate * (1 - rate) / n)


def rate_upper_bound(events: int, n: int, confidence: float = 0.95) -> float:
    """Return the exact one-sided upper bound of a rate (Clopper and Pearson 1934), by bisection of the binomial CDF."""
    if n == 0 or events >= n:
        return 1.0
    low, high = events / n, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if binomial_cdf(events, n, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def binomial_cdf(k: int, n: int, p: float) -> float:
    """Return P(X <= k) of a binomial X."""
    if p <= 0 or p >= 1:
        return 1.0 if p <= 0 else 0.0
    log_n = math.lgamma(n + 1)
    terms = (
        log_n - math.lgamma(i + 1) - math.lgamma(n - i + 1) + i * math.log(p) + (n - i) * math.log1p(-p)
        for i in range(k + 1)
    )
    return min(1.0, sum(map(math.exp, terms)))


def clustered_interval(correct: npt.NDArray[np.bool_], clusters: IntArray, z: float = 1.959964) -> tuple[float, float]:
    """Return the 95 % interval of a proportion whose samples come in clusters (images by the same writer).

    The Wilson interval at the effective sample size n / design effect (Kish 1965); the design effect is the ratio of
    the clustered variance of the mean (between-cluster sums of residuals) to the binomial one, and never below 1.
    """
    n = len(correct)
    p = float(correct.mean())
    if p in (0.0, 1.0):
        return wilson_interval(int(correct.sum()), n, z)
    effective = n / design_effect(correct.astype(float), clusters)
    centre = (p + z * z / (2 * effective)) / (1 + z * z / effective)
    half = z / (1 + z * z / effective) * math.sqrt(p * (1 - p) / effective + z * z / (4 * effective**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def risk_at_rejection(confidence: FloatArray, correct: npt.NDArray[np.bool_], rejected: float) -> float:
    """Return the error among what is left when the least confident fraction `rejected` is left out."""
    order = np.argsort(-confidence, kind="stable")
    kept = correct[order][: len(order) - round(rejected * len(order))]
    return float((~kept).mean()) if len(kept) else 0.0


def area_under_risk_coverage(confidence: FloatArray, correct: npt.NDArray[np.bool_]) -> float:
    """Return the AURC: the error among the accepted, averaged over every coverage (Geifman and El-Yaniv 2017)."""
    order = np.argsort(-confidence, kind="stable")
    return float((np.cumsum(~correct[order]) / np.arange(1, len(order) + 1)).mean())


def confidence_at_rejection(confidence: FloatArray, rejected: float) -> float:
    """Return the confidence to accept at so that the fraction `rejected` is left out (less where confidences tie).

    1.0 where nothing is left.
    """
    kept = len(confidence) - round(rejected * len(confidence))
    return float(np.sort(confidence)[::-1][kept - 1]) if kept else 1.0


def risk_coverage_curve(
    confidence: FloatArray, correct: npt.NDArray[np.bool_], points: int = 200
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return coverage and the error among the accepted, at most `points` each, from all accepted to one alone.

    The points lie close together where little is rejected: there is where a recogniser is used.
    """
    n = len(correct)
    order = np.argsort(-confidence, kind="stable")
    risk = np.cumsum(~correct[order]) / np.arange(1, n + 1)
    rejected = np.unique(np.round(np.geomspace(1, n, min(n, points))).astype(int)) - 1
    return (n - rejected) / n, risk[n - rejected - 1]


def reliability(probabilities: FloatArray, labels: IntArray, bins: int = 15) -> list[tuple[float, float, int]]:
    """Return (mean confidence, accuracy, n) of each equal-width bin of confidence that is not empty."""
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        (float(confidence[inside].mean()), float(correct[inside].mean()), int(inside.sum()))
        for inside in (which == i for i in range(bins))
        if inside.any()
    ]


def expected_calibration_error(probabilities: FloatArray, labels: IntArray, bins: int = 15) -> float:
    """Return the ECE of the top class over equal-width bins (Naeini et al. 2015), as a fraction."""
    gaps = (n * abs(accuracy - confidence) for confidence, accuracy, n in reliability(probabilities, labels, bins))
    return sum(gaps) / len(labels)


def design_effect(values: FloatArray, clusters: IntArray | None) -> float:
    """Return by how much clustering inflates the variance of a mean (Kish 1965), never below 1."""
    if clusters is None or len(values) < 2 or float(values.var()) == 0:
        return 1.0
    residual = values - values.mean()
    _, index = np.unique(clusters, return_inverse=True)
    sums = np.bincount(index, weights=residual)
    groups = len(sums)
    if groups < 2:
        return 1.0
    clustered = groups / (groups - 1) * float((sums**2).sum()) / len(values) ** 2
    return max(1.0, clustered / (float(values.var()) / len(values)))
