"""The commands by what they are for, and the options that several of them take. Stages are imported inside commands."""

from pathlib import Path

import click

PathArgument = click.Path(path_type=Path)
DATA = click.option("--data-root", type=PathArgument, help="Where datasets are; else HWR_DATA, else the user cache.")
