"""``fastlstm info`` and ``fastlstm inspect``."""

from .common import read


def info_command(_):
    """Print the configuration."""
    import fastlstm as fl

    fl.show_config()


def inspect_command(arguments):
    """Print what is in a file."""
    from ..convert import formats, inspection

    options = {} if arguments.key is None else {"key": arguments.key}
    found = read(arguments.model, formats.contents, **options)
    if arguments.json:
        import json

        print(json.dumps(inspection.described(found, arguments.plan), indent=1))
        return
    for line in inspection.lines(found, arguments.plan):
        print(line)
