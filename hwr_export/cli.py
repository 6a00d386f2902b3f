"""The command line: words -> one stage call -> a table or one JSON document. `--help` is instant."""

import click

import hwr_export
from hwr_export.commands import bundle, engines, forms, make, prove, read_forms, review, use
from hwr_export.console import Commands

COMMANDS = (
    make.onnx,
    make.quantize,
    make.lint,
    engines.trt,
    engines.inspect,
    engines.targets,
    prove.parity,
    prove.bench,
    prove.profile,
    prove.recommend,
    prove.report,
    use.read,
    forms.form,
    read_forms.read_form,
    review.review,
    use.doctor,
    use.show,
    bundle.pack,
    bundle.sign,
    bundle.verify,
    bundle.unpack,
)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(hwr_export.__version__, prog_name="hwr-export")
def main() -> None:
    """Take a handwriting recogniser from PyTorch to an embedded scanner, with proof at every step."""


for command in COMMANDS:
    main.add_command(command)
