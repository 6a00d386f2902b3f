"""The eager PyTorch model: the baseline that everything else is compared with. The one runner that imports torch.

Its variants are other ways in which PyTorch may run the same weights; they are measured and never shipped.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from typing_extensions import Self

from hwr_export.checkpoint import Checkpoint, load_checkpoint
from hwr_export.errors import RunnerError, UsageError
from hwr_export.program import Recognizer, program_from_network
from hwr_export.release import Release
from hwr_export.runners import EAGER, Arrays, Runner
from hwr_export.spec import INPUT, OUTPUTS, ModelSpec


class EagerRunner(Runner):
    backend = package = "torch"

    def __init__(self, checkpoint: Checkpoint, spec: ModelSpec, threads: int = 1, variant: str = EAGER) -> None:
        super().__init__(spec, threads)
        self._recognizer = Recognizer(checkpoint.module, spec)
        self._variant = variant

    @classmethod
    def from_release(cls, path: Path, spec: ModelSpec, threads: int = 1, variant: str = EAGER) -> Self:
        """Load the checkpoint that lies in a release directory."""
        return cls(load_checkpoint(path), spec, threads, variant)

    def preprocess(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 (N, H, W) -> float32 (N, C, H, W), as the network sees it."""
        with torch.inference_mode():
            return np.asarray(self._recognizer.preprocess(torch.tensor(images)).numpy(), dtype=np.float32)

    def logits_float64(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """Return float64 logits (N, classes) of the same weights.

        A program may have float32 written into its graph; then its float32 logits are all there is.
        """
        size = min(16, self.spec.max_batch)  # PyTorch's convolutions in float64 take half the time in the cache
        try:
            with torch.inference_mode():
                double = self._recognizer.double()
                parts = [double(torch.tensor(images[i : i + size]))[0] for i in range(0, len(images), size)]
        except (RuntimeError, AssertionError):
            self._recognizer.float()
            return self.infer_all(images)["logits"].astype(np.float64)
        finally:
            self._recognizer.float()
        return np.asarray(torch.cat(parts).numpy(), dtype=np.float64)

    def inner_values(self, images: npt.NDArray[np.uint8]) -> Arrays:
        """Return every floating-point value on the way from images uint8 (N, H, W) to the outputs, in order.

        They bear the names that an export of this network gives them.

        Raises:
            ExportError: the network cannot be traced.
        """
        program = program_from_network(self._recognizer.network, self.spec).run_decompositions()
        values: Arrays = {}

        class Recorder(torch.fx.Interpreter):
            def run_node(self, n: torch.fx.Node) -> Any:
                value = super().run_node(n)
                if n.op == "call_function" and isinstance(value, torch.Tensor) and value.is_floating_point():
                    values[n.name] = value.numpy()
                return value

        with torch.inference_mode():
            outputs = Recorder(program.module(check_guards=False)).run(torch.tensor(images))
        return values | {name: output.numpy() for name, output in zip(OUTPUTS, outputs, strict=True)}

    @contextmanager
    def threads_set_to(self, threads: int) -> Iterator[None]:
        """Run with another number of threads for a while; the number is the process's, so it is put back."""
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(self.threads)

    def _open(self) -> None:
        torch.set_num_threads(self.threads)
        self._call: Callable[..., Any] = self._recognizer
        if self._variant == "eager-channels-last":
            self._recognizer = self._recognizer.to(memory_format=torch.channels_last)
        elif self._variant == "torch-compile":
            self._call = torch.compile(self._recognizer, dynamic=False)

    def _infer(self, inputs: Arrays) -> Arrays:
        try:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self._variant == "eager-bf16"):
                outputs = self._call(torch.tensor(inputs[INPUT]))
        except (RuntimeError, AssertionError) as err:  # a loaded program asserts its guards
            raise RunnerError(f"the eager model failed: {str(err).splitlines()[0]}") from err
        return {name: value.float().numpy() for name, value in zip(OUTPUTS, outputs, strict=True)}

    def _phases(self, inputs: Arrays) -> dict[str, int]:
        if self._variant != EAGER or self._recognizer.takes_pixels:
            return super()._phases(inputs)
        with torch.inference_mode():
            times = [time.perf_counter_ns()]
            image = torch.tensor(inputs[INPUT])
            times.append(time.perf_counter_ns())
            image = self._recognizer.preprocess(image)
            times.append(time.perf_counter_ns())
            outputs = self._recognizer.decide(image)
            times.append(time.perf_counter_ns())
            for value in outputs:
                value.numpy().copy()
            times.append(time.perf_counter_ns())
        names = ("copy_in", "preprocess", "compute", "copy_out")
        return {name: b - a for name, a, b in zip(names, times, times[1:], strict=False)}


def variant_runner(release: Release, threads: int, variant: str) -> EagerRunner:
    """Return a release's checkpoint in one of VARIANTS.

    Raises:
        UsageError: this checkpoint or this machine cannot run it so.
    """
    checkpoint = load_checkpoint(release.path)
    if variant != EAGER and isinstance(checkpoint.module, torch.fx.GraphModule):
        raise UsageError(f"the backend {variant} cannot be used: a saved program runs as it was traced")
    if variant == "torch-compile" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        raise UsageError(f"the backend {variant} cannot be used: it needs a C++ compiler")
    return EagerRunner(checkpoint, release.spec, threads, variant)
