"""What `import fastlstm` does in the folder of a clone, where Python finds the source first, which is not compiled."""

import os
import sys
from importlib.machinery import PathFinder


def _is_compiled(folder):
    return any(name.startswith("_core.") and name.endswith((".so", ".pyd")) for name in os.listdir(folder))


def _installed(name, source):
    """The spec of the installed package of that name, if it is compiled; else None. source: not this folder."""
    for entry in sys.path:
        found = PathFinder.find_spec(name, [entry])
        for folder in (found and found.submodule_search_locations) or ():
            if os.path.realpath(folder) != os.path.realpath(source) and _is_compiled(folder):
                return found
    return None


def instead_of(name, source):
    """The spec of the installed package, which takes the place of the one in the folder `source`.

    None where that one is compiled. Raises ImportError that says what to do where there is no other; ``python -m
    fastlstm`` ends with these words.
    """
    if _is_compiled(source):
        return None
    found = _installed(name, source)
    if found is None:
        root = os.path.dirname(source)
        told = f"{source} is the source of fastlstm, and no fastlstm is installed"
        words = f"{told}: run `python -m pip install .` in {root}"
        if sys.argv[:1] == ["-m"]:
            print(f"fastlstm: {words}", file=sys.stderr)
            sys.exit(2)
        raise ImportError(words) from None
    return found


def become(package, spec):
    """Make a package that is being imported the one that `spec` describes."""
    package._interrupt.unwatch()  # the installed one watches in its turn
    for name in [name for name in sys.modules if name.startswith(f"{spec.name}.")]:
        del sys.modules[name]  # parts of the source
    del package._interrupt
    package.__spec__, package.__loader__, package.__file__ = spec, spec.loader, spec.origin
    package.__path__ = spec.submodule_search_locations
    spec.loader.exec_module(package)
