"""The eager PyTorch model: the baseline that everything else is compared with. The one runner that imports torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from hwr_export.checkpoint import Checkpoint, load_checkpoint
from hwr_export.errors import RunnerError
from hwr_export.program import Recognizer, program_from_network
from hwr_export.runners import Arrays, Runner
from hwr_export.spec import INPUT, OUTPUTS, ModelSpec


class EagerRunner(Runner):
    backend = "torch"

    def __init__(self, checkpoint: Checkpoint, spec: ModelSpec, threads: int = 1) -> None:
        super().__init__(spec, threads)
        self._recognizer = Recognizer(checkpoint.module, spec)

    @classmethod
    def from_release(cls, path: Path, spec: ModelSpec, threads: int = 1) -> Self:
        """Load the checkpoint that lies in a release directory."""
        return cls(load_checkpoint(path), spec, threads)

    def preprocess(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 (N, H, W) -> float32 (N, C, H, W), as the network sees it."""
        with torch.inference_mode():
            return np.asarray(self._recognizer.preprocess(torch.tensor(images)).numpy(), dtype=np.float32)

    def logits_float64(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """Return float64 logits (N, classes) of the same weights.

        A program may have float32 written into its graph; then its float32 logits are all there is.
        """
        size = self.spec.max_batch
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

    def _infer(self, inputs: Arrays) -> Arrays:
        try:
            with torch.inference_mode():
                outputs = self._recognizer(torch.tensor(inputs[INPUT]))
        except (RuntimeError, AssertionError) as err:  # a loaded program asserts its guards
            raise RunnerError(f"the eager model failed: {str(err).splitlines()[0]}") from err
        return {name: value.numpy() for name, value in zip(OUTPUTS, outputs, strict=True)}
