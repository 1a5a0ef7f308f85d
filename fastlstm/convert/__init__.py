"""Models in and out, a few files for each format: the only place that knows foreign names and gate orders.

Its modules are imported when they are named.
"""

import importlib as _importlib


def __getattr__(name):
    whole = f"{__name__}.{name}"
    if not name.startswith("_"):
        try:
            return _importlib.import_module(whole)
        except ModuleNotFoundError as error:
            if error.name != whole:
                raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    from pkgutil import iter_modules

    return [found.name for found in iter_modules(__path__)]
