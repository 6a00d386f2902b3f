"""A folder of public keys and certificates of authorities + a signature -> whose it is, or why it is nobody's here.

A key is trusted as long as it is in the folder. A certificate must be valid by the clock of now, made for signing code,
and issued by an authority in the folder, through others that came with the signature if need be.
"""

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from hwr_export.bundle.envelope import MAX_CERTIFICATES, Envelope
from hwr_export.errors import BundleError
from hwr_export.files import sha256_bytes

KEY_SUFFIXES = (".pub", ".pem")
CERTIFICATE_SUFFIXES = (".crt",)
# Which hash model-signing takes for which curve.
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}
_UNDERSTOOD = (x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage)


@dataclass(frozen=True)
class Trusted:
    """Public keys and certificates by file name."""

    folder: Path
    keys: dict[str, ec.EllipticCurvePublicKey]
    certificates: dict[str, x509.Certificate]

    @classmethod
    def open(cls, folder: Path) -> "Trusted":
        """Read all keys and certificates of a folder; other files in it are nobody's.

        Raises:
            BundleError: there is none, or one cannot be read or used.
        """
        if not folder.is_dir():
            raise BundleError(f"{folder} is no folder of trusted keys: put the signer's public key into one (*.pub)")
        files = sorted(folder.iterdir())
        keys = {path.name: _key(path) for path in files if path.suffix in KEY_SUFFIXES}
        certificates = {path.name: _certificate(path) for path in files if path.suffix in CERTIFICATE_SUFFIXES}
        if not keys and not certificates:
            raise BundleError(
                f"{folder} trusts nobody: it holds no public key (*.pub, *.pem) and no authority's certificate (*.crt)"
            )
        return cls(folder, keys, certificates)

    def signer(self, envelope: Envelope) -> str:
        """Return the name of the key or certificate that makes a signature good.

        Raises:
            BundleError: none does.
        """
        if envelope.certificates:
            key, name = self._certified(envelope)
        else:
            key, name = self._known(envelope)
        try:
            key.verify(envelope.signature, envelope.signed, ec.ECDSA(_HASHES[key.curve.name]))
        except InvalidSignature as err:
            raise BundleError(f"{envelope.source} is not the signature that {name} made: altered or damaged") from err
        return name

    def _known(self, envelope: Envelope) -> tuple[ec.EllipticCurvePublicKey, str]:
        for name, key in self.keys.items():
            if key_sha256(key) == envelope.key_sha256:
                return key, name
        have = ", ".join(f"{name} ({key_sha256(key)[:12]}…)" for name, key in self.keys.items()) or "no key"
        theirs = str(envelope.key_sha256)[:12]
        raise BundleError(
            f"{envelope.source} was made with a key that {self.folder} does not hold ({theirs}…; it holds {have})"
        )

    def _certified(self, envelope: Envelope) -> tuple[ec.EllipticCurvePublicKey, str]:
        try:
            leaf, *others = (x509.load_der_x509_certificate(data) for data in envelope.certificates)
            key = leaf.public_key()
        except (ValueError, UnsupportedAlgorithm) as err:
            raise BundleError(f"{envelope.source} comes with a certificate that cannot be read: {err}") from err
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _HASHES:
            raise BundleError(f"{envelope.source} comes with a certificate of a key that does not sign archives")
        _require_valid(envelope.source, leaf)
        _require_code_signing(envelope.source, leaf)
        return key, self._authority(envelope.source, leaf, others)

    def _authority(self, source: Path, leaf: x509.Certificate, others: list[x509.Certificate]) -> str:
        """Return the name of the trusted certificate at the end of the chain that starts at `leaf`."""
        current = leaf
        for below in range(MAX_CERTIFICATES):
            for name, trusted in self.certificates.items():
                if trusted == leaf:
                    return name
                if _issued(trusted, current):
                    _require_valid(source, trusted)
                    _require_authority(source, trusted, below)
                    return name
            issuer = next((other for other in others if _issued(other, current)), None)
            if issuer is None:
                break
            _require_valid(source, issuer)
            _require_authority(source, issuer, below)
            current = issuer
        have = ", ".join(self.certificates) or "no certificate"
        raise BundleError(
            f"{source} was made with a certificate ({_name(leaf)}, issued by {current.issuer.rfc4514_string()!r}) that "
            f"no authority in {self.folder} vouches for (it holds {have})"
        )


def key_sha256(key: ec.EllipticCurvePublicKey) -> str:
    """Return the hash by which a signature names its key: that of its PEM."""
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return sha256_bytes(pem)


def _key(path: Path) -> ec.EllipticCurvePublicKey:
    data = _read(path)
    if b"PRIVATE KEY" in data:
        raise BundleError(f"{path} is a private key, which must never be on a device: replace it by its public half")
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as err:
        raise BundleError(f"{path} is no public key in PEM: {err}; see docs/bundle.md for how to make one") from err
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _HASHES:
        raise BundleError(f"{path} is no key that signs archives: expected an elliptic curve's (P-256, P-384 or P-521)")
    return key


def _certificate(path: Path) -> x509.Certificate:
    try:
        found = x509.load_pem_x509_certificates(_read(path))
    except ValueError as err:
        raise BundleError(f"{path} is no certificate in PEM: {err}") from err
    if len(found) != 1:
        raise BundleError(f"{path} holds {len(found)} certificates: put each that is trusted into a file of its own")
    return found[0]


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(1 << 16)
    except OSError as err:
        raise BundleError(f"{path} cannot be read: {err.strerror}") from err


def _name(certificate: x509.Certificate) -> str:
    return repr(certificate.subject.rfc4514_string())


def _issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False  # another name, another key, or a kind of key that signs nothing
    return True


def _require_valid(source: Path, certificate: x509.Certificate) -> None:
    """Refuse a certificate that is out of date, or that has a condition we do not know."""
    now = datetime.now(timezone.utc)
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not start <= now <= end:
        raise BundleError(
            f"{source} was made with the certificate {_name(certificate)}, valid from {start:%Y-%m-%d} to "
            f"{end:%Y-%m-%d}, and the clock says {now:%Y-%m-%d}: set the clock, or sign again with one that is valid"
        )
    for extension in _extensions(source, certificate):
        if extension.critical and not isinstance(extension.value, _UNDERSTOOD):
            raise BundleError(
                f"{source}: the certificate {_name(certificate)} has a condition that is not understood here "
                f"({extension.oid.dotted_string})"
            )


def _extensions(source: Path, certificate: x509.Certificate) -> x509.Extensions:
    try:
        return certificate.extensions
    except ValueError as err:
        raise BundleError(f"{source}: the certificate {_name(certificate)} cannot be read: {err}") from err


def _require_code_signing(source: Path, leaf: x509.Certificate) -> None:
    """Refuse a certificate that was given out for something else: a web server's must not sign releases."""
    for extension in _extensions(source, leaf):
        if isinstance(extension.value, x509.ExtendedKeyUsage) and ExtendedKeyUsageOID.CODE_SIGNING in extension.value:
            return
    raise BundleError(
        f"{source} was made with the certificate {_name(leaf)}, which is not for signing code: it needs the extended "
        "key usage codeSigning"
    )


def _require_authority(source: Path, certificate: x509.Certificate, below: int) -> None:
    """Refuse an issuer that must issue nothing, or nothing with so many authorities below it."""
    values = [extension.value for extension in _extensions(source, certificate)]
    basic = next((value for value in values if isinstance(value, x509.BasicConstraints)), None)
    usage = next((value for value in values if isinstance(value, x509.KeyUsage)), None)
    if basic is None or not basic.ca or (usage is not None and not usage.key_cert_sign):
        raise BundleError(f"{source}: the certificate {_name(certificate)} is no authority's, and yet issued another")
    if basic.path_length is not None and below > basic.path_length:
        raise BundleError(f"{source}: the authority {_name(certificate)} may not have {below} others below it")
