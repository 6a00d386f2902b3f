"""The eager PyTorch model: the baseline that everything else is compared with. The one runner that imports torch."""

from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch

from hwr_export.checkpoint import Checkpoint, load_checkpoint
from hwr_export.errors import RunnerError
from hwr_export.program import Recognizer
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

    def _open(self) -> None:
        torch.set_num_threads(self.threads)

    def _infer(self, inputs: Arrays) -> Arrays:
        try:
            with torch.inference_mode():
                outputs = self._recognizer(torch.tensor(inputs[INPUT]))
        except (RuntimeError, AssertionError) as err:  # a loaded program asserts its guards
            raise RunnerError(f"the eager model failed: {str(err).splitlines()[0]}") from err
        return {name: value.numpy() for name, value in zip(OUTPUTS, outputs, strict=True)}
