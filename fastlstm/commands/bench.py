"""``fastlstm bench``; fastlstm/benchmark/ does it."""

from .common import check_output
from .parser import UsageError


def bench_command(arguments):
    """Time this machine, or compare two results."""
    from ..benchmark import command

    for path in filter(None, (arguments.json, arguments.plot)):
        check_output(path)
    try:
        command.run(arguments)
    except command.BadRequest as error:
        raise UsageError(error) from error
