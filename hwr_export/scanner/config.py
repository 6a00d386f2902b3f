"""`scan.toml` -> what the service does, every key known, valid and described; relative paths lie beside the file."""

import sys
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator
from typing_extensions import Self

from hwr_export.errors import UsageError
from hwr_export.scanner.form.page_kind import FormConfig
from hwr_export.scanner.grid import GridConfig
from hwr_export.scanner.page import CropConfig
from hwr_export.scanner.sinks import Sinks
from hwr_export.scanner.sources.sane import SaneConfig
from hwr_export.scanner.sources.stdin import StdinConfig
from hwr_export.scanner.sources.watch import WatchConfig
from hwr_export.scanner.spool import SpoolConfig
from hwr_export.spec import Strict

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SourceConfig = Annotated[SaneConfig | WatchConfig | StdinConfig, Field(discriminator="kind")]
PageConfig = Annotated[CropConfig | GridConfig | FormConfig, Field(discriminator="kind")]


class ScanConfig(Strict):
    """The whole file."""

    root: Path = Field(Path("/var/lib/hwr-scan"), description="The device's releases, as `hwr-scan install` fills it.")
    threads: int = Field(1, ge=1, le=64, description="Threads of the model.")
    health: Path = Field(
        Path("/run/hwr-scan/health.json"), description="File that says how the service is; best on a memory disk."
    )
    drain_s: float = Field(
        30.0, ge=0, description="Seconds that an ending service takes to read and deliver what it has; the rest waits."
    )
    page: PageConfig = Field(CropConfig(), description="How a page is read.")
    spool: SpoolConfig = Field(description="Where pages are safe.")
    sources: tuple[SourceConfig, ...] = Field(min_length=1, description="Where pages come from.")
    sinks: Sinks = Field(min_length=1, description="Where results go; a folder of JSON lines keeps them on the device.")

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [source.name for source in self.sources]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two sources are called {min(twice)!r}: give each a `name` of its own")
        if sum(source.kind == "stdin" for source in self.sources) > 1:
            raise ValueError("there is one standard input: give one source of kind `stdin` at most")
        return self


def load_config(path: Path) -> ScanConfig:
    """Read and check a file.

    Raises:
        UsageError: it is missing, no TOML, or a key is unknown or has no valid value.
    """
    try:
        found = tomllib.loads(path.read_text())
    except OSError as err:
        raise UsageError(f"{path} cannot be read: {err.strerror}; docs/scanning.md shows one to begin with") from err
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise UsageError(f"{path} is not TOML: {err}") from err
    try:
        config = ScanConfig.model_validate(found)
    except ValidationError as err:
        raise UsageError(f"{path}: {'; '.join(_said(e) for e in err.errors(include_url=False))}") from err
    anchored: ScanConfig = _anchored(config, path.parent.resolve())
    return anchored


def _said(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"]) or "the file"
    if error["type"] == "extra_forbidden":
        return f"{where} is no key; docs/scan-config.md lists them"
    return f"{where}: {error['msg'].removeprefix('Value error, ')}"


def _anchored(value: Any, folder: Path) -> Any:
    """Return a document whose relative paths lie in `folder`."""
    if isinstance(value, Strict):
        return value.model_copy(update={name: _anchored(part, folder) for name, part in value})
    if isinstance(value, tuple):
        return tuple(_anchored(part, folder) for part in value)
    return folder / value if isinstance(value, Path) else value
