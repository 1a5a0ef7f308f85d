"""Checkpoints: all that a training needs to go on, in one safetensors file that is written whole or not at all.

===========  ==========================================================================================
format       "fastlstm checkpoint"
version      "1"
checkpoint   JSON: the models' descriptions and what they keep beside their weights, the optimiser's
             class, numbers and step counts, the states of all generators
others       the user's own strings
===========  ==========================================================================================

Tensors: ``0.``, the model's place in the list (0 of one by itself), and the names of ``state_dict()``; ``optimiser.``,
the optimiser's name of a weight, ``.``, and the name of what it keeps for it (``exp_avg``). Nothing is ever unpickled.
"""

import json
from typing import Any, NamedTuple

import numpy as np

from .concurrency import hold
from .container import Container, check_modules
from .files import CHECKPOINT, build, check_metadata, check_tensors, described, warn_if_not_finite, write_tensors
from .gradients import joined
from .module import Module
from .optim import Optimiser
from .params import check_flag, check_num_threads
from .read_files import as_source, is_damage, refusals, steady
from .reprs import told
from .safetensors_read import read_header, read_tensor
from .whole_files import as_target

VERSION = 1
_RESERVED = ("format", "version", "checkpoint")
_OTHERS = {None: "no checkpoint of fastlstm", "fastlstm": "a model without its training; fastlstm.load reads it"}
# Bit generators of numpy.random. For each: entries of its state that are an index, which NumPy does not check, and the
# largest value of each.
_BITS = {
    "PCG64": {}, "PCG64DXSM": {}, "SFC64": {}, "MT19937": {("state", "pos"): 624}, "Philox": {("buffer_pos",): 4},
}


class Checkpoint(NamedTuple):
    """What `load_checkpoint` has read. The optimiser is that of the model, and the layers draw from the generators."""

    model: Any  # a Module, or a list of them
    optimiser: Any  # of fastlstm.optim, or None
    generators: dict  # name -> numpy.random.Generator
    metadata: dict  # str -> str

    def __repr__(self):
        names = ", ".join(map(repr, self.generators)) or "none"
        return told("Checkpoint", self._asdict() | {"generators": names})


# ---- writing -----------------------------------------------------------------------------------------------------


def save_checkpoint(path, model, optimiser=None, *, generators=None, metadata=None):
    """Write everything that a training needs to go on to the file `path`, whole or not at all.

    path: str or os.PathLike, or a binary file object, as `Module.save` takes them.
    model: a Module or a list of Modules. optimiser: None, or one of ``fastlstm.optim`` of this very model or list.
    generators: None, or a dict of names to numpy.random.Generators of the program's own, such as the one that orders
    the data. Those that layers draw their masks from are kept without being named; one that several share stays one.
    metadata: None, or a dict of str to str: notes of the program, such as the number of the epoch.

    A training that is killed at any moment and goes on from its last checkpoint gives the bits of one that ran through.

    Raises TypeError or ValueError that names the argument, and for numbers of the optimiser that it could not go on
    with; OSError as the system gives it; a file that was there is then as it was. Warns (RuntimeWarning) of NaN and
    infinity among the weights, before anything is written: where warnings are errors, the file that was there stays.
    """
    models = _check_models(model)
    generators = _check_generators({} if generators is None else generators)
    metadata = check_metadata({} if metadata is None else metadata, _RESERVED)
    if optimiser is not None and not isinstance(optimiser, Optimiser):
        raise TypeError(f"optimiser must be one of fastlstm.optim or None, got {type(optimiser).__name__}")
    if optimiser is not None and not _same(optimiser.model, model):
        raise ValueError("optimiser must be that of model: it has another one, or another list")
    states = _States()
    with hold(*models):
        told = {
            "several": not isinstance(model, Module),
            "models": [{"model": one.describe(), "kept": _kept(one, states)} for one in models],
            "optimiser": None,
        }
        tensors = joined([one.state_dict() for one in models])
        if optimiser is not None:
            told["optimiser"] = optimiser._checked_state()
    for name, entry in told["optimiser"]["state"].items() if optimiser is not None else ():
        for slot in [slot for slot in entry if slot != "step"]:
            tensors[f"optimiser.{name}.{slot}"] = entry.pop(slot)
    told["named"] = {name: states.place(generator) for name, generator in generators.items()}
    told["generators"] = states.told
    try:
        text = json.dumps(told, allow_nan=False)
    except (TypeError, ValueError) as error:  # of a class from outside this package
        raise TypeError(f"model or optimiser keeps something that JSON cannot express: {error}") from None
    head, path = {"format": CHECKPOINT, "version": str(VERSION), "checkpoint": text}, as_target(path)
    warn_if_not_finite(path, tensors, 3)
    write_tensors(path, head, metadata, tensors)


def _check_models(model):
    models = check_modules(model)
    leaves = [id(leaf) for one in models for leaf in one._leaves()]
    if len(set(leaves)) < len(leaves):
        raise ValueError("model: a module occurs twice, in the list or in what is in it")
    return models


def _check_generators(generators):
    if not isinstance(generators, dict):
        raise TypeError(f"generators must be a dict of names to generators, got {type(generators).__name__}")
    for name, generator in generators.items():
        if not isinstance(name, str) or not isinstance(generator, np.random.Generator):
            got = f"{name!r}: {type(generator).__name__}"
            raise TypeError(f"generators must map strings to numpy.random.Generators, got {got}")
    return generators


def _same(one, other):
    if isinstance(one, Module) or isinstance(other, Module):
        return one is other
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))


class _States:
    """The states of generators, each told once."""

    def __init__(self):
        self.told, self._places, self._alive = [], {}, []

    def place(self, generator):
        """Where in `told` the state of a generator is."""
        bits = generator.bit_generator
        if id(bits) not in self._places:
            if type(bits).__name__ not in _BITS:
                words = f"one of numpy.random's {', '.join(_BITS)}"
                raise TypeError(f"a generator must draw from {words}, got {type(bits).__name__}")
            with bits.lock:
                state = bits.state
            self._places[id(bits)] = len(self.told)
            self._alive.append(bits)
            self.told.append(_as_json(state) | {"seed_seq": _seeds(getattr(bits, "seed_seq", None))})
        return self._places[id(bits)]


def _seeds(sequence):
    """What `Generator.spawn` draws new generators from; None where it cannot."""
    if type(sequence) is not np.random.SeedSequence:
        return None
    entropy = sequence.entropy
    return {
        "entropy": entropy if entropy is None or isinstance(entropy, int) else [int(n) for n in np.ravel(entropy)],
        "spawn_key": [int(n) for n in sequence.spawn_key],
        "pool_size": sequence.pool_size,
        "n_children_spawned": sequence.n_children_spawned,
    }


def _as_json(state):
    if isinstance(state, dict):
        return {name: _as_json(value) for name, value in state.items()}
    if isinstance(state, np.ndarray):
        return {"dtype": state.dtype.name, "values": state.tolist()}
    return state.item() if isinstance(state, np.generic) else state


def _kept(module, states):
    """What a module keeps beside its weights, and of a container its members."""
    told = {}
    for name, value in module._extras().items():
        is_generator = isinstance(value, np.random.Generator)
        told[name] = {"generator": states.place(value)} if is_generator else {"value": value}
    parts = module._parts if isinstance(module, Container) else {}
    return {"extras": told, "members": {name: _kept(part, states) for name, part in parts.items()}}


# ---- reading -----------------------------------------------------------------------------------------------------


def load_checkpoint(path, *, pack=False):
    """The `Checkpoint` in the file `path`: model, optimiser, generators, metadata, as `save_checkpoint` was given them.

    path: a path, a file's contents or a binary file object, as `load` takes them. pack: True packs the weights of all
    models as well, for inference (`Module.pack`).

    Raises FileFormatError (a ValueError: path and reason) for a file that is damaged, cut short, no checkpoint, or of a
    newer version or an unknown class; OSError, MemoryError and whatever else has nothing to do with the file's bytes
    as they come. Nothing is built then. A class from outside this package is known once its module was imported.
    """
    path, pack = as_source(path), check_flag("pack", pack)
    with refusals(path), steady(path) as file:
        metadata, tensors = read_header(file)
        told = described(metadata, "checkpoint", CHECKPOINT, VERSION, _OTHERS)
        try:
            models, generators, optimiser = _made(told, tensors)
        except Exception as error:
            if not is_damage(error):
                raise
            raise ValueError(f"damaged: what it tells of the training does not fit together ({error})") from error
        arrays = {name: read_tensor(file, name, entry) for name, entry in tensors.items()}
    warn_if_not_finite(path, arrays, 3)
    with refusals(path):
        for place, model in enumerate(models):
            model._replace_weights({name: arrays.pop(f"{place}.{name}") for name in model._weight_shapes()})
        if optimiser is not None:
            state = {name: dict(entry) for name, entry in told["optimiser"]["state"].items()}
            for full, array in arrays.items():
                name, _, slot = full.removeprefix("optimiser.").rpartition(".")
                state[name][slot] = array
            optimiser.load_state_dict(told["optimiser"] | {"state": state})
    for model in models if pack else ():
        model.pack()
    notes = {key: metadata[key] for key in sorted(metadata) if key not in _RESERVED}
    return Checkpoint(models if told["several"] else models[0], optimiser, generators, notes)


def _made(told, tensors):
    """(models, generators by name, optimiser or None), all without their arrays, which fit the file's tensors."""
    states = [_generator(state) for state in told["generators"]]
    groups = {}
    for name, entry in tensors.items():
        head, _, rest = name.partition(".")
        groups.setdefault(head, {})[rest] = entry
    models = [_model(one, groups.pop(str(place), {}), states) for place, one in enumerate(told["models"])]
    if not models or (len(models) > 1 and not told["several"]):
        raise ValueError(f"it holds {len(models)} models")
    generators = {name: states[_index(place, states)] for name, place in told["named"].items()}
    optimiser, slots = None, groups.pop("optimiser", {})
    if told["optimiser"] is not None:
        optimiser = Optimiser._of_class(told["optimiser"]["class"], models if told["several"] else models[0])
        weights = optimiser._named_weights()
        expected = {
            f"{name}.{slot}": weights[name] for name in told["optimiser"]["state"] for slot in type(optimiser)._slots
        }
        check_tensors(slots, {name: (w.shape, w.dtype) for name, w in expected.items()})
    elif slots:
        raise ValueError("it has tensors of an optimiser and tells of none")
    if groups:
        raise ValueError(f"unexpected tensors: {', '.join(sorted(groups))[:200]}")
    return models, generators, optimiser


def _model(told, tensors, states):
    model = build(told["model"], tensors)
    check_tensors(tensors, {name: (shape, model.dtype) for name, shape in model._weight_shapes().items()})
    _give_back(model, told["kept"], states)
    return model


def _index(place, states):
    if type(place) is not int or not 0 <= place < len(states):
        raise ValueError(f"generator {place!r} of {len(states)}")
    return place


_EXTRAS = {
    "metadata": check_metadata,
    "training": lambda value: check_flag("training", value),
    "_num_threads": check_num_threads,
}


def _give_back(module, told, states):
    """Set what `_kept` told. Only what this module keeps by itself is taken, so a file cannot set anything else."""
    extras, parts = module._extras(), module._parts if isinstance(module, Container) else {}
    if set(told["extras"]) != set(extras) or set(told["members"]) != set(parts):
        raise ValueError(f"a {type(module).__name__} keeps other things")
    found = {}
    for name, one in told["extras"].items():
        if isinstance(extras[name], np.random.Generator) or "generator" in one:
            found[name] = states[_index(one["generator"], states)]
        else:
            found[name] = _EXTRAS.get(name, lambda value: value)(one["value"])
    vars(module).update(found)
    for name, part in parts.items():
        _give_back(part, told["members"][name], states)


def _generator(told):
    state = _from_json(told)
    if state["bit_generator"] not in _BITS:
        raise ValueError(f"an unknown generator {str(state['bit_generator'])[:40]!r}")
    for path, most in _BITS[state["bit_generator"]].items():
        place = state
        for name in path:
            place = place[name]
        if type(place) is not int or not 0 <= place <= most:
            raise ValueError(f"{path[-1]} of a generator is {place!r}, expected 0..{most}")
    seeds = state.pop("seed_seq")
    if seeds is not None:
        seeds = _from_seeds(**seeds)
    bits = getattr(np.random, state["bit_generator"])(seeds)
    bits.state = state
    return np.random.Generator(bits)


def _from_json(told):
    if not isinstance(told, dict):
        return told
    if set(told) == {"dtype", "values"}:
        if told["dtype"] not in ("uint32", "uint64"):
            raise ValueError(f"a generator holds {str(told['dtype'])[:40]!r}")
        return np.array(told["values"], told["dtype"])
    return {name: _from_json(value) for name, value in told.items()}


def _from_seeds(*, entropy, spawn_key, pool_size, n_children_spawned):
    numbers = [*(entropy if isinstance(entropy, list) else [entropy or 0]), *spawn_key, n_children_spawned]
    if not all(type(n) is int and 0 <= n < 2**512 for n in numbers) or pool_size not in range(4, 1025):
        raise ValueError("a generator's seeds are no numbers")
    return np.random.SeedSequence(
        entropy, spawn_key=tuple(spawn_key), pool_size=pool_size, n_children_spawned=n_children_spawned
    )
