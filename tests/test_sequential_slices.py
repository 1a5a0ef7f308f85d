"""A Sequential as a list of members: places, slices that share members, sums, and what is refused."""

import copy
import pickle

import numpy as np
import pytest

import fastlstm as fl

X = np.random.default_rng(0).standard_normal((6, 3, 5), dtype=np.float32)


def chain():
    return fl.Sequential(
        fl.Linear(5, 4, rng=0), fl.LSTM(4, 4, num_layers=2, rng=1), fl.Linear(4, 4, rng=2), fl.GRU(4, 7, rng=3)
    )


@pytest.mark.parametrize("place", [
    slice(None), slice(1, None), slice(None, -1), slice(1, 3), slice(-2, None), slice(0, 4, 2), slice(2, 99),
    slice(0, 1), slice(np.int64(1), np.int64(3)),
])
def test_a_slice_is_a_sequential_of_the_same_members(place):
    model = chain()
    part = model[place]
    assert type(part) is fl.Sequential
    assert list(part) == list(model)[place]
    again = fl.Sequential(*list(model)[place])
    assert list(part.state_dict()) == list(again.state_dict())  # named by their places in the slice
    x = np.random.default_rng(1).standard_normal((6, 3, 4 if part[0] is not model[0] else 5), dtype=np.float32)
    for one, other in zip(_arrays(part(x)), _arrays(again(x)), strict=True):
        np.testing.assert_array_equal(one, other)


def _arrays(found):
    return [a for one in found for a in _arrays(one)] if isinstance(found, tuple) else [found]


def test_two_slices_in_turn_are_the_chain():
    model = chain()
    y, (first, second) = model(X)
    head, tail = model[:2], model[2:]
    middle, head_state = head(X)
    last, tail_state = tail(middle)
    for one, other in zip(_arrays((last, head_state, tail_state)), _arrays((y, first, second)), strict=True):
        np.testing.assert_array_equal(one, other)
    stream, (a, b) = model.stream(3), (head.stream(3), tail.stream(3))
    for x in X:
        np.testing.assert_array_equal(b.step(a.step(x)), stream.step(x))


def test_weights_are_shared_both_ways():
    model = chain()
    tail = model[2:]
    before, _ = model(X)
    inside, _ = model[:2](X)
    _, _, cache = tail.forward(inside, cache=True)
    fl.optim.SGD(tail, lr=0.1).step(tail.backward(np.ones((6, 3, 7), np.float32), cache)[2])
    after, _ = model(X)
    assert not np.array_equal(after, before)
    np.testing.assert_array_equal(model.state_dict()["2.weight"], tail.state_dict()["0.weight"])
    new = {name: np.zeros_like(weight) for name, weight in model.state_dict().items()}
    model.load_state_dict(new)
    assert not any(weight.any() for weight in tail.state_dict().values())
    assert not tail(inside)[0].any()
    model.eval()
    assert not tail.training
    with pytest.raises(ValueError, match="are the same weight"):
        fl.optim.SGD([model, tail], lr=0.1)


def test_a_slice_of_a_chain_with_chains_and_wrappers():
    model = fl.Sequential(
        fl.Embedding(9, 4, rng=0), fl.Sequential(fl.LSTM(4, 4, rng=1), fl.Linear(4, 4, rng=2)),
        fl.Bidirectional(fl.GRU(4, 3, rng=3), fl.GRU(4, 3, rng=4)), fl.Last(fl.RNN(6, 2, rng=5)),
    )
    tokens = np.arange(12).reshape(6, 2) % 9
    y = model(tokens)[0]
    np.testing.assert_array_equal(model[1:](model[:1](tokens))[0], y)
    assert model[1:2][0] is model[1]
    assert type(model[1][:1]) is fl.Sequential
    assert model[:1].row_axes == 0 and model[1:].row_axes == 1


def test_files_copies_and_pickles_of_a_slice(tmp_path):
    model = chain()
    model.metadata = {"of": "the whole"}
    part = model[1:3]
    assert part.metadata == {}  # notes are of the whole
    part.save(tmp_path / "part.safetensors")
    x = X[..., :4]
    for again in (fl.load(tmp_path / "part.safetensors"), copy.deepcopy(part), pickle.loads(pickle.dumps(part))):
        assert type(again) is fl.Sequential
        assert len(again) == 2
        assert again[0] is not model[1]
        np.testing.assert_array_equal(again(x)[0], part(x)[0])
    fl.save_checkpoint(tmp_path / "both", [model[:2], model[2:]])
    first, second = fl.load_checkpoint(tmp_path / "both").model
    np.testing.assert_array_equal(second(first(X)[0])[0], model(X)[0])


def test_reversed_slices_are_chains_where_the_widths_fit():
    square = fl.Sequential(fl.Linear(4, 4, rng=0), fl.LSTM(4, 4, rng=1), fl.Linear(4, 4, rng=2))
    assert list(square[::-1]) == list(square)[::-1]
    assert list(square[2:0:-1]) == list(square)[2:0:-1]
    with pytest.raises(ValueError, match=r"the slice \[::-1\] is no chain: member 1 takes 4 features, member 0 gives"):
        chain()[::-1]
    with pytest.raises(ValueError, match=r"the slice \[0:4:3\] is no chain: member 1 takes 3 features, member 0 gives"):
        fl.Sequential(*chain()[:2], fl.Linear(4, 3), fl.Linear(3, 9))[0:4:3]


@pytest.mark.parametrize("place", [slice(4, None), slice(2, 2), slice(-9, -5), slice(3, 1)])
def test_an_empty_slice_is_refused(place):
    with pytest.raises(ValueError, match=r"has none of the 4 members; a Sequential needs at least one"):
        chain()[place]


def test_places():
    model = chain()
    assert len(model) == 4
    assert model[-1] is model[3] is model[np.int32(3)]
    assert model[1] in model and fl.Linear(5, 4) not in model
    assert list(reversed(model)) == list(model)[::-1]
    for place in (4, -5):
        with pytest.raises(IndexError, match=f"place {place} is out of range for a Sequential of 4 members"):
            model[place]
    for place in ("0", 1.0, None, (1, 2)):
        with pytest.raises(TypeError, match="place must be an integer or a slice, got "):
            model[place]
    with pytest.raises(TypeError, match="slice"):
        model["a":]


def test_members_are_fixed_and_the_error_says_what_to_write():
    model = chain()
    for change in (
        lambda: model.__setitem__(1, fl.LSTM(4, 4)), lambda: model.__setitem__(slice(1, 2), [fl.LSTM(4, 4)]),
        lambda: model.__delitem__(0),
    ):
        with pytest.raises(TypeError, match=r"members of a Sequential are fixed: make a new one, .*model\[:k\]"):
            change()
    assert len(model) == 4


def test_chains_add_up():
    model = chain()
    whole = model[:2] + model[2:]
    assert type(whole) is fl.Sequential
    assert list(whole) == list(model)
    np.testing.assert_array_equal(whole(X)[0], model(X)[0])
    with pytest.raises(ValueError, match="member 4 takes 5 features, member 3 gives 7"):
        model + chain()
    with pytest.raises(ValueError, match="twice"):
        model[:1] + model[:1]
    for other in ([], fl.Linear(7, 2), 3):
        with pytest.raises(TypeError, match="unsupported operand"):
            model + other


class Named(fl.Sequential):
    """With a constructor of its own, which a slice cannot call."""

    def __init__(self, width):
        super().__init__(fl.Linear(width, width, rng=0), fl.LSTM(width, width, rng=1))

    def config(self):
        return {"width": self[0].in_features}


class Loud(fl.Sequential):
    """With the constructor of Sequential."""


def test_slices_of_subclasses():
    assert type(Named(3)[1:]) is fl.Sequential
    assert type(Loud(fl.Linear(2, 2), fl.Linear(2, 2))[:1]) is Loud
    assert type(Named(3) + Named(3)) is fl.Sequential
