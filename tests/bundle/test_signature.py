"""Who signed an archive: whoever is trusted here, of this very archive, and nobody else; in step with the library."""

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st
from model_signing import signing, verifying

from hwr_export.bundle.archive import check, pack, unpack
from hwr_export.bundle.signature import sign, signature_path, verify
from hwr_export.errors import BundleError, UsageError
from hwr_export.release import Release
from tests.bundle.conftest import DIGITS, Workshop, certify, write_certificate, write_key, write_public
from tests.bundle.hostile import Parts
from tests.conftest import ROOT, one_json


@pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP384R1, ec.SECP521R1])
def test_a_trusted_key_is_told_by_name(archive: Path, tmp_path: Path, curve: type[ec.EllipticCurve]) -> None:
    key = ec.generate_private_key(curve())
    trusted = tmp_path / "trusted"
    trusted.mkdir()
    write_public(trusted / "ours.pub", key)
    write_public(trusted / "another.pem", ec.generate_private_key(curve()))
    (trusted / "README").write_text("who is who")
    assert sign(archive, write_key(tmp_path / "key.pem", key)) == signature_path(archive)
    verified = verify(archive, trusted)
    assert verified.signer == "ours.pub"
    assert verified.index == check(archive)


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


# -- not signed, not by us, not this ---------------------------------------------------------------------------------


def test_an_unsigned_archive_is_refused(archive: Path, workshop: Workshop) -> None:
    workshop.trust_key()
    with pytest.raises(BundleError, match=r"digits-1\.4\.0\.hwr is not signed: .*\.sig cannot be read"):
        verify(archive, workshop.trusted)


def test_an_unknown_key_is_refused_with_those_that_are_known(archive: Path, workshop: Workshop) -> None:
    write_public(workshop.trusted / "other.pub", ec.generate_private_key(ec.SECP256R1()))
    sign(archive, workshop.key_path)
    with pytest.raises(BundleError, match=r"a key that .* does not hold \(\w{12}…; it holds other\.pub \(\w{12}…\)\)"):
        verify(archive, workshop.trusted)


def test_a_key_that_claims_to_be_another_is_refused(archive: Path, workshop: Workshop) -> None:
    """The hint in a signature says which key to try, and proves nothing."""
    workshop.trust_key()
    thief = ec.generate_private_key(ec.SECP256R1())
    sign(archive, workshop.key_path)
    honest = json.loads(signature_path(archive).read_bytes())
    sign(archive, write_key(workshop.folder / "thief.pem", thief))
    forged = json.loads(signature_path(archive).read_bytes())
    forged["verificationMaterial"] = honest["verificationMaterial"]
    signature_path(archive).write_text(json.dumps(forged))
    with pytest.raises(BundleError, match=r"is not the signature that workshop\.pub made: altered or damaged"):
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


def test_a_certificate_with_anothers_signature_is_refused(archive: Path, workshop: Workshop) -> None:
    """The certificate is anybody's to copy; what counts is who holds its key."""
    workshop.trust_authority()
    sign(archive, workshop.key_path, workshop.certificate())
    honest = json.loads(signature_path(archive).read_bytes())
    sign(archive, write_key(workshop.folder / "thief.pem", ec.generate_private_key(ec.SECP256R1())))
    forged = json.loads(signature_path(archive).read_bytes())
    forged["verificationMaterial"] = honest["verificationMaterial"]
    signature_path(archive).write_text(json.dumps(forged))
    with pytest.raises(BundleError, match=r"is not the signature that authority\.crt made"):
        verify(archive, workshop.trusted)


def test_the_signature_of_another_archive_is_refused(archive: Path, workshop: Workshop, tmp_path: Path) -> None:
    """Even of the same files: the version is signed too."""
    workshop.trust_key()
    other = tmp_path / "digits-1.5.0.hwr"
    pack(Release.open(DIGITS), other)
    sign(other, workshop.key_path)
    with pytest.raises(BundleError, match=r"bundle\.json is not the file that workshop\.pub signed .*another archive"):
        verify(archive, workshop.trusted, signature_path(other))


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("model.int8-cpu.onnx", lambda data: data + b"\0"),
        ("goldens.npz", lambda data: data[:-1]),
        ("manifest.json", lambda data: data.replace(b'"0123456789"', b'"1023456789"')),
        ("checkpoint.json", lambda data: data.replace(b'"0123456789"', b'"1023456789"')),
        ("parity.json", lambda data: data.replace(b'"n": 10000', b'"n": 20000', 1)),
    ],
)
def test_a_file_that_was_changed_and_hashed_again_is_named(
    archive: Path, workshop: Workshop, path: str, change: Callable[[bytes], bytes]
) -> None:
    """What somebody can do who has everything but the key."""
    workshop.trust_key()
    sign(archive, workshop.key_path)
    parts = Parts.of(archive.read_bytes())
    assert change(parts.files[path]) != parts.files[path]
    parts.files[path] = change(parts.files[path])
    archive.write_bytes(parts.resealed().tar())
    check(archive)
    with pytest.raises(BundleError, match=rf"{re.escape(path)} is not the file that workshop\.pub signed .*tampered"):
        verify(archive, workshop.trusted)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("add", r"extra is none of the files that workshop\.pub signed"),
        ("drop", r"model\.int8\.onnx is missing, which workshop\.pub signed"),
    ],
)
def test_a_file_more_or_less_is_named(archive: Path, workshop: Workshop, change: str, message: str) -> None:
    workshop.trust_key()
    sign(archive, workshop.key_path)
    parts = Parts.of(archive.read_bytes())
    if change == "add":
        parts.files["extra"] = b"gotcha"
    else:
        del parts.files["model.int8.onnx"]
    archive.write_bytes(parts.resealed().tar())
    with pytest.raises(BundleError, match=message):
        verify(archive, workshop.trusted)


# -- what is no signature --------------------------------------------------------------------------------------------


def edited(archive: Path, change: Callable[[dict], object]) -> None:
    document = json.loads(signature_path(archive).read_bytes())
    change(document)
    signature_path(archive).write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(mediaType="text/html"), "is no signature of model-signing: mediaType"),
        (lambda d: d["dsseEnvelope"].update(signatures=[]), r"dsseEnvelope\.signatures: .* at least 1"),
        (lambda d: d["dsseEnvelope"]["signatures"].append({"sig": ""}), "at most 1"),
        (lambda d: d["dsseEnvelope"].update(payload="*"), r"dsseEnvelope\.payload"),
        (lambda d: d["dsseEnvelope"].update(payloadType="text/plain"), "payloadType"),
        (lambda d: d.update(verificationMaterial={}), "does not say with which key or certificate it was made"),
        (lambda d: d["verificationMaterial"]["publicKey"].update(hint=None), r"publicKey\.hint"),
        (lambda d: d["dsseEnvelope"]["signatures"][0].update(sig="AAAA"), "is not the signature that"),
        (lambda d: d["dsseEnvelope"].update(payload=base64.b64encode(b"{}").decode()), "is not the signature that"),
    ],
)
def test_an_altered_signature_is_refused(
    archive: Path, workshop: Workshop, change: Callable[[dict], object], message: str
) -> None:
    workshop.trust_key()
    sign(archive, workshop.key_path)
    edited(archive, change)
    with pytest.raises(BundleError, match=message):
        verify(archive, workshop.trusted)


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 100_000, b"\xff" * 100, b" " * (1 << 21)])
def test_a_file_that_is_no_signature_is_refused(archive: Path, workshop: Workshop, data: bytes) -> None:
    workshop.trust_key()
    signature_path(archive).write_bytes(data)
    with pytest.raises(BundleError, match=r"is no signature"):
        verify(archive, workshop.trusted)


@pytest.fixture(scope="module")
def signed(packed: bytes, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Workshop, bytes]:
    folder = tmp_path_factory.mktemp("signed")
    archive, workshop = folder / "digits-1.4.0.hwr", Workshop(folder / "workshop")
    archive.write_bytes(packed)
    workshop.trust_key()
    workshop.trust_authority()
    sign(archive, workshop.key_path)
    return archive, workshop, signature_path(archive).read_bytes()


@settings(max_examples=200)
@given(st.data())
def test_no_changed_byte_of_what_is_signed_passes(signed: tuple[Path, Workshop, bytes], data: st.DataObject) -> None:
    """Bytes of the signature file; what passes all the same says the same of the same archive."""
    archive, workshop, whole = signed
    changed = bytearray(whole)
    changed[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    signature_path(archive).write_bytes(bytes(changed))
    try:
        verify(archive, workshop.trusted)
    except BundleError:
        return
    envelopes = [json.loads(d)["dsseEnvelope"] for d in (whole, bytes(changed))]
    ours, theirs = (base64.b64decode(e["payload"]) for e in envelopes)
    assert ours == theirs


# -- keys that cannot be used ----------------------------------------------------------------------------------------


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


def test_a_key_that_cannot_sign_is_said(archive: Path, workshop: Workshop, tmp_path: Path) -> None:
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    locked = tmp_path / "locked.pem"
    locked.write_bytes(workshop.key.private_bytes(pem, form, serialization.BestAvailableEncryption(b"secret")))
    of_rsa = tmp_path / "rsa.pem"
    key = rsa.generate_private_key(65537, 2048)
    of_rsa.write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))
    for path in (locked, of_rsa, archive, tmp_path / "absent"):
        with pytest.raises(UsageError, match=r"cannot sign: .*; give an elliptic curve's private key in PEM"):
            sign(archive, path)
    other = certify("other", ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(UsageError, match="does not match"):
        sign(archive, workshop.key_path, write_certificate(tmp_path / "other.crt", other))
    assert not signature_path(archive).exists()


def test_what_is_no_archive_is_not_signed(archive: Path, workshop: Workshop) -> None:
    archive.write_bytes(archive.read_bytes()[:-1])
    with pytest.raises(BundleError, match="cut short"):
        sign(archive, workshop.key_path)
    assert not signature_path(archive).exists()


# -- in step with the library ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("certified", [False, True])
def test_the_library_verifies_what_we_unpack_and_we_what_it_signs(
    archive: Path, workshop: Workshop, tmp_path: Path, certified: bool
) -> None:
    workshop.trust_key()
    workshop.trust_authority()
    certificate, public = workshop.certificate(), workshop.trusted / "workshop.pub"
    sign(archive, workshop.key_path, certificate if certified else None)
    unpack(archive, tmp_path / "out")
    theirs = verifying.Config()
    if certified:
        theirs.use_certificate_verifier(certificate_chain=[workshop.trusted / "authority.crt"])
    else:
        theirs.use_elliptic_key_verifier(public_key=public)
    theirs.verify(tmp_path / "out", signature_path(archive))

    ours = signing.Config()
    if certified:
        ours.use_certificate_signer(
            private_key=workshop.key_path, signing_certificate=certificate, certificate_chain=[certificate]
        )
    else:
        ours.use_elliptic_key_signer(private_key=workshop.key_path)
    ours.sign(tmp_path / "out", tmp_path / "theirs.sig")
    signer = verify(archive, workshop.trusted, tmp_path / "theirs.sig").signer
    assert signer == ("authority.crt" if certified else "workshop.pub")


def test_the_library_takes_a_certificate_that_ran_out_and_we_do_not(
    archive: Path, workshop: Workshop, tmp_path: Path
) -> None:
    """Why its answer alone would not do; should this ever fail, decision 7 is out of date."""
    workshop.authority = certify("authority", workshop.authority_key, ca=True, start_days=-20)
    workshop.trust_authority()
    sign(archive, workshop.key_path, workshop.certificate(start_days=-10, end_days=-1))
    unpack(archive, tmp_path / "out")
    authority = workshop.trusted / "authority.crt"
    verifying.Config().use_certificate_verifier(certificate_chain=[authority]).verify(
        tmp_path / "out", signature_path(archive)
    )
    with pytest.raises(BundleError, match="the clock says"):
        verify(archive, workshop.trusted)


def test_a_device_verifies_without_the_library(archive: Path, workshop: Workshop) -> None:
    workshop.trust_key()
    sign(archive, workshop.key_path)
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('model_signing', 'sigstore', 'OpenSSL', 'numpy', 'torch')))\n"
        "import socket; socket.socket = None\n"
        "from pathlib import Path; from hwr_export.bundle.signature import verify\n"
        "print(verify(Path(sys.argv[1]), Path(sys.argv[2])).signer)"
    )
    command = [sys.executable, "-c", code, str(archive), str(workshop.trusted)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout == "workshop.pub\n", done.stderr


# -- the command line ------------------------------------------------------------------------------------------------


def test_sign_and_verify_from_the_command_line(
    archive: Path, workshop: Workshop, tmp_path: Path, hwr: Callable[..., Result]
) -> None:
    workshop.trust_key()
    assert hwr("sign", archive, "--key", workshop.key_path).exit_code == 0
    told = one_json(hwr("verify", archive, "--trusted", workshop.trusted, "--json").stdout)
    assert (told["signer"], told["version"]) == ("workshop.pub", "1.4.0")
    done = hwr("unpack", archive, "-o", tmp_path / "out", "--trusted", workshop.trusted)
    assert "signed by workshop.pub" in done.stdout
    signature_path(archive).unlink()
    done = hwr("unpack", archive, "-o", tmp_path / "other", "--trusted", workshop.trusted)
    assert done.exit_code == 1
    assert "is not signed" in done.stderr
    assert not (tmp_path / "other").exists()
    done = hwr("sign", archive, "--key", workshop.key_path, "--chain", archive)
    assert done.exit_code == 2
    assert "--chain is of a --certificate" in done.stderr


def test_the_page_about_archives_is_true(tmp_path: Path) -> None:
    """Its commands, in the order of the page."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "bundle.md").read_text(), re.DOTALL)
    assert len(blocks) == 4
    (tmp_path / "exported").symlink_to(ROOT / "exported")
    programs = "".join(
        f'{name}() {{ {sys.executable} -m {module} "$@"; }}\n'
        for name, module in (("hwr-export", "hwr_export"), ("model_signing", "model_signing"))
    )
    done = subprocess.run(
        ["bash", "-euc", programs + "".join(blocks)], capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "signed by workshop.pub; every hash holds" in done.stdout
    assert "signed by authority.crt; every hash holds" in done.stdout
    authority = x509.load_pem_x509_certificate((tmp_path / "trusted" / "authority.crt").read_bytes())
    assert authority.subject.rfc4514_string() == "CN=workshop authority"
