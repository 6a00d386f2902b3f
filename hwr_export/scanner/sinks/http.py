"""Documents to one address, each as a POST with the page's id as Idempotency-Key.

At least once: where an answer is lost the same key comes again, and the receiver has to tell by it. An answer that
judges the document is final; one that speaks of the moment, or none, means later. No redirect or proxy is followed.
"""

import json
from email.utils import parsedate_to_datetime
from typing import Any

import urllib3

from hwr_export.scanner.sinks import SinkRefusedError, SinkUnavailableError
from hwr_export.scanner.sinks.settings import HttpConfig

# Request timeout, conflict (the same key is being worked on), too early, too many requests.
_LATER = {408, 409, 425, 429}
_LONGEST_WAIT_S = 3600.0
_ANSWER_BYTES = 1 << 16


class HttpSink:
    def __init__(self, config: HttpConfig) -> None:
        self._config = config
        timeout = urllib3.Timeout(connect=config.timeout_s, read=config.timeout_s)
        ca_file = None if config.ca_file is None else str(config.ca_file)
        self._pool = urllib3.PoolManager(retries=False, timeout=timeout, ca_certs=ca_file, cert_reqs="CERT_REQUIRED")

    def deliver(self, document: dict[str, Any], key: str) -> None:
        """Post once."""
        try:
            headers = {"Content-Type": "application/json", "Idempotency-Key": key}
            if self._config.token_file is not None:
                headers["Authorization"] = f"Bearer {self._config.token_file.read_text().strip()}"
            body = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
            answer = self._pool.request(
                "POST", self._config.url, body=body, headers=headers, preload_content=False, redirect=False
            )
        except (urllib3.exceptions.HTTPError, OSError, UnicodeError) as err:
            raise SinkUnavailableError(f"{self._config.name}: no answer ({type(err).__name__}: {err})") from err
        _finish(answer)
        said = f"{self._config.name}: the receiver answered {answer.status} {answer.reason or ''}".rstrip()
        if answer.status in _LATER or answer.status >= 500:
            raise SinkUnavailableError(said, _retry_after_s(answer.headers))
        if not 200 <= answer.status < 300:
            raise SinkRefusedError(said)

    def close(self) -> None:
        """Close kept connections."""
        self._pool.clear()


def _finish(answer: urllib3.BaseHTTPResponse) -> None:
    """Read what else was said, so that the connection serves the next page; too much or too slow, and it is closed."""
    try:
        answer.read(_ANSWER_BYTES, decode_content=False)
        whole = not answer.read(1, decode_content=False)
    except (urllib3.exceptions.HTTPError, OSError):
        whole = False  # the status has been read, and it is what counts
    if whole:
        answer.release_conn()
    else:
        answer.close()


def _retry_after_s(headers: urllib3.HTTPHeaderDict) -> float:
    """Return the wait that was asked for; a date is compared with the receiver's own clock, not with ours."""
    asked = headers.get("Retry-After", "").strip()
    if asked.isdecimal() and len(asked) < 10:
        return min(float(asked), _LONGEST_WAIT_S)
    try:
        wait = parsedate_to_datetime(asked) - parsedate_to_datetime(headers.get("Date", ""))
    except (TypeError, ValueError):
        return 0.0
    return min(max(wait.total_seconds(), 0.0), _LONGEST_WAIT_S)
