"""functional.forward_cached(shared=True): the same bits, without copies of x, the state and y."""

import numpy as np
import pytest

import fastlstm as fl
from fastlstm import functional


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cls", [fl.LSTM, fl.GRU, fl.RNN])
def test_shared_arrays_change_nothing(cls, dtype):
    layer = cls(5, 7, 2, bidirectional=True, dtype=dtype, rng=0)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(6, 3, 5)).astype(dtype)
    parts = [rng.normal(size=(4, 3, 7)).astype(dtype) for _ in layer._spec.states]
    state = tuple(parts) if len(parts) > 1 else parts[0]
    found = {}
    for shared in (False, True):
        y, new, kept = functional.forward_cached(
            layer._packed_for_training, layer._spec, x, state, [6, 2, 0], shared=shared
        )
        memory = (x, kept.core.x), (parts[0], kept.core.h0), (y, kept.core.y)
        assert [np.shares_memory(a, b) for a, b in memory] == [shared] * 3
        dx, dstate, grads = functional.backward(layer._spec, layer.state_dict(), np.ones_like(y), kept)
        found[shared] = [y, *(new if len(parts) > 1 else [new]), dx, *(dstate if len(parts) > 1 else [dstate])]
        found[shared] += grads.values()
    assert all(map(np.array_equal, found[True], found[False]))


@pytest.mark.parametrize("shape", [(5, 6, 3), (6, 3)])
def test_y_of_an_ordinary_cache_is_the_callers(shape):
    """In the layout of the caller, contiguous, and no view of what backward reads."""
    layer = fl.GRU(3, 4, batch_first=True, rng=0)
    y, _, cache = layer.forward(np.ones(shape, np.float32), cache=True)
    assert y.flags.c_contiguous and not np.shares_memory(y, cache.core.y)
    assert np.array_equal(y, layer(np.ones(shape, np.float32))[0])
