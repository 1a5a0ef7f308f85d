"""Regularisers of recurrent layers: what a rate means, as masks that are drawn, given, or taken at their expectation.

==================  ==============  ====================================================================================
rate                mask            source
==================  ==============  ====================================================================================
variational_x       mask_x          Y. Gal, Z. Ghahramani. A theoretically grounded application of dropout in recurrent
                                    neural networks. NIPS, 2016: the same inputs are dropped at every step
variational_h       mask_h          the same: the same elements of h are dropped where it is fed back, at every step
recurrent_dropout   mask_g          S. Semeniuta, A. Severyn, E. Barth. Recurrent dropout without memory loss. COLING,
                                    2016: the candidate is dropped, anew at every step
weight_drop         mask_weight_hh  S. Merity, N. S. Keskar, R. Socher. Regularizing and optimizing LSTM language
                                    models. ICLR, 2018: recurrent weights are dropped, for all rows and steps alike
zoneout_h           zoneout_h       D. Krueger et al. Zoneout: regularizing RNNs by randomly preserving hidden
                                    activations. ICLR, 2017: elements of h keep their value of the step before
zoneout_c           zoneout_c       the same, of c
dropout             dropout         W. Zaremba, I. Sutskever, O. Vinyals. Recurrent neural network regularization.
                                    arXiv 1409.2329, 2014: what a layer hands upwards is dropped, anew at every step
==================  ==============  ====================================================================================

Masks of dropout are 0 with the probability of the rate, else 1 / (1 - rate), so that inference needs none. Only the
rate `dropout` may be 1, which drops everything. Masks of
zoneout are 1 with that probability, else 0; inference takes the rate itself, which is the expectation. Formulas:
docs/equations.md. Names and shapes: `params.mask_shapes`, and "dropout", (L-1, T, B, D*R) or a list of L-1 arrays when
layers differ in size.

Letters: T steps, B rows, L layers, D directions, R the width of h.
"""

import numbers
from collections.abc import Mapping

import numpy as np

from .arguments import own, real_array

# Rate -> the kind of mask it draws; a cell has those whose mask is among `Variant.masks`.
MASKS = {
    "variational_x": "mask_x",
    "variational_h": "mask_h",
    "recurrent_dropout": "mask_g",
    "weight_drop": "mask_weight_hh",
    "zoneout_h": "zoneout_h",
    "zoneout_c": "zoneout_c",
}


def rates_of(v):
    """Names of the rates that a `Variant` has."""
    return [rate for rate, kind in MASKS.items() if kind in v.masks]


def check_rate(name, value, words="[0, 1)"):
    """A number in [0, 1), as a float. ValueError, with other `words` for where it must be, for anything else."""
    number = isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))
    if not number or not 0 <= value < 1:
        raise ValueError(f"{name} must be a number in {words}, got {value!r}")
    return float(value)


def check_dropout(name, value):
    """The same for dropout, which may also be 1, as in torch."""
    is_one = isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_)) and value == 1
    return 1.0 if is_one else check_rate(name, value, "[0, 1]")


def _kind(name):
    """The name of a mask without its ending: mask_x of mask_x_l0_reverse."""
    return name.rpartition("_l")[0]


def same_state(a, b):
    """Whether two states of generators are equal; some have arrays inside."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same_state(a[name], b[name]) for name in a)
    return np.array_equal(a, b)


def dropped(rng, shape, rate, dtype):
    """An array of `shape`: 0 with probability `rate`, else 1 / (1 - rate); all 0 for a rate of 1.

    Drawn in single precision for every dtype, so the same seed drops the same.
    """
    keep = 1.0 - rate
    drawn = rng.random(shape, dtype=np.float32)
    if keep == 0:
        return np.zeros(shape, dtype)
    return (drawn < keep).astype(dtype) * dtype.type(1.0 / keep)


def _held(rng, shape, rate, dtype):
    """1 with probability `rate`, else 0."""
    return (rng.random(shape, dtype=np.float32) < rate).astype(dtype)


def draw(spec, rates, rng, steps, batch):
    """Name -> mask, of the rates that are not 0; rates: name -> number. "dropout" is not drawn here."""
    active = {MASKS[name]: rate for name, rate in rates.items() if rate}
    if not active:
        return {}
    shapes = {n: s for n, s in spec.mask_shapes(steps, batch).items() if _kind(n) in active}
    makers = {n: _held if n.startswith("zoneout") else dropped for n in shapes}
    return {n: makers[n](rng, shape, active[_kind(n)], spec.dtype) for n, shape in shapes.items()}


def expected(spec, rates, steps, batch):
    """Name -> mask, as inference takes them: of zoneout only, filled with its rate."""
    active = {name: rates[name] for name in ("zoneout_h", "zoneout_c") if rates.get(name)}
    if not active:
        return {}
    shapes = {n: s for n, s in spec.mask_shapes(steps, batch).items() if _kind(n) in active}
    return {n: np.full(shape, active[_kind(n)], spec.dtype) for n, shape in shapes.items()}


def check_masks(spec, given, rates, steps, batch):
    """Masks that a caller gives, copied, contiguous and in the model's dtype.

    Zoneout that has a rate and is not among them holds nothing: zeros, as the core, told nothing, takes expectations.
    Raises TypeError for what is no mapping or holds no numbers, ValueError for a name or a shape that does not fit.
    """
    if not isinstance(given, Mapping):
        raise TypeError(f"masks must map names to arrays, as draw_masks gives them; got {type(given).__name__}")
    shapes = spec.mask_shapes(steps, batch)
    if spec.num_layers > 1:
        shapes["dropout"] = spec.dropout_shapes(steps, batch)
    for name in given:
        if name not in shapes:
            words = f"masks: a stack of cell {spec.v.cell!r} with {spec.num_layers} layers has no {name!r}"
            raise ValueError(f"{words}; it has {', '.join(shapes)}")
    found = {name: _check_mask(spec, name, value, shapes[name]) for name, value in given.items()}
    silent = [name for name in shapes if rates.get(_kind(name)) and name not in found and name.startswith("zoneout")]
    return found | {name: np.zeros(shapes[name], spec.dtype) for name in silent}


def _check_mask(spec, name, value, shape):
    if isinstance(shape, list):
        if not isinstance(value, (tuple, list)) or len(value) != len(shape):
            raise ValueError(f"{name} must be a list of {len(shape)} arrays, one between two layers")
        pairs = zip(value, shape, strict=True)
        return [_check_mask(spec, f"{name}[{k}]", one, tail) for k, (one, tail) in enumerate(pairs)]
    array = real_array(name, value, spec.dtype)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, expected {shape}")
    return own(array, value)
