"""Where results go: one file a kind behind `Sink`, each driven by a thread of its own (delivery.py).

`deliver` returns only when the other side has the document for good. A crash between that and the spool's mark sends it
again: a folder of JSON lines knows what it has, receivers of HTTP and MQTT tell by the key, the page's id.
"""

from typing import Any, Protocol

from hwr_export.errors import ScannerError
from hwr_export.scanner.sinks.settings import HttpConfig, JsonlConfig, MqttConfig, SinkConfig, Sinks


class SinkUnavailableError(ScannerError):
    """Not now: try later, after `retry_after_s` where the other side said so. Carries no read value."""

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class SinkRefusedError(ScannerError):
    """Not this document, now or later. Carries no read value."""


class Sink(Protocol):
    def deliver(self, document: dict[str, Any], key: str) -> None:
        """Return once the other side has it; raise SinkUnavailableError or SinkRefusedError otherwise."""

    def close(self) -> None:
        """Let go of connections; `deliver` is not called any more."""


def open_sink(config: SinkConfig) -> Sink:
    """Return the sink of a configuration; nothing is connected to before the first delivery."""
    if isinstance(config, JsonlConfig):
        from hwr_export.scanner.sinks.jsonl import JsonlSink

        return JsonlSink(config)
    if isinstance(config, HttpConfig):
        from hwr_export.scanner.sinks.http import HttpSink

        return HttpSink(config)
    from hwr_export.scanner.sinks.mqtt import MqttSink

    return MqttSink(config)


__all__ = ["HttpConfig", "JsonlConfig", "MqttConfig", "Sink", "SinkConfig", "Sinks", "open_sink"]
