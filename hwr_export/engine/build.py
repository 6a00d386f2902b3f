"""One ONNX file + targets -> one serialised plan in memory, with progress, cancellable, errors with their node."""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType, ModuleType
from typing import Any

from hwr_export.engine.options import DEFAULT_OPTIONS, BuildOptions, Profile
from hwr_export.engine.products import Product
from hwr_export.errors import EngineError
from hwr_export.runners.trt_log import logger

NO_REASON = "the builder gave no reason"
Progress = Callable[[str, int, int], None]  # phase, steps done, steps


@dataclass(frozen=True)
class Plan:
    """A built engine: `data` is the `.engine` file."""

    data: bytes
    build_s: float
    profiles: tuple[Profile, ...]


def engine_from_onnx(
    model: bytes,
    product: Product,
    targets: Sequence[str],
    source_sha256: str,
    profiles: Sequence[Profile],
    options: BuildOptions = DEFAULT_OPTIONS,
    progress: Progress = lambda *_: None,
) -> Plan:
    """Build a plan.

    Args:
        model: ONNX file content.
        targets: compute capabilities as `sm86`, or `native` for the GPU of this machine.
        source_sha256: sha256 of `model`; it becomes the network's name, which survives into the plan.
        profiles: shapes of the inputs with a dynamic axis; none where no input has one.

    Raises:
        EngineError: the parser or the builder refused; the message carries the node and the builder's own words.
        KeyboardInterrupt: Ctrl-C, after the builder has stopped cleanly.
    """
    trt = product.module
    started = time.perf_counter()
    log = logger(trt)
    log.errors.clear()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        raise EngineError(
            f"{product.name} cannot parse the ONNX file: {_parser_errors(parser) or log.gist() or NO_REASON}"
        )
    if network.num_outputs == 0:
        raise EngineError(f"{product.name} cannot parse the ONNX file: it holds no graph with outputs")
    network.name = source_sha256

    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    for shapes in profiles:
        _add_profile(builder, network, config, shapes)
    if product.name == "tensorrt_rtx":
        _set_targets(trt, config, targets)
    monitor = _monitor(trt, progress)
    config.progress_monitor = monitor
    with _cancel_on_sigint(monitor):
        plan = builder.build_serialized_network(network, config)
    if monitor.cancelled:
        raise KeyboardInterrupt
    if plan is None:
        raise EngineError(f"{product.name} built no engine for {', '.join(targets)}: {log.gist() or NO_REASON}")
    return Plan(bytes(plan), time.perf_counter() - started, tuple(profiles))


def _add_profile(builder: Any, network: Any, config: Any, shapes: Profile) -> None:
    """Add a profile that fits the network: the builder would say less, and ignore a name that is no input."""
    inputs = {tensor.name: tuple(tensor.shape) for tensor in map(network.get_input, range(network.num_inputs))}
    dynamic = {name for name, shape in inputs.items() if -1 in shape}
    if not dynamic <= set(shapes) <= set(inputs):
        raise EngineError(
            f"the profile gives shapes for {sorted(shapes)}, and the graph's inputs are {inputs}; "
            "give (min, opt, max) for each that holds a -1, and for no name besides"
        )
    profile = builder.create_optimization_profile()
    for name, (smallest, usual, largest) in shapes.items():
        fits = all(
            len(shape) == len(inputs[name]) and all(d in (-1, n) for d, n in zip(inputs[name], shape, strict=True))
            for shape in (smallest, usual, largest)
        )
        if not fits or not all(0 <= a <= b <= c for a, b, c in zip(smallest, usual, largest, strict=True)):
            raise EngineError(
                f"the profile of {name!r} is {smallest} to {largest}, best at {usual}, and the graph takes "
                f"{inputs[name]}, where -1 is any; give shapes of that form that do not decrease from min to max"
            )
        profile.set_shape(name, smallest, usual, largest)
    config.add_optimization_profile(profile)


def _set_targets(trt: ModuleType, config: Any, targets: Sequence[str]) -> None:
    config.num_compute_capabilities = len(targets)
    for i, target in enumerate(targets):
        if not config.set_compute_capability(getattr(trt.ComputeCapability, target.upper()), i):
            raise EngineError(f"tensorrt_rtx does not accept the target {target}")


def _parser_errors(parser: Any) -> str:
    """Return every parser error with its node."""
    messages = []
    for i in range(parser.num_errors):
        error = parser.get_error(i)
        where = f"node {error.node()} {error.node_name()!r} ({error.node_operator()})" if error.node_operator() else ""
        messages.append(": ".join(filter(None, [where, " ".join(error.desc().split())])))
    return "; ".join(messages)


def _monitor(trt: ModuleType, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        """Reports phases; may be called from several of the builder's threads."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.cancelled = False
            self._steps: dict[str, int] = {}
            self._lock = threading.Lock()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:  # noqa: ARG002  TensorRT names them
            with self._lock:
                self._steps[phase_name] = num_steps
                progress(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._lock:
                progress(phase_name, step + 1, self._steps.get(phase_name, step + 1))
            return not self.cancelled

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                steps = self._steps.pop(phase_name, 1)
                progress(phase_name, steps, steps)

    return Monitor()


@contextmanager
def _cancel_on_sigint(monitor: Any) -> Iterator[None]:
    """Let Ctrl-C ask the builder to stop: an exception inside its callbacks would tear through C++."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def cancel(_signum: int, _frame: FrameType | None) -> None:
        monitor.cancelled = True

    previous = signal.signal(signal.SIGINT, cancel)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
