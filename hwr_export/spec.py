"""What a reader must know about a model to feed it and to believe it. Torch-free, carried in the manifest.

The graph's contract is fixed for every release: input `image`, uint8 (N, H, W), raw pixels, white ink on black;
outputs `logits` float32 (N, classes) and `probabilities` float32 (N, classes); N is the dynamic axis `batch`.
"""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from hwr_export.errors import UsageError
from hwr_export.labels import check_labels, labels_sha256

INPUT = "image"
LOGITS = "logits"
PROBABILITIES = "probabilities"
OUTPUTS = (LOGITS, PROBABILITIES)
BATCH_AXIS = "batch"


def _usable(labels: str) -> str:
    try:
        return check_labels(labels)
    except UsageError as err:
        raise ValueError(str(err)) from err


LabelSet = Annotated[str, AfterValidator(_usable)]


class Strict(BaseModel):
    """Base of every document we read: unknown keys are refused, values are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, ser_json_inf_nan="constants")


def first_problem(err: ValidationError) -> str:
    """Return where a document is not what it should be, and why, in a few words without the document's own."""
    first = err.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"])) or "document"
    return f"{where}: {first['msg']}"


class Preprocessing(Strict):
    """From raw pixels to what the network sees: (pixel / 255 - mean) / std, repeated over `channels`."""

    height: int = Field(28, ge=1, le=4096)
    width: int = Field(28, ge=1, le=4096)
    channels: int = Field(1, ge=1, le=3)
    mean: float = 0.0
    std: float = Field(1.0, gt=0)
    polarity: str = Field("white-on-black", pattern="^white-on-black$")


class ModelSpec(Strict):
    """Label set, preprocessing, calibration and limits of one model."""

    labels: LabelSet
    preprocessing: Preprocessing
    temperature: float = Field(1.0, gt=0)
    reject_below: float = Field(0.0, ge=0, le=1)
    max_batch: int = Field(256, ge=2, le=65536)
    parameters: int = Field(ge=0)

    @property
    def labels_sha256(self) -> str:
        return labels_sha256(self.labels)

    @property
    def image_shape(self) -> tuple[int, int]:
        return self.preprocessing.height, self.preprocessing.width
