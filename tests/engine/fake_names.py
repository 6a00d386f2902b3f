"""Objects of TensorRT's that know only the names of `trt_api.json`, by version; any other raises AttributeError."""

import json
from pathlib import Path
from typing import Any

from hwr_export.engine.targets import RTX_CAPABILITIES

TABLE: dict[str, dict[str, bool]] = json.loads((Path(__file__).parent / "trt_api.json").read_text())


class Member(int):
    """A value of an enumeration; it equals itself alone."""

    def __new__(cls, number: int, name: str) -> "Member":
        made = int.__new__(cls, number)
        made.label = name
        return made


def known(version: str, holder: str) -> list[str]:
    """Return the names that a class has in a version."""
    if holder == "ComputeCapability":  # its members are asked for by name, which no table of our code can hold
        return [capability.upper() for capability in RTX_CAPABILITIES] if TABLE[holder][version] else []
    prefix = f"{holder}."
    return [name.removeprefix(prefix) for name, has in TABLE.items() if name.startswith(prefix) and has[version]]


class Named:
    """An object of TensorRT's: its public names are those of the table, and every use of one is written down.

    A method that is real and has no meaning here answers True.
    """

    def __init__(self, trt: Any, holder: str) -> None:
        self._trt, self._holder = trt, holder
        self._values: dict[str, Any] = {}

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_"):
            object.__getattribute__(self, "_check")(name)
        return object.__getattribute__(self, name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        self._check(name)  # Python asks here too after an AttributeError
        return self._values.get(name, lambda *_: True)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            object.__setattr__(self, name, value)
        else:
            self._check(name)
            self._values[name] = value

    def _check(self, name: str) -> None:
        if name not in known(self._trt._version, self._holder):
            raise AttributeError(f"{self._trt._version}: {self._holder} has no {name!r}")
        self._trt._calls.append(f"{self._holder}.{name}")


class Enumeration(Named):
    def __getattr__(self, name: str) -> Member:
        if name.startswith("_"):
            raise AttributeError(name)
        self._check(name)
        return Member(known(self._trt._version, self._holder).index(name) + 1, name)
