"""``fastlstm bench``; fastlstm/benchmark/ does it."""

from .common import check_output
from .parser import UsageError


def bench_command(arguments):
    """Time this machine, compare two results, or make a page out of results."""
    from ..benchmark import command

    arguments.json = command.json_path(arguments)
    for path in filter(None, (arguments.json, arguments.plot)):
        check_output(path)
    try:
        command.run(arguments)
    except command.BadRequest as error:
        raise UsageError(error) from error
