"""A signature file -> what it signs and with what it can be verified; nothing of it is believed before that.

The format is OpenSSF model-signing's: a DSSE envelope around an in-toto statement, in a Sigstore bundle.
"""

import binascii
from base64 import b64decode
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from hwr_export.bundle.index import MAX_FILES
from hwr_export.errors import BundleError
from hwr_export.files import sha256_bytes
from hwr_export.spec import first_problem

MAX_SIGNATURE_BYTES = 1 << 20
MAX_CERTIFICATES = 8


def _from_base64(text: object) -> bytes:
    if not isinstance(text, str):
        raise ValueError("expected base64")  # noqa: TRY004  (pydantic takes a ValueError for an answer)
    try:
        return b64decode(text, validate=True)
    except binascii.Error as err:
        raise ValueError(str(err)) from err


_Bytes = Annotated[bytes, BeforeValidator(_from_base64)]


class _Part(BaseModel):
    """Keys that we know by the names that the format has; others are the format's own affair."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel)


class _PublicKey(_Part):
    hint: str


class _Certificate(_Part):
    raw_bytes: _Bytes


class _Certificates(_Part):
    certificates: list[_Certificate] = Field(min_length=1, max_length=MAX_CERTIFICATES)


class _Material(_Part):
    public_key: _PublicKey | None = None
    x509_certificate_chain: _Certificates | None = None


class _Signature(_Part):
    sig: _Bytes


class _Dsse(_Part):
    payload: _Bytes
    payload_type: Literal["application/vnd.in-toto+json"]
    signatures: list[_Signature] = Field(min_length=1, max_length=1)


class _SignatureFile(_Part):
    media_type: Literal["application/vnd.dev.sigstore.bundle.v0.3+json"]
    verification_material: _Material
    dsse_envelope: _Dsse


class _Digest(BaseModel):
    sha256: str


class _Subject(BaseModel):
    digest: _Digest


class _Resource(BaseModel):
    name: str
    algorithm: Literal["sha256"]
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")


class _Serialization(BaseModel):
    method: Literal["files"]


class _Predicate(BaseModel):
    serialization: _Serialization
    resources: list[_Resource] = Field(min_length=1, max_length=MAX_FILES + 1)


class _Statement(BaseModel):
    type_: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    predicate_type: Literal["https://model_signing/signature/v1.0"] = Field(alias="predicateType")
    subject: list[_Subject] = Field(min_length=1, max_length=1)
    predicate: _Predicate


class Envelope:
    """What is signed, the signature, and the certificates or the key's hash that came with it."""

    def __init__(self, source: Path, parsed: _SignatureFile) -> None:
        material, dsse = parsed.verification_material, parsed.dsse_envelope
        self.source = source
        self.payload = dsse.payload
        self.signature = dsse.signatures[0].sig
        self.key_sha256 = material.public_key.hint if material.public_key else None
        chain = material.x509_certificate_chain
        self.certificates = [c.raw_bytes for c in chain.certificates] if chain else []

    @classmethod
    def from_json(cls, data: bytes, source: Path) -> "Envelope":
        """Parse a signature file.

        Raises:
            BundleError: it is none, or one of a kind that this version does not know.
        """
        try:
            envelope = cls(source, _SignatureFile.model_validate_json(data))
        except ValidationError as err:
            raise BundleError(f"{source} is no signature of model-signing: {first_problem(err)}; sign again") from err
        if (envelope.key_sha256 is None) == (not envelope.certificates):
            raise BundleError(f"{source} does not say with which key or certificate it was made; sign again")
        return envelope

    @property
    def signed(self) -> bytes:
        """Return the bytes that the signature is over (DSSE's pre-authentication encoding)."""
        kind = b"application/vnd.in-toto+json"
        return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(self.payload), self.payload)

    def hashes(self) -> dict[str, str]:
        """Return the sha256 of each file that was signed, by path.

        Raises:
            BundleError: the statement is not one of model-signing's, or contradicts itself.
        """
        try:
            statement = _Statement.model_validate_json(self.payload)
        except ValidationError as err:
            raise BundleError(f"{self.source} signs something else than an archive: {first_problem(err)}") from err
        resources = statement.predicate.resources
        hashes = {resource.name: resource.digest for resource in resources}
        together = sha256_bytes(b"".join(bytes.fromhex(resource.digest) for resource in resources))
        if len(hashes) != len(resources) or together != statement.subject[0].digest.sha256:
            raise BundleError(f"{self.source} contradicts itself: its hashes are not those of its subject; sign again")
        return hashes
