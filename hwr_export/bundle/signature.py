"""Archive + key -> detached signature; archive + signature + trusted keys -> who signed it.

Signatures are those of OpenSSF's model-signing (a DSSE envelope in a Sigstore bundle) over the hashes of all files of
an archive, so its own tool verifies an unpacked one. Signing takes its library; verifying takes `cryptography` alone,
as a device has no room for the rest, and reaches no network.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hwr_export.bundle.archive import check, unpack
from hwr_export.bundle.envelope import MAX_SIGNATURE_BYTES, Envelope
from hwr_export.bundle.index import INDEX, BundleIndex
from hwr_export.errors import BundleError, UsageError
from hwr_export.files import sha256_bytes, write_atomic

SUFFIX = ".sig"


@dataclass(frozen=True)
class Verified:
    """Who signed an archive, by the file name of the trusted key or certificate, and what it holds."""

    signer: str
    index: BundleIndex


def signature_path(archive: Path) -> Path:
    """Return where an archive's signature is unless somebody says otherwise: beside it."""
    return archive.with_name(archive.name + SUFFIX)


def sign(
    archive: Path,
    key: Path,
    certificate: Path | None = None,
    chain: Sequence[Path] = (),
    signature: Path | None = None,
) -> Path:
    """Sign an archive, which is read whole before.

    Args:
        key: PEM, an elliptic curve's private key (P-256, P-384 or P-521), not encrypted.
        certificate: PEM, of that key; without it the signature is by the key alone.
        chain: PEM, the certificates between it and a trusted one.
        signature: where to; None is beside the archive.

    Returns:
        Where the signature is.

    Raises:
        BundleError: the archive is not what its index says.
        UsageError: a key or certificate that cannot sign.
    """
    from model_signing import hashing, signing

    index = check(archive)
    out = signature or signature_path(archive)
    with tempfile.TemporaryDirectory(prefix="hwr-sign-") as folder:
        model = Path(folder) / f"{index.name}-{index.version}"
        unpack(archive, model, index)
        signed = Path(folder) / "signature"
        hashes = hashing.Config().use_file_serialization().set_ignored_paths(paths=[], ignore_git_paths=False)
        try:
            config = signing.Config().set_hashing_config(hashes)
            if certificate is None:
                config.use_elliptic_key_signer(private_key=key)
            else:
                # The library does not take an empty chain; a certificate in its own adds nothing.
                between = chain or [certificate]
                config.use_certificate_signer(
                    private_key=key, signing_certificate=certificate, certificate_chain=between
                )
        except (ValueError, TypeError, AttributeError, OSError) as err:
            # What the library raises of a file that is missing, encrypted, of another kind of key, or no PEM at all.
            raise UsageError(
                f"{key}{f' with {certificate}' if certificate else ''} cannot sign: {err}; give an elliptic curve's "
                "private key in PEM, without a password, and the certificate that was made for it"
            ) from err
        config.sign(model, signed)
        write_atomic(out, signed.read_bytes())
    return out


def verify(archive: Path, trusted: Path, signature: Path | None = None) -> Verified:
    """Return who signed an archive and what it holds, after all of it was read.

    Args:
        trusted: a folder of public keys (`*.pub`, `*.pem`) and certificates of authorities (`*.crt`).
        signature: None is the file beside the archive.

    Raises:
        BundleError: not signed, not by anybody trusted, or not this archive; or not what its index says.
    """
    from hwr_export.bundle.trust import Trusted

    index = check(archive)
    source = signature or signature_path(archive)
    envelope = Envelope.from_json(_read(archive, source), source)
    signer = Trusted.open(trusted).signer(envelope)
    # From here on the envelope is known to be the signer's.
    _require_signed(archive, source, index, envelope.hashes(), signer)
    return Verified(signer, index)


def _read(archive: Path, source: Path) -> bytes:
    try:
        with source.open("rb") as file:
            data = file.read(MAX_SIGNATURE_BYTES + 1)
    except OSError as err:
        raise BundleError(
            f"{archive} is not signed: {source} cannot be read ({err.strerror}); get the signature that came with it"
        ) from err
    if len(data) > MAX_SIGNATURE_BYTES:
        raise BundleError(f"{source} is no signature: it has more than {MAX_SIGNATURE_BYTES:,} bytes")
    return data


def _require_signed(archive: Path, source: Path, index: BundleIndex, signed: dict[str, str], signer: str) -> None:
    held = {file.path: file.sha256 for file in index.files}
    for path in sorted(signed.keys() ^ {*held, INDEX}):
        fault = "is missing, which" if path in signed else "is none of the files that"
        raise BundleError(
            f"{archive}: {path} {fault} {signer} signed: tampered with, or {source} is of another archive"
        )
    # The index differs whenever anything does, so it is named where nothing else is.
    for path, sha256 in (*held.items(), (INDEX, sha256_bytes(index.to_json()))):
        if signed[path] != sha256:
            raise BundleError(
                f"{archive}: {path} is not the file that {signer} signed (sha256 {sha256[:12]}…, signed "
                f"{signed[path][:12]}…): tampered with, or {source} is of another archive"
            )
