"""Every failure a user can meet.

    HwrError                 exit code 1: it was tried, and the answer is no
    ├── UsageError           exit code 2: the words given do not fit together
    ├── DataError            exit code 2: a dataset is missing, broken or not what it claims
    ├── ImageError           exit code 2: an image cannot be read
    ├── CheckpointError      exit code 2: weights, architecture or checkpoint file do not fit
    ├── ReleaseError         exit code 2: a directory is no release, or a file in it is unusable
    ├── ExportError          exit code 1: the model cannot become a faithful ONNX file
    ├── QuantizationError    exit code 1: the model cannot be quantised as asked
    ├── EngineError          exit code 1: no engine came out of the builder
    ├── RunnerError          exit code 1: a backend cannot run the model as asked
    ├── ParityError          exit code 1: the comparison could not be made
    ├── BundleError          exit code 1: an archive cannot be packed, verified or installed
    ├── FormError            exit code 2: a form definition or page cannot be used
    └── ScannerError         exit code 1: a scanner or its service failed

A message says what failed, what was found, what was expected and what to do next.
"""

from typing import ClassVar


class HwrError(Exception):
    """An expected failure: printed as one paragraph, without a traceback."""

    exit_code: ClassVar[int] = 1


class UsageError(HwrError):
    exit_code = 2


class DataError(HwrError):
    exit_code = 2


class ImageError(HwrError):
    exit_code = 2


class CheckpointError(HwrError):
    exit_code = 2


class ReleaseError(HwrError):
    exit_code = 2


class ExportError(HwrError):
    pass


class QuantizationError(HwrError):
    pass


class EngineError(HwrError):
    pass


class RunnerError(HwrError):
    pass


class ParityError(HwrError):
    pass


class BundleError(HwrError):
    pass


class FormError(HwrError):
    exit_code = 2


class ScannerError(HwrError):
    pass
