"""Documents to one topic of a broker, QoS 1 by MQTT 5, each acknowledged by the broker before it counts.

At least once, with the page's id in the user property `idempotency-key`. The session is kept: what was published when
the connection broke is resent by the client under its number, not published anew. A publication that no one subscribes
to would be thrown away by the broker, which says so: it is tried later.
"""

import json
import threading
from typing import Any

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from hwr_export.scanner.sinks import SinkRefusedError, SinkUnavailableError
from hwr_export.scanner.sinks.settings import MqttConfig

_SESSION_S = 24 * 3600
_KEEPALIVE_S = 30
_NO_SUBSCRIBERS = 0x10
# Topic name invalid, packet too large, payload format invalid: they judge the document, all else the moment.
_FINAL = {0x90, 0x95, 0x99}
_HEADER_BYTES = 64  # at most, besides topic, key and payload


class MqttSink:
    def __init__(self, config: MqttConfig) -> None:
        self._config = config
        self._client: Client | None = None
        self._changed = threading.Condition()
        # Guarded by `_changed`; the client's own thread fills them.
        self._connected = False
        self._why = "not connected yet"
        self._max_packet_bytes: int | None = None
        self._answers: dict[int, ReasonCode] = {}
        self._in_flight: dict[str, int] = {}  # key -> message number

    def deliver(self, document: dict[str, Any], key: str) -> None:
        """Publish, unless it is on its way, and wait for the broker's acknowledgement."""
        try:
            if self._client is None:
                self._client = self._open()
            number = self._in_flight[key] if key in self._in_flight else self._publish(self._client, document, key)
        except (OSError, ValueError) as err:
            raise SinkUnavailableError(f"{self._config.name}: {err}") from err
        with self._changed:
            self._changed.wait_for(lambda: number in self._answers, self._config.timeout_s)
            if number not in self._answers:
                raise SinkUnavailableError(f"{self._config.name}: no acknowledgement yet ({self._why})")
            reason = self._answers.pop(number)
            del self._in_flight[key]
        if reason.value in _FINAL:
            raise SinkRefusedError(f"{self._config.name}: the broker answered {reason}")
        if reason.value == _NO_SUBSCRIBERS:
            raise SinkUnavailableError(
                f"{self._config.name}: nobody subscribes to {self._config.topic}, it would be lost"
            )
        if reason.is_failure:
            raise SinkUnavailableError(f"{self._config.name}: the broker answered {reason}")

    def close(self) -> None:
        """Disconnect; the broker keeps the session."""
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()
            self._client = None

    def _open(self) -> Client:
        config = self._config
        client = Client(CallbackAPIVersion.VERSION2, client_id=config.client_id, protocol=MQTTProtocolVersion.MQTTv5)
        if config.tls:
            ca_file, cert_file, key_file = (
                None if path is None else str(path) for path in (config.ca_file, config.cert_file, config.key_file)
            )
            client.tls_set(ca_certs=ca_file, certfile=cert_file, keyfile=key_file)
        if config.username is not None:
            password = None if config.password_file is None else config.password_file.read_text().strip()
            client.username_pw_set(config.username, password)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_connect_fail, client.on_publish = self._on_connect_fail, self._on_publish
        client.reconnect_delay_set(1, max(1, int(config.max_wait_s)))
        session = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        session.SessionExpiryInterval = _SESSION_S
        client.connect_async(config.host, config.port, _KEEPALIVE_S, clean_start=False, properties=session)
        client.loop_start()
        return client

    def _publish(self, client: Client, document: dict[str, Any], key: str) -> int:
        payload = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
        with self._changed:
            # Nothing is left with the client while it has no connection: it would pile up there.
            if not self._changed.wait_for(lambda: self._connected, self._config.timeout_s):
                raise SinkUnavailableError(f"{self._config.name}: {self._why}")
            limit = self._max_packet_bytes
        size = len(payload) + len(self._config.topic.encode()) + len(key) + _HEADER_BYTES
        if limit is not None and size > limit:
            raise SinkRefusedError(
                f"{self._config.name}: {size:,} bytes are more than the {limit:,} that the broker takes"
            )
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.UserProperty = ("idempotency-key", key)
        info = client.publish(self._config.topic, payload, qos=1, properties=properties)
        if info.rc not in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_NO_CONN):
            raise SinkUnavailableError(f"{self._config.name}: the client could not send ({info.rc})")
        self._in_flight[key] = info.mid
        return info.mid

    def _on_connect(
        self, _client: Client, _data: object, _flags: ConnectFlags, reason: ReasonCode, found: Properties | None
    ) -> None:
        with self._changed:
            self._connected = not reason.is_failure
            self._why = f"the broker refuses the connection ({reason})" if reason.is_failure else "connected"
            self._max_packet_bytes = getattr(found, "MaximumPacketSize", None)
            self._changed.notify_all()

    def _on_connect_fail(self, _client: Client, _data: object) -> None:
        with self._changed:
            self._why = f"{self._config.host}:{self._config.port} cannot be reached"

    def _on_disconnect(
        self, _client: Client, _data: object, _flags: DisconnectFlags, reason: ReasonCode, _found: Properties | None
    ) -> None:
        with self._changed:
            if self._connected:  # else it was refused, and that is what to tell
                self._why = f"the connection ended ({reason})"
            self._connected = False

    def _on_publish(self, _client: Client, _data: object, number: int, reason: ReasonCode, _found: Properties) -> None:
        with self._changed:
            self._answers[number] = reason
            self._changed.notify_all()
