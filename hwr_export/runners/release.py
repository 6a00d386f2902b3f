"""A release's file or checkpoint on a backend by name: what bench measures. torch only where it is asked for."""

from hwr_export.errors import UsageError
from hwr_export.release import Release
from hwr_export.runners import VARIANTS, Runner, onnx_runner


def open_runner(release: Release, backend: str, precision: str, threads: int = 1) -> Runner:
    """Return a runner of a release's file of one precision, or of its checkpoint where the backend is one of VARIANTS.

    Raises:
        UsageError: this machine lacks what the backend needs.
        ReleaseError: the file is missing or changed.
    """
    if backend not in VARIANTS:
        return onnx_runner(backend, release.read(release.onnx(precision)), release.spec, threads)
    try:
        from hwr_export.runners.eager import variant_runner
    except ModuleNotFoundError as err:
        raise UsageError(f"the backend {backend} cannot be used: {err.name} is not installed") from err
    return variant_runner(release, threads, backend)
