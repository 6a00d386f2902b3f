"""Definitions of forms that are none, or nearly some: each by its number alone."""

import copy
import json
import random
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import yaml

from tests.scanner.form.hostile import EXAMPLE, Hostile

VALUES = (
    *(
        None,
        True,
        -1,
        0,
        1,
        1e-300,
        1e308,
        10**400,
        float("nan"),
        float("inf"),
        "",
        "x" * 5000,
        "\0",
        "é\u202e",
        "2026-13-40",
    ),
    *([], {}, [[]], {"kind": "digits"}, [1] * 1000, "*a", "!!python/object:os.system"),
)


def hostile_form(number: int, seed: int) -> Hostile:
    """Return a definition."""
    rng = random.Random(f"{seed} form {number}")
    what = rng.choices(list(FORMS), weights=[weight for weight, _ in FORMS.values()])[0]
    return Hostile(what, f"{number:05}.yaml", FORMS[what][1](rng))


@lru_cache(maxsize=1)
def _good() -> dict[str, Any]:
    return yaml.safe_load(EXAMPLE.read_text())


def _dump(document: Any, rng: random.Random) -> bytes:
    try:
        as_json = rng.random() < 0.3
        return (json.dumps(document, default=str) if as_json else yaml.safe_dump(document, sort_keys=False)).encode(
            "utf-8", "surrogatepass"
        )
    except (ValueError, yaml.YAMLError):
        return repr(document).encode("utf-8", "surrogatepass")


def _moved(rng: random.Random) -> bytes:
    """Fields that lie on one another, on a mark or outside."""
    form = copy.deepcopy(_good())
    for field in rng.sample(form["fields"], rng.randint(1, 5)):
        field["x"], field["y"] = rng.choice((0, 15, 150, 205, 2000, 95.5)), rng.choice((0, 12, 113, 280, 296, 1999))
        if "boxes" in field and rng.random() < 0.5:
            field |= {"boxes": rng.choice((1, 40, 64))}
            field.pop("groups", None)
    return _dump(form, rng)


def _changed(rng: random.Random) -> bytes:
    """A value somewhere is another."""
    form = copy.deepcopy(_good())
    for _ in range(rng.choice((1, 1, 3))):
        node: Any = form
        while isinstance(node, dict | list) and node:
            key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
            if not isinstance(node[key], dict | list) or rng.random() < 0.2:
                if rng.random() < 0.15 and isinstance(node, dict):
                    node[str(rng.choice(VALUES))] = node.pop(key)
                else:
                    node[key] = rng.choice(VALUES)
                break
            node = node[key]
    return _dump(form, rng)


def _bytes(rng: random.Random) -> bytes:
    data = bytearray(EXAMPLE.read_bytes())
    for _ in range(rng.choice((1, 3, 20))):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data[: rng.randrange(len(data))] if rng.random() < 0.3 else data)


def _deep(rng: random.Random) -> bytes:
    depth = rng.choice((13, 900, 90_000))
    return rng.choice(
        (
            b"[" * depth,
            b"{" * depth,
            b"{a: " * depth,
            b'{"a": ' * depth,
            b"- " * depth + b"x",
            b"".join(b" " * n + b"a:\n" for n in range(min(depth, 600))),
        )
    )


def _laughing(rng: random.Random) -> bytes:
    lines = ["a0: &a0 [lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, rng.choice((2, 9, 30)))]
    return "\n".join(lines).encode()


def _large(rng: random.Random) -> bytes:
    count = rng.choice((401, 3_000))
    fields = ", ".join(f"{{kind: checkbox, name: f{n}, x: {n % 30 * 7}, y: {n // 30 * 7}}}" for n in range(count))
    return f"schema: 1\nid: large\nmarks: {{kind: none}}\nfields: [{fields}]".encode() * rng.choice((1, 3))


def _random(rng: random.Random) -> bytes:
    return rng.choice((b"", b"\xff\xfe", b"--- !<x> ", b"%YAML 9.9\n---\n", b"? ", b"&a *a")) + rng.randbytes(
        rng.choice((0, 9, 900))
    )


FORMS: dict[str, tuple[float, Callable[[random.Random], bytes]]] = {
    "overlapping or outside": (30, _moved),
    "wrong values": (40, _changed),
    "wrong bytes": (15, _bytes),
    "deep": (4, _deep),
    "referring to itself": (3, _laughing),
    "large": (3, _large),
    "random bytes": (5, _random),
}
