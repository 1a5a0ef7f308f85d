"""What Python shows of traces, caches, streams, optimisers and checkpoints: a line for each part, never the numbers."""

import copy
import pickle

import numpy as np
import pytest

import fastlstm as fl
from fastlstm import reprs

T, B, I, H = 50, 8, 40, 64
X = np.random.default_rng(0).standard_normal((T, B, I), dtype=np.float32)


def layers():
    return {
        "one": fl.LSTM(I, H, rng=0),
        "stack": fl.LSTM(I, H, num_layers=3, bidirectional=True, dropout=0.2, variational_h=0.2, rng=0),
        "gru": fl.GRU(I, H, rng=0),
        "rnn": fl.RNN(I, H, num_layers=2, rng=0),
        "depth": fl.DepthGatedLSTM(I, H, num_layers=2, rng=0),
        "clockwork": fl.ClockworkRNN(I, H, rng=0),
        "lstm1997": fl.LSTM1997(I, H, rng=0),
        "ragged": fl.LSTM(I, [H, 32, 16], rng=0),
        "last": fl.Last(fl.LSTM(I, H, rng=0)),
        "reverse": fl.Reverse(fl.GRU(I, H, rng=0)),
        "both": fl.Bidirectional(fl.LSTM(I, H, rng=0), fl.GRU(I, H, rng=0), merge="sum"),
        "chain": fl.Sequential(fl.LSTM(I, H, rng=0), fl.Linear(H, 9, activation="relu", rng=0), fl.GRU(9, 5, rng=0)),
        "linear": fl.Linear(I, 9, rng=0),
    }


MODELS = layers()


def is_short(text, most_lines=24):
    lines = text.split("\n")
    assert len(lines) <= most_lines, text
    assert max(map(len, lines)) <= 120, text
    assert "array(" not in text


@pytest.mark.parametrize("name", MODELS)
def test_caches_and_traces_are_short(name):
    model = MODELS[name]
    options = {"trace": True} if model.recurrent else {}
    *_, cache = model.forward(X, cache=True, **options)
    for part in cache if type(cache) is tuple else (cache,):
        is_short(repr(part))
        assert repr(part) == str(part)
    if model.recurrent:
        found = model.forward(X, cache=True, trace=True)[2]
        for trace in found if type(found) is tuple else (found,):
            is_short(repr(trace))


def test_a_trace_tells_its_fields_and_shapes():
    trace = MODELS["one"](X, trace=True)[2]
    assert repr(trace) == "Trace(\n" + "".join(
        f"  {name}: 1 array (50, 8, 64) float32\n" for name in "ifgoch"
    ) + ")"
    assert "  i: 6 arrays (50, 8, 64) float32\n" in repr(MODELS["stack"](X, trace=True)[2])
    ragged = repr(MODELS["ragged"](X, trace=True)[2])
    assert "  i: 3 arrays (50, 8, 64), (50, 8, 32), (50, 8, 16) float32\n" in ragged


def test_a_cache_tells_what_it_was_made_for():
    text = repr(MODELS["stack"].forward(X, cache=True)[-1])
    for words in ("lstm 40 -> 64, 3 layers, 2 directions, float32", "T = 50, B = 8", " bytes", "dropout: (2, 50, 8,"):
        assert words in text, text
    text = repr(MODELS["ragged"].forward(X, cache=True)[-1])
    assert "lstm 40 -> 64, 32, 16, 3 layers" in text
    assert "projected to 7" in repr(fl.LSTM(I, H, proj_size=7).forward(X, cache=True)[-1])


def test_a_part_that_somebody_replaced_is_shown_too():
    trace = MODELS["one"](X, trace=True)[2]
    odd = trace._replace(i=None, f="x" * 1000, g=[], o=[1, "two"], c=np.zeros(3))
    is_short(repr(odd))
    for words in ("  i: None", "  f: 'xxx", "  g: []", "  c: (3,) float64"):
        assert words in repr(odd)
    cache = MODELS["one"].forward(X, cache=True)[-1]
    for changes in ({"core": None}, {"spec": 3}, {"layout": ()}, {"masks": None}):
        repr(cache._replace(**changes))


def test_streams_tell_size_and_state():
    stream = MODELS["one"].stream(batch_size=8)
    assert repr(stream) == (
        "Stream(\n  model: lstm 40 -> 64, float32\n  batch_size: 8\n  h: (1, 8, 64) float32\n  c: (1, 8, 64) float32\n)"
    )
    with fl.LSTM(I, [H, 32], rng=0).stream() as ragged:
        assert "  h: 2 arrays (1, 64), (1, 32) float32\n" in repr(ragged)
    assert repr(ragged) == "Stream(closed)"
    chain = MODELS["chain"].stream(batch_size=2)
    assert repr(chain).startswith("SequentialStream(\n  batch_size: 2\n  (0): Stream(\n    model: lstm 40 -> 64")
    assert "  (1): StatelessStream(\n    model: Linear(64, 9, activation='relu')\n    batch_size: 2\n  )" in repr(chain)
    is_short(repr(chain), 20)
    chain.close()
    assert repr(chain) == "SequentialStream(closed)"
    alone = MODELS["linear"].stream()
    alone.close()
    assert repr(alone) == "StatelessStream(closed)"


def test_optimisers_tell_their_numbers():
    model = fl.Sequential(fl.LSTM(I, H, rng=0), fl.Linear(H, 9, rng=0))
    adam = fl.optim.Adam(model, lr=3e-3)
    assert repr(adam) == "Adam(lr=0.003, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.0)"
    assert repr(fl.optim.SGD([model], lr=np.float64(0.1))) == (
        "SGD(lr=0.1, momentum=0.0, weight_decay=0.0, nesterov=False)"
    )


def test_a_checkpoint_is_short(tmp_path):
    model = MODELS["chain"]
    generators = {f"generator {k}": np.random.default_rng(k) for k in range(2)}
    notes = {"epoch": "3", "log": "line\n" * 1000}
    fl.save_checkpoint(tmp_path / "c", model, fl.optim.Adam(model), generators=generators, metadata=notes)
    text = repr(fl.load_checkpoint(tmp_path / "c"))
    assert text.startswith("Checkpoint(\n  model: Sequential(\n    (0): LSTM(40, 64)")
    assert "\n  optimiser: Adam(lr=0.001" in text
    assert "\n  generators: 'generator 0', 'generator 1'\n" in text
    assert "\n  metadata:\n    epoch: '3'\n    log: 'line" in text
    assert len(text) < 800


def test_shown_values_are_still_named_tuples():
    """The text is all that differs: they unpack, copy and pickle as before."""
    trace = MODELS["one"](X, trace=True)[2]
    i, f, g, o, c, h = trace
    assert trace._fields == ("i", "f", "g", "o", "c", "h")
    again = pickle.loads(pickle.dumps(trace))
    assert type(again) is fl.Trace
    np.testing.assert_array_equal(again.h[0], h[0])
    assert repr(copy.deepcopy(trace)) == repr(trace)


def test_words_for_values():
    assert reprs.short(np.zeros((2, 3), int)) == "(2, 3) int64"
    assert reprs.short([np.zeros(2), np.zeros(2, "f4")]) == "2 arrays (2,) float64, (2,) float32"
    assert reprs.short([np.zeros(k) for k in range(9)]) == "9 arrays (0,), (1,), (2,), (3,), ... float64"
    assert len(reprs.short("x" * 500)) <= 80
    assert reprs.told("A", {"b": {}, "c": {"d": np.zeros(1), "e": None}}) == (
        "A(\n  b: none\n  c:\n    d: (1,) float64\n    e: None\n)"
    )
    many = {f"mask {k}": np.zeros(k) for k in range(20)}
    assert reprs.told("A", {"masks": many}).count("\n") == 11
    assert "\n    ... and 12 more\n" in reprs.told("A", {"masks": many})
