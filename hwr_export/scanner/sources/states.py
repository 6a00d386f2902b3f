"""What a source can be in, and what a person does about it: the words of the health file, of `status` and of the logs.

A state is set by the source alone and read by others; its advice is empty where nobody has to do anything.
"""

import time
from dataclasses import dataclass

STATES = {
    "starting": "",
    "waiting": "",
    "receiving": "",
    "ended": "",
    "no-paper": "put paper into the feeder",
    "paper-jam": "open the feeder, take the jammed sheet out, put it back with those not yet read, close the feeder",
    "cover-open": "close the scanner's cover",
    "device-error": "check the scanner's cable and power; switch it off and on if it stays so",
    "busy": "another program uses the scanner: end it, or wait",
    "no-access": "let the service's user use the device: a udev rule, or the group `scanner`",
    "missing": "connect and switch on the scanner; `scanimage -L` must list the configured device",
    "no-folder": "create or mount the watched folder, and let the service's user read and change it",
    "no-program": "install scanimage: apt install sane-utils",
    "unreadable-file": "let the service's user read the file that `detail` names, or take it away",
    "fault": "see `detail`; the scanner answered what nobody foresaw",
    "held": "let the service's user change the folder that pages come from: a page is safe, but cannot be acknowledged",
    "spool-full": "see which sink is down or has dead letters, or raise the spool's limits",
    "disk-full": "free some space on the spool's disk",
    "read-only": "make the spool's disk writable again; a worn-out card turns read-only by itself",
    "disk-error": "look into the kernel's log: the spool's card or a cable may be failing",
}
# What no page comes out of until a person acts; all of these end by themselves once the cause is gone.
NEEDS_A_PERSON = frozenset(state for state, advice in STATES.items() if advice) - {"no-paper", "busy"}


@dataclass(frozen=True)
class Condition:
    """A source's state, since when (Unix time, s), and a detail that is not in the state's name."""

    state: str
    detail: str
    since: float

    @property
    def advice(self) -> str:
        return STATES[self.state]


def condition(state: str, detail: str = "") -> Condition:
    """Return a state that begins now."""
    return Condition(state, detail, time.time())
