"""``fastlstm convert``: a model of any format in another."""

from .._terminal import shown
from .common import check_output, read, warnings_as_lines, write
from .parser import UsageError


def convert_command(arguments):
    """Read a model, write it in another format."""
    from ..convert import formats

    check_output(arguments.target, formats.SUFFIXES)
    given = {"key": arguments.key, "nonlinearity": arguments.nonlinearity, "batch_first": arguments.batch_first or None}
    options = {name: value for name, value in given.items() if value is not None}
    model = read(arguments.source, formats.only_model, name=arguments.name, **options)
    try:
        with warnings_as_lines():
            write(arguments.target, lambda path: formats.write(model, path))
    except (ImportError, TypeError, ValueError) as error:
        raise UsageError(f"cannot write {arguments.target}: {error}") from error
    print(f"{shown(arguments.source)} -> {shown(arguments.target)}")
    print(model)
