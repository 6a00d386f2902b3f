"""Release -> archive -> signed -> verified -> directory: pack, sign, verify, unpack."""

from pathlib import Path

import click

from hwr_export.commands import PathArgument
from hwr_export.console import json_option, print_json, print_table, quiet_stdout
from hwr_export.errors import UsageError

SIGNATURE = click.option("--signature", type=PathArgument, help="Signature. [default: ARCHIVE.sig]")


@click.command()
@click.argument("release", type=PathArgument)
@click.option("-o", "--output", required=True, type=PathArgument, help="Archive, as in digits-1.4.0.hwr.")
@click.option("--version", help="As in 1.4.0. [default: the one in the archive's name]")
@json_option
def pack(release: Path, output: Path, version: str | None, as_json: bool) -> None:
    """Pack what a device needs of a release whose verdict is PASS and whose files form one chain."""
    from hwr_export.bundle.archive import pack as pack_release
    from hwr_export.files import sha256_file
    from hwr_export.release import Release

    index = pack_release(Release.open(release), output, version)
    if as_json:
        print_json({"path": str(output), "sha256": sha256_file(output), **index.model_dump(mode="json", by_alias=True)})
        return
    rows = [(f.path, f"{f.size_bytes:,}", f.sha256[:16]) for f in index.files]
    print_table(("file", "bytes", "sha256"), rows, title=f"{index.name} {index.version}")
    click.echo(f"Packed into {output}, {output.stat().st_size:,} bytes; now sign it.")


@click.command()
@click.argument("archive", type=PathArgument)
@click.option("--key", required=True, type=PathArgument, help="Private key of an elliptic curve, PEM.")
@click.option("--certificate", type=PathArgument, help="Certificate of the key, PEM.")
@click.option("--chain", multiple=True, type=PathArgument, help="Between it and an authority (repeatable).")
@SIGNATURE
def sign(archive: Path, key: Path, certificate: Path | None, chain: tuple[Path, ...], signature: Path | None) -> None:
    """Sign an archive with a key, or with a certificate of it."""
    if chain and certificate is None:
        raise UsageError("--chain is of a --certificate; give both")
    from hwr_export.bundle.signature import sign as sign_archive

    with quiet_stdout():
        out = sign_archive(archive, key, certificate, chain, signature)
    click.echo(f"Signed: {out}")


@click.command()
@click.argument("archive", type=PathArgument)
@click.option("--trusted", required=True, type=PathArgument, help="Folder of public keys and authorities.")
@SIGNATURE
@json_option
def verify(archive: Path, trusted: Path, signature: Path | None, as_json: bool) -> None:
    """Tell who signed an archive: exit 0 if somebody trusted did and all of it is as signed, 1 if not."""
    from hwr_export.bundle.signature import verify as verify_archive

    found = verify_archive(archive, trusted, signature)
    if as_json:
        print_json({"signer": found.signer, **found.index.model_dump(mode="json", by_alias=True)})
        return
    click.echo(f"{found.index.name} {found.index.version}, signed by {found.signer}; every hash holds.")


@click.command()
@click.argument("archive", type=PathArgument)
@click.option("-o", "--output", required=True, type=PathArgument, help="Directory that is not there yet.")
@click.option("--trusted", type=PathArgument, help="Folder of public keys and authorities: verify before.")
@SIGNATURE
def unpack(archive: Path, output: Path, trusted: Path | None, signature: Path | None) -> None:
    """Make a release directory of an archive; without --trusted nothing is known of who made it."""
    if signature and trusted is None:
        raise UsageError("--signature is verified with --trusted; give both")
    from hwr_export.bundle.archive import unpack as unpack_archive
    from hwr_export.bundle.signature import verify as verify_archive

    verified = verify_archive(archive, trusted, signature) if trusted else None
    index = unpack_archive(archive, output, verified.index if verified else None)
    by = f"signed by {verified.signer}" if verified else "its signature was not looked at"
    click.echo(f"{index.name} {index.version} is in {output}; {by}.")
