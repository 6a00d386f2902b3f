"""One ONNX file + targets -> one serialised plan in memory, with progress, cancellable, errors with their node."""

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType, ModuleType
from typing import Any

from hwr_export.engine.callbacks import Progress, new_monitor
from hwr_export.engine.options import DEFAULT_OPTIONS, BuildOptions, Profile, require_options
from hwr_export.engine.products import Product
from hwr_export.engine.targets import RTX
from hwr_export.errors import EngineError
from hwr_export.runners.trt_log import use_logger

_refused: list[str] = []  # by TensorRT-RTX, in this process


@dataclass(frozen=True)
class Plan:
    """A built engine: `data` is the `.engine` file; `timing_cache` is empty where none was asked for."""

    data: bytes
    build_s: float
    profiles: tuple[Profile, ...]
    timing_cache: bytes = b""


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
        UsageError: an option that the product cannot serve.
        EngineError: the parser or the builder refused; the message carries the node and the builder's own words. Or
            TensorRT-RTX refused an earlier build of this process.
        KeyboardInterrupt: Ctrl-C, after the builder has stopped cleanly.
    """
    trt = product.module
    require_options(options, product.name)
    if product.name == RTX and _refused:
        raise EngineError(
            f"tensorrt_rtx has refused a build in this process ({_refused[0]}), and what 1.7.1 builds next may compute "
            "in float what the file quantises; build in a new process"
        )
    started = time.perf_counter()
    logger = use_logger(trt, options.log_level)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        raise EngineError(f"{product.name} cannot parse the ONNX file: {_parser_errors(parser) or logger.gist()}")
    if network.num_outputs == 0:
        raise EngineError(f"{product.name} cannot parse the ONNX file: it holds no graph with outputs")
    network.name = source_sha256

    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # for the engine inspector
    for shapes in profiles:
        _add_profile(builder, network, config, shapes)
    if product.name == RTX:
        _set_targets(trt, config, targets)
    else:
        set_options(trt, config, options)
    monitor = new_monitor(trt, progress)
    config.progress_monitor = monitor
    with _cancel_on_sigint(monitor):
        plan = builder.build_serialized_network(network, config)
    if monitor.failure is not None:
        raise monitor.failure
    if monitor.cancelled:
        raise KeyboardInterrupt
    if plan is None:
        if product.name == RTX:
            _refused.append(logger.gist())
        hint = f"; allow more than {options.workspace_mib} MiB of it" if "workspace" in logger.gist().lower() else ""
        raise EngineError(f"{product.name} built no engine for {', '.join(targets)}: {logger.gist()}{hint}")
    timings = b""
    if options.timing_cache is not None:
        cache = config.get_timing_cache()
        timings = bytes(cache.serialize())
    return Plan(bytes(plan), time.perf_counter() - started, tuple(profiles), timings)


def set_options(trt: ModuleType, config: Any, options: BuildOptions) -> None:
    """Set what TensorRT itself takes, and TensorRT-RTX does not."""
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.refittable:
        config.set_flag(trt.BuilderFlag.REFIT)
    if options.strip_weights:
        config.set_flag(trt.BuilderFlag.STRIP_PLAN)
        if not options.refittable:  # the weights of this very file come back, and may be built in as constants
            config.set_flag(trt.BuilderFlag.REFIT_IDENTICAL)
    if options.timing_cache is not None:
        cache = config.create_timing_cache(options.timing_cache)
        if cache is None or not config.set_timing_cache(cache, False):
            raise EngineError(
                f"{trt.__name__} {trt.__version__} does not take the timing cache: another version made it, or another "
                "GPU; name a new file, or none"
            )


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
