"""What is kept on a device beside releases: `slot.json` in a slot, written once, and `state.json`, which changes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from hwr_export.errors import ScannerError
from hwr_export.files import json_bytes
from hwr_export.spec import Strict, first_problem

Slot = Literal["a", "b"]
SLOTS: tuple[Slot, ...] = ("a", "b")
Target = Literal["cpu", "native"]  # an ONNX file as it came, or a plan that this device's GPU built from it
_Read = TypeVar("_Read", bound="Document")


class Document(Strict):
    """One JSON file."""

    schema_version: Literal[1] = Field(1, alias="schema")

    def to_json(self) -> bytes:
        """Return the file's content."""
        return json_bytes(self.document())

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        return self.model_dump(mode="json", by_alias=True)

    @classmethod
    def load(cls: type[_Read], path: Path) -> _Read:
        """Read a file.

        Raises:
            ScannerError: missing, or not what this version writes.
        """
        try:
            return cls.model_validate(json.loads(path.read_bytes()))
        except OSError as err:
            raise ScannerError(f"{path} cannot be read: {err.strerror}; install the release again") from err
        except ValidationError as err:
            raise ScannerError(f"{path} is not what was written: {first_problem(err)}; it was changed") from err
        except (ValueError, RecursionError) as err:
            raise ScannerError(f"{path} is not JSON: {err}; it was changed or damaged") from err


class SlotRecord(Document):
    """`slot.json`: what was installed, who vouched for it, and what is to run it.

    `installation` is of this one act of installing: counts of another do not apply. `bundle_sha256` is of the archive's
    index, which has the hash of every file; `manifest_sha256` of the release as it lies in the slot, with the plan that
    was built here if there is one. `file` is what runs: an ONNX file or a plan.
    """

    installation: str = Field(pattern=r"^[0-9a-f]{32}$")
    name: str
    version: str
    bundle_sha256: str
    manifest_sha256: str
    signer: str | None  # None: nobody, and it was installed with --allow-unsigned
    target: Target
    backend: str
    precision: str
    file: str
    installed_at: str

    @property
    def title(self) -> str:
        """Return the name and version for people."""
        return f"{self.name} {self.version}"


class SlotState(Strict):
    """How an installation fares: starts in a row that failed or never finished, why, and whether it was given up."""

    installation: str
    failures: int = Field(0, ge=0)
    reason: str = ""
    given_up: bool = False


class State(Document):
    """`state.json`: the slots' fortunes, and the slot that last passed its self-test."""

    slots: Mapping[Slot, SlotState] = Field(default_factory=dict)
    last_good: Slot | None = None

    def of(self, slot: Slot, installation: str) -> SlotState:
        """Return the state of an installation; of one that replaced another, that of a new one."""
        found = self.slots.get(slot)
        return found if found and found.installation == installation else SlotState(installation=installation)

    def having(self, slot: Slot, state: SlotState, last_good: Slot | None = None) -> "State":
        """Return the state with that of one slot replaced."""
        return self.model_copy(update={"slots": {**self.slots, slot: state}, "last_good": last_good or self.last_good})
