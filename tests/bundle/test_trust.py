"""Who is trusted: keys and authorities of a folder, certificates that are valid now and for signing, nobody else."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from hwr_export.bundle.signature import sign, verify
from hwr_export.errors import BundleError
from tests.bundle.conftest import Workshop, certify, write_certificate, write_public


def test_a_certificate_of_a_trusted_authority_is_told_by_the_authority(archive: Path, workshop: Workshop) -> None:
    workshop.trust_authority()
    sign(archive, workshop.key_path, workshop.certificate())
    assert verify(archive, workshop.trusted).signer == "authority.crt"


def test_a_certificate_may_be_trusted_itself(archive: Path, workshop: Workshop) -> None:
    certificate = workshop.certificate()
    (workshop.trusted / "signer.crt").write_bytes(certificate.read_bytes())
    sign(archive, workshop.key_path, certificate)
    assert verify(archive, workshop.trusted).signer == "signer.crt"


def with_one_between(workshop: Workshop, **changes: object) -> tuple[Path, Path]:
    """A certificate issued by one that the authority issued; the options are of the one between."""
    key = ec.generate_private_key(ec.SECP256R1())
    options = {"ca": True} | changes
    between = certify("between", key, (workshop.authority, workshop.authority_key), **options)
    return workshop.certificate(issuer=(between, key)), write_certificate(workshop.folder / "between.crt", between)


def test_a_chain_comes_with_the_signature(archive: Path, workshop: Workshop) -> None:
    workshop.trust_authority()
    certificate, between = with_one_between(workshop)
    sign(archive, workshop.key_path, certificate, [between])
    assert verify(archive, workshop.trusted).signer == "authority.crt"
    sign(archive, workshop.key_path, certificate)
    with pytest.raises(BundleError, match=r"issued by 'CN=between'.* that no authority in .* vouches for"):
        verify(archive, workshop.trusted)


def test_an_unknown_key_is_refused_with_those_that_are_known(archive: Path, workshop: Workshop) -> None:
    write_public(workshop.trusted / "other.pub", ec.generate_private_key(ec.SECP256R1()))
    sign(archive, workshop.key_path)
    with pytest.raises(BundleError, match=r"a key that .* does not hold \(\w{12}…; it holds other\.pub \(\w{12}…\)\)"):
        verify(archive, workshop.trusted)


@pytest.mark.parametrize("content", [{}, {"README": b"none yet"}])
def test_a_folder_that_trusts_nobody_is_said(archive: Path, workshop: Workshop, content: dict[str, bytes]) -> None:
    sign(archive, workshop.key_path)
    for name, data in content.items():
        (workshop.trusted / name).write_bytes(data)
    with pytest.raises(BundleError, match="trusts nobody: it holds no public key"):
        verify(archive, workshop.trusted)
    with pytest.raises(BundleError, match="is no folder of trusted keys"):
        verify(archive, workshop.trusted / "absent")


def test_without_a_trusted_authority_no_certificate_is_good(archive: Path, workshop: Workshop) -> None:
    """Not even one that the system's own authorities would vouch for: they are never asked."""
    workshop.trust_key()
    sign(archive, workshop.key_path, workshop.certificate())
    with pytest.raises(BundleError, match=r"no authority in .* vouches for \(it holds no certificate\)"):
        verify(archive, workshop.trusted)


def test_another_authority_of_the_same_name_is_refused(archive: Path, workshop: Workshop) -> None:
    workshop.trust_authority(certify("authority", ec.generate_private_key(ec.SECP384R1()), ca=True))
    sign(archive, workshop.key_path, workshop.certificate())
    with pytest.raises(BundleError, match=r"that no authority in .* vouches for"):
        verify(archive, workshop.trusted)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start_days": -10, "end_days": -1}, "valid from .* and the clock says .*: set the clock, or sign again"),
        ({"start_days": 1}, "valid from .* and the clock says"),
        ({"usages": (ExtendedKeyUsageOID.SERVER_AUTH,)}, "'CN=signer', which is not for signing code"),
        ({"usages": ()}, "which is not for signing code"),
        ({"condition": True}, r"has a condition that is not understood here \(2\.5\.29\.30\)"),
    ],
)
def test_a_certificate_that_may_not_sign_now_is_refused(
    archive: Path, workshop: Workshop, changes: dict[str, object], message: str
) -> None:
    workshop.trust_authority()
    sign(archive, workshop.key_path, workshop.certificate(**changes))
    with pytest.raises(BundleError, match=message):
        verify(archive, workshop.trusted)


def test_an_authority_that_ran_out_is_refused(archive: Path, workshop: Workshop) -> None:
    workshop.authority = certify("authority", workshop.authority_key, ca=True, start_days=-10, end_days=-1)
    workshop.trust_authority()
    sign(archive, workshop.key_path, workshop.certificate())
    with pytest.raises(BundleError, match="'CN=authority', valid from"):
        verify(archive, workshop.trusted)


@pytest.mark.parametrize(
    ("changes", "authority", "message"),
    [
        ({"ca": False}, {}, "'CN=between' is no authority's, and yet issued another"),
        ({"start_days": -10, "end_days": -1}, {}, "'CN=between', valid from"),
        ({}, {"path_length": 0}, "the authority 'CN=authority' may not have 1 others below it"),
    ],
)
def test_who_may_not_issue_makes_no_signer(
    archive: Path, workshop: Workshop, changes: dict[str, object], authority: dict[str, int], message: str
) -> None:
    workshop.authority = certify("authority", workshop.authority_key, ca=True, **authority)
    workshop.trust_authority()
    certificate, between = with_one_between(workshop, **changes)
    sign(archive, workshop.key_path, certificate, [between])
    with pytest.raises(BundleError, match=message):
        verify(archive, workshop.trusted)


def test_what_is_no_public_key_is_named(archive: Path, workshop: Workshop) -> None:
    sign(archive, workshop.key_path)
    pem = serialization.Encoding.PEM
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    others = {
        "a.pub": (workshop.key_path.read_bytes(), "is a private key, which must never be on a device"),
        "b.pub": (b"ssh-ed25519 AAAA", "is no public key in PEM"),
        "c.pub": (rsa.generate_private_key(65537, 2048).public_key().public_bytes(pem, spki), "expected an elliptic"),
        "d.pub": (ec.generate_private_key(ec.SECP256K1()).public_key().public_bytes(pem, spki), "expected an elliptic"),
        "e.crt": (b"none", "is no certificate in PEM"),
        "f.crt": (2 * workshop.authority.public_bytes(pem), "holds 2 certificates"),
    }
    for name, (data, message) in others.items():
        path = workshop.trusted / name
        path.write_bytes(data)
        with pytest.raises(BundleError, match=rf"{name} {message}|{name} is no key.*{message}"):
            verify(archive, workshop.trusted)
        path.unlink()
