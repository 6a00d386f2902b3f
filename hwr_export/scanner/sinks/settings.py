"""What a person says about each sink in scan.toml. Secrets are named by the file they are in, never written there."""

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator
from typing_extensions import Self

from hwr_export.spec import Strict


class _Config(Strict):
    """What all sinks share: a name, by which the spool knows their place, and waits that double up to the longest."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]{0,39}$", description="Name in the spool, in logs and in `status`; unique."
    )
    first_wait_s: float = Field(1.0, gt=0, description="Seconds until the second attempt; each wait doubles.")
    max_wait_s: float = Field(60.0, gt=0, description="Seconds that no wait exceeds.")

    @model_validator(mode="after")
    def _waits(self) -> Self:
        if self.first_wait_s > self.max_wait_s:
            raise ValueError(f"first_wait_s {self.first_wait_s:g} is longer than max_wait_s {self.max_wait_s:g}")
        return self


class JsonlConfig(_Config):
    """A folder of files of JSON lines; only the one with the highest number is still written."""

    kind: Literal["jsonl"]
    directory: Path = Field(description="Folder of the files, this sink's own.")
    max_file_bytes: int = Field(8 << 20, ge=1, description="Bytes of a file, above which the next one begins.")


class HttpConfig(_Config):
    """A POST for each page."""

    kind: Literal["http"]
    url: str = Field(description="Address, https:// unless it is this machine's.")
    token_file: Path | None = Field(None, description="File with a token, sent as `Authorization: Bearer`.")
    ca_file: Path | None = Field(None, description="Certificates to trust instead of the system's.")
    timeout_s: float = Field(10.0, gt=0, description="Seconds for a connection, and for an answer.")
    plain: bool = Field(False, description="Allow http:// to another machine: anybody on the way can read the pages.")

    @model_validator(mode="after")
    def _address(self) -> Self:
        found = urlsplit(self.url)
        if found.scheme not in ("http", "https") or not found.hostname:
            raise ValueError(f"{self.url!r} is no address; https://host/path was expected")
        if found.username or found.password:
            raise ValueError(
                "a password in `url` would stand in every log; put a token into a file and name it token_file"
            )
        if found.scheme == "http" and not self.plain and not _is_here(found.hostname):
            raise ValueError(f"{self.url!r} is not encrypted: use https://, or say `plain = true` if that is meant")
        return self


class MqttConfig(_Config):
    """A publication with QoS 1 for each page, by MQTT 5: earlier versions cannot say that nobody listened."""

    kind: Literal["mqtt"]
    host: str = Field(min_length=1, description="Name or address of the broker.")
    port: int = Field(8883, ge=1, le=65535, description="Its port.")
    topic: str = Field(
        min_length=1, max_length=1024, pattern=r"^[^+#\x00]+$", description="What is published to; no wildcards."
    )
    client_id: str = Field(min_length=1, max_length=64, description="Name at the broker; one client at a time has it.")
    tls: bool = Field(True, description="Encrypt; without, anybody on the way can read the pages.")
    ca_file: Path | None = Field(None, description="Certificates to trust instead of the system's.")
    cert_file: Path | None = Field(None, description="This device's certificate.")
    key_file: Path | None = Field(None, description="Its private key.")
    username: str | None = Field(None, description="Name to log in with.")
    password_file: Path | None = Field(None, description="File with the password.")
    timeout_s: float = Field(10.0, gt=0, description="Seconds for a connection, and for an acknowledgement.")

    @model_validator(mode="after")
    def _encryption(self) -> Self:
        if not self.tls and (self.ca_file or self.cert_file or self.key_file):
            raise ValueError("certificates are named, but tls is false")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together")
        return self


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _distinct(sinks: "tuple[SinkConfig, ...]") -> "tuple[SinkConfig, ...]":
    names = [sink.name for sink in sinks]
    folders = [str(sink.directory.absolute()) for sink in sinks if isinstance(sink, JsonlConfig)]
    clients = [sink.client_id for sink in sinks if isinstance(sink, MqttConfig)]
    for what, found in (("name", names), ("directory", folders), ("client_id", clients)):
        twice = {value for value in found if found.count(value) > 1}
        if twice:
            raise ValueError(f"two sinks have the {what} {min(twice)!r}; each needs its own")
    return sinks


SinkConfig = Annotated[JsonlConfig | HttpConfig | MqttConfig, Field(discriminator="kind")]
Sinks = Annotated[tuple[SinkConfig, ...], AfterValidator(_distinct)]
