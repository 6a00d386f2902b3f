"""The committed reference release, packed, and keys and certificates made for the test."""

import shutil
import tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hwr_export.bundle.archive import pack
from hwr_export.release import Release
from tests.conftest import ROOT

DIGITS = ROOT / "exported" / "digits"


@pytest.fixture
def digits(tmp_path: Path) -> Release:
    """A copy of the reference release, to break."""
    shutil.copytree(DIGITS, tmp_path / "digits")
    return Release.open(tmp_path / "digits")


@pytest.fixture(scope="session")
def packed() -> bytes:
    """The archive of the reference release."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits-1.4.0.hwr"
        pack(Release.open(DIGITS), path)
        return path.read_bytes()


@pytest.fixture
def archive(packed: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "digits-1.4.0.hwr"
    path.write_bytes(packed)
    return path


Key = ec.EllipticCurvePrivateKey


def write_key(path: Path, key: Key) -> Path:
    pem = serialization.Encoding.PEM
    none = serialization.NoEncryption()
    path.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, none))
    return path


def write_public(path: Path, key: Key) -> Path:
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    path.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, spki))
    return path


def write_certificate(path: Path, certificate: x509.Certificate) -> Path:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return path


def certify(
    name: str,
    key: Key,
    issuer: tuple[x509.Certificate, Key] | None = None,
    ca: bool = False,
    path_length: int | None = None,
    start_days: float = -1,
    end_days: float = 365,
    usages: tuple[x509.ObjectIdentifier, ...] = (ExtendedKeyUsageOID.CODE_SIGNING,),
    condition: bool = False,
) -> x509.Certificate:
    """A certificate as a workshop's authority would make it."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=start_days))
        .not_valid_after(now + timedelta(days=end_days))
        .add_extension(x509.BasicConstraints(ca, path_length if ca else None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not ca, key_cert_sign=ca, crl_sign=ca, content_commitment=False,
                key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )  # fmt: skip
    if not ca and usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    if condition:
        names = x509.NameConstraints([x509.DNSName("example.org")], None)
        builder = builder.add_extension(names, critical=True)
    return builder.sign(issuer[1] if issuer else key, hashes.SHA256())


class Workshop:
    """Who signs: a key of its own, an authority, and a certificate of that authority; a device trusts in `trusted`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trusted = folder / "trusted"
        self.trusted.mkdir(parents=True)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.key_path = write_key(folder / "key.pem", self.key)
        self.authority_key = ec.generate_private_key(ec.SECP384R1())
        self.authority = certify("authority", self.authority_key, ca=True)

    def trust_key(self, name: str = "workshop.pub") -> None:
        write_public(self.trusted / name, self.key)

    def trust_authority(self, certificate: x509.Certificate | None = None) -> None:
        write_certificate(self.trusted / "authority.crt", certificate or self.authority)

    def certificate(self, **changes: object) -> Path:
        issuer = changes.pop("issuer", (self.authority, self.authority_key))
        return write_certificate(self.folder / "signer.crt", certify("signer", self.key, issuer, **changes))


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path / "workshop")
