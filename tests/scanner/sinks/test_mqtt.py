"""A real broker, stopped, restarted, full, closed to us, and with nobody listening."""

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from hwr_export.scanner.sinks import MqttConfig, SinkRefusedError, SinkUnavailableError
from hwr_export.scanner.sinks.delivery import Courier
from hwr_export.scanner.sinks.mqtt import MqttSink
from hwr_export.scanner.spool import Spool
from tests.scanner.fakes import document

TOPIC = "pages/scanner-1"


class Broker:
    """One mosquitto on a port of its own."""

    def __init__(self, folder: Path, settings: str = "allow_anonymous true") -> None:
        program = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/sbin")
        if program is None:
            pytest.fail("the MQTT sink is tested against mosquitto: `apt-get install mosquitto`")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._settings = folder / "mosquitto.conf"
        self._command = [program, "-c", str(self._settings)]
        self._process: subprocess.Popen[bytes] | None = None
        self.start(settings)

    def start(self, settings: str = "allow_anonymous true") -> None:
        self._settings.write_text(f"listener {self.port} 127.0.0.1\nuser root\n{settings}\n")
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert time.monotonic() < deadline, "mosquitto did not start"
                time.sleep(0.02)

    def stop(self, cleanly: bool = False) -> None:
        if self._process is not None:
            self._process.terminate() if cleanly else self._process.kill()
            self._process.wait()
            self._process = None


class Subscriber:
    """Keeps what came, in order."""

    def __init__(self, port: int) -> None:
        self.got: list[tuple[str, dict[str, Any]]] = []
        self._ready = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, client_id="desk", protocol=MQTTProtocolVersion.MQTTv5)
        self._client.on_message = self._keep
        self._client.on_connect = lambda client, *_: client.subscribe(TOPIC, qos=1)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.reconnect_delay_set(1, 1)
        session = Properties(PacketTypes.CONNECT)
        session.SessionExpiryInterval = 3600
        self._client.connect("127.0.0.1", port, clean_start=False, properties=session)
        self._client.loop_start()
        assert self._ready.wait(10)

    def wait_again(self) -> None:
        self._ready.clear()
        assert self._ready.wait(10)

    def wait_for(self, count: int) -> None:
        deadline = time.monotonic() + 10
        while len({key for key, _ in self.got}) < count:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _keep(self, client: Client, data: object, message: MQTTMessage) -> None:
        assert message.properties is not None
        (key,) = [value for name, value in message.properties.UserProperty if name == "idempotency-key"]
        self.got.append((key, json.loads(message.payload)))


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path)
    yield broker
    broker.stop()


def config(port: int, **changes: Any) -> MqttConfig:
    settings = {
        "kind": "mqtt", "name": "bus", "host": "127.0.0.1", "port": port, "topic": TOPIC, "client_id": "scanner-1",
        "tls": False, "timeout_s": 0.5, "first_wait_s": 0.05, "max_wait_s": 0.2,
    }  # fmt: skip
    return MqttConfig.model_validate(settings | changes)


def deliver_when_up(sink: MqttSink, key: str) -> None:
    deadline = time.monotonic() + 15
    while True:
        try:
            sink.deliver({"page": {"id": key}}, key)
            return
        except SinkUnavailableError:
            assert time.monotonic() < deadline


def test_a_publication_is_acknowledged_before_it_counts(broker: Broker) -> None:
    desk = Subscriber(broker.port)
    sink = MqttSink(config(broker.port))
    for key in "abc":
        sink.deliver({"page": {"id": key}, "value": "ä"}, key)
    desk.wait_for(3)
    assert desk.got == [(key, {"page": {"id": key}, "value": "ä"}) for key in "abc"]
    sink.close()
    desk.close()


def test_what_nobody_subscribes_to_is_kept(broker: Broker) -> None:
    """A broker throws such a publication away and acknowledges it; to count it as delivered would lose the page."""
    sink = MqttSink(config(broker.port))
    with pytest.raises(SinkUnavailableError, match=f"nobody subscribes to {TOPIC}, it would be lost"):
        sink.deliver({}, "a")
    desk = Subscriber(broker.port)
    sink.deliver({}, "a")
    desk.wait_for(1)
    desk.close()
    sink.deliver({}, "b")  # its session is kept by the broker, and the page in it
    back = Subscriber(broker.port)
    back.wait_for(1)
    assert back.got == [("b", {})]
    back.close()
    sink.close()


def test_a_broker_that_is_away_is_waited_for(broker: Broker) -> None:
    broker.stop()
    sink = MqttSink(config(broker.port))
    for _ in range(2):
        with pytest.raises(
            SinkUnavailableError, match=f"bus: (127.0.0.1:{broker.port} cannot be reached|not connected)"
        ):
            sink.deliver({}, "a")
    broker.start()
    desk = Subscriber(broker.port)
    deliver_when_up(sink, "b")
    desk.wait_for(1)
    assert [key for key, _ in desk.got] == ["b"]  # nothing of the failed attempts had piled up in the client
    sink.close()
    desk.close()


@pytest.mark.parametrize("cleanly", [True, False])
def test_a_broker_ended_in_between_gets_every_page(tmp_path: Path, broker: Broker, cleanly: bool) -> None:
    """Pages keep coming while the broker ends and starts three times; each is acknowledged, and by key arrives once.

    Stopped, it keeps on its disk what it acknowledged. Killed, it may forget that, which no sender can know of: then
    what arrived is right, and nothing is left waiting or dead with us.
    """
    settings = f"allow_anonymous true\npersistence true\npersistence_location {tmp_path}/"
    broker.stop()
    broker.start(settings)
    desk = Subscriber(broker.port)
    with Spool(tmp_path / "spool", 1000, 1 << 20, ("bus",), reserve_bytes=0) as spool:
        courier = Courier(spool.outbox, config(broker.port), MqttSink(config(broker.port)))
        spool.subscribe(courier.nudge)
        courier.start()
        pages = []
        for _ in range(3):
            for _ in range(15):
                pages.append(spool.add("watch", str(len(pages)), b"x", "png"))
                spool.store_result(pages[-1], document(pages[-1]))
            broker.stop(cleanly)
            time.sleep(0.1)
            broker.start(settings)
            desk.wait_again()
        deadline = time.monotonic() + 10
        while spool.counts().undelivered:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        if cleanly:
            desk.wait_for(len(pages))
        courier.stop()
        courier.join()
        assert spool.outbox.dead_letters() == []
    sent, came = {page.id: document(page) for page in pages}, dict(desk.got)
    assert came.items() <= sent.items() if not cleanly else came == sent
    desk.close()


def test_what_is_on_its_way_is_not_published_anew(broker: Broker) -> None:
    """Deaf for a while: the broker is stopped, not ended. The acknowledgement comes late, for the one publication."""
    desk = Subscriber(broker.port)
    sink = MqttSink(config(broker.port))
    deliver_when_up(sink, "warm")
    assert broker._process is not None
    broker._process.send_signal(19)
    for _ in range(2):
        with pytest.raises(SinkUnavailableError, match=r"no acknowledgement yet \(connected\)"):
            sink.deliver({}, "a")
    broker._process.send_signal(18)
    deliver_when_up(sink, "a")
    desk.wait_for(2)
    time.sleep(0.1)
    assert [key for key, _ in desk.got] == ["warm", "a"]
    sink.close()
    desk.close()


def test_a_broker_that_does_not_let_us_in_says_so(broker: Broker, tmp_path: Path) -> None:
    broker.stop()
    broker.start("allow_anonymous false")
    (tmp_path / "password").write_text("guess\n")
    sink = MqttSink(config(broker.port, username="scanner", password_file=tmp_path / "password"))
    with pytest.raises(SinkUnavailableError, match=r"the broker refuses the connection \(Not authorized\)"):
        sink.deliver({}, "a")
    sink.close()
    sink = MqttSink(config(broker.port, username="scanner", password_file=tmp_path / "none"))
    with pytest.raises(SinkUnavailableError, match="No such file"):
        sink.deliver({}, "a")
    sink.close()


def test_a_topic_that_is_not_ours_is_no_fault_of_the_page(broker: Broker, tmp_path: Path) -> None:
    broker.stop()
    (tmp_path / "acl").write_text("topic read #\ntopic write elsewhere\n")
    broker.start(f"allow_anonymous true\nacl_file {tmp_path / 'acl'}")
    sink = MqttSink(config(broker.port))
    with pytest.raises(SinkUnavailableError, match=r"the broker answered Not authorized"):
        sink.deliver({}, "a")
    sink.close()


def test_a_page_larger_than_the_broker_takes_is_a_dead_letter(broker: Broker) -> None:
    broker.stop()
    broker.start("allow_anonymous true\nmax_packet_size 500")
    desk = Subscriber(broker.port)
    sink = MqttSink(config(broker.port))
    with pytest.raises(SinkRefusedError, match=r"bytes are more than the 500 that the broker takes"):
        sink.deliver({"page": "x" * 500}, "a")
    sink.deliver({"page": "small"}, "b")
    desk.wait_for(1)
    sink.close()
    desk.close()


# The client drops a socket whose handshake failed without closing it; the collector does.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_only_a_broker_with_a_trusted_certificate_gets_pages(broker: Broker, certificates: Path) -> None:
    broker.stop()
    broker.start(f"allow_anonymous true\ncertfile {certificates}/server.pem\nkeyfile {certificates}/server.key")
    trusting = MqttSink(config(broker.port, tls=True, ca_file=certificates / "ca.pem"))
    with pytest.raises(SinkUnavailableError, match="nobody subscribes"):
        trusting.deliver({}, "a")
    trusting.close()
    sink = MqttSink(config(broker.port, tls=True))
    with pytest.raises(SinkUnavailableError, match=r"cannot be reached|not connected yet"):
        sink.deliver({}, "a")
    sink.close()
    sink = MqttSink(config(broker.port, tls=True, ca_file=certificates / "none.pem"))
    with pytest.raises(SinkUnavailableError, match=r"bus: .*No such file"):
        sink.deliver({}, "a")
    sink.close()
