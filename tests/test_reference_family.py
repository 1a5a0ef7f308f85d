"""Every cell and option of the slow twins against finite differences, and against torch where it has them."""

import numpy as np
import pytest
from differences import difference
from twins import Twin

from fastlstm import reference_time, variants
from fastlstm.variants import FAMILY, GREFF, OPTIONS

# Options with which a cell is differentiable and shows what it can.
CELLS = {
    "rnn": {},
    "gru": {},
    "lstm": {},
    "depth_gated": {"peephole": "ifo"},
    "clockwork": {"periods": 2},
    "lstm_1997": {"block_size": 2, "gradient": "full"},
}
STACK = {"L": 2, "bidirectional": True}
RAGGED = {**STACK, "T": 5, "B": 4, "lengths": [3, 5, 0, 2], "reset": True, "dropout": True}

CASES = {f"{cell}, stack": {"cell": cell, **RAGGED, **options} for cell, options in CELLS.items()}
CASES |= {f"{cell}, all masks": {"cell": cell, **o, "masks": ("mask", "zone")} for cell, o in CELLS.items()}
CASES |= {
    f"{cell}, one of everything": {"cell": cell, "T": 1, "B": 1, "I": 1, "H": 1}
    | ({"periods": 1} if cell == "clockwork" else {"gradient": "full"} if cell == "lstm_1997" else {})
    for cell in CELLS
}
CASES |= {f"Greff's {name}": {"cell": "lstm", **options} for name, options in GREFF.items()}
FIXED = {"without": "ifo", "T": 2}
CASES |= {
    "rnn, relu, clip": {"cell": "rnn", "nonlinearity": "relu", "clip": 2.0, "seed": 3},
    "rnn, no bias": {"cell": "rnn", "bias": False},
    "gru, reset before": {"cell": "gru", "reset_after": False, **RAGGED},
    "gru, reset before, all masks": {"cell": "gru", "reset_after": False, "masks": ("mask", "zone")},
    "gru, clip": {"cell": "gru", "clip": 0.7},
    "gru, reset before, clip": {"cell": "gru", "clip": 0.7, "reset_after": False},
    "gru, activations": {"cell": "gru", "activations": ("hard_sigmoid", "softsign")},
    "lstm, coupled i": {"coupled": "i=1-f", "peephole": "fo"},
    "lstm, peepholes, stack": {**RAGGED, "peephole": "ifo", "proj": 2},
    "lstm, course's peephole": {"peephole": "io", "peephole_o": "c_prev"},
    "lstm, all gates fixed": FIXED,
    "lstm, coupled, no output gate": {"coupled": "f=1-i", "without": "o"},
    "lstm, clip": {"clip": 0.8, "peephole": "ifo"},
    "lstm, cell clip": {"cell_clip": 0.6, "peephole": "ifo"},
    "lstm, projection clip": {"proj": 2, "proj_clip": 0.3},
    "lstm, layer norm ba": {"layer_norm": "ba", **RAGGED},
    "lstm, layer norm ba, no bias": {"layer_norm": "ba", "bias": False, "norm_eps": 0.1},
    "lstm, layer norm gates": {"layer_norm": "gates", **RAGGED},
    "lstm, layer norm gates, no bias": {"layer_norm": "gates", "bias": False},
    "lstm, layer norm ba, CIFG, peepholes, all clips": {
        "layer_norm": "ba", "coupled": "f=1-i", "peephole": "io", "clip": 1.2, "cell_clip": 0.5, "proj": 2,
        "proj_clip": 0.5,
    },
    "lstm, layer norm gates, CIFG, peepholes, all clips": {
        "layer_norm": "gates", "coupled": "i=1-f", "peephole": "fo", "clip": 1.2, "cell_clip": 0.5, "proj": 2,
        "proj_clip": 0.5,
    },
    "lstm, gate recurrence, stack": {"gate_recurrence": True, **RAGGED},
    "lstm, gate recurrence, masks": {"gate_recurrence": True, "masks": ("mask", "zone"), "proj": 2},
    "lstm, stack, all masks": {**RAGGED, "masks": ("mask", "zone"), "peephole": "ifo"},
    "lstm, sizes": {"H": [3, 2, 4], "bidirectional": True, "lengths": [4, 2], "dropout": True},
    "gru, sizes": {"cell": "gru", "H": [2, 3], "dropout": True},
    "depth gated, three layers": {"cell": "depth_gated", "L": 3, "T": 3, "masks": ("mask", "zone"), "proj": 2},
    "depth gated, no bias": {"cell": "depth_gated", "L": 2, "bias": False},
    "clockwork, odd periods": {"cell": "clockwork", "periods": (1, 2, 2, 3), "T": 7, "activations": ("softsign",)},
    "lstm_1997, gates biased": {"cell": "lstm_1997", "gradient": "full", "biased": "gates"},
    "lstm_1997, no output gate": {"cell": "lstm_1997", "gradient": "full", "without": "o", "block_size": 2},
    "lstm_1997, no output gate, gates biased": {
        "cell": "lstm_1997", "gradient": "full", "without": "o", "biased": "gates",
    },
}
CASES |= {
    f"activation {name}": {"activations": (name, name, name), "scale": 0.7, "H": 2, "T": 3, "seed": 13}
    for name in variants.ACTIVATIONS
}


@pytest.mark.parametrize("name", CASES)
def test_backward_is_the_derivative_of_forward(name):
    errors = Twin(**CASES[name]).errors()
    assert max(errors.values()) < 1e-7, errors


def test_every_case_has_gradients_to_compare():
    # All-zero gradients would agree with anything.
    for name, case in CASES.items():
        twin = Twin(**case)
        found = twin.gradients()
        assert list(found) == list(twin.arrays()), name
        for key, gradient in found.items():
            assert np.abs(gradient).max() > 1e-4, (name, key)


def test_every_option_has_a_case():
    tried = {(case.get("cell", "lstm"), option) for case in CASES.values() for option in case}
    for cell, options in OPTIONS.items():
        assert set(options) - {"norm_eps"} <= {option for c, option in tried if c == cell} | UNTRIED.get(cell, set())


UNTRIED = {  # what is the same as something tried
    "rnn": {"activations"},
    "depth_gated": {"peephole_o", "activations"},
    "lstm_1997": {"activations"},
}


def test_every_cell_has_a_twin():
    assert set(reference_time.CELLS) == set(FAMILY) == set(CELLS)
    for name, step in reference_time.CELLS.items():
        assert name == "depth_gated" or [f.__name__ for f in step] == [name, f"{name}_backward"]


@pytest.mark.parametrize("option", ["clip", "cell_clip", "proj_clip"])
def test_the_clips_of_the_cases_clip(option):
    for name, case in CASES.items():
        if option in case:
            looser = {key: value for key, value in case.items() if key != option}
            assert difference(Twin(**case).forward()[0], Twin(**looser).forward()[0]) > 1e-3, name


# ------------------------------------------------------------------------------------------------ torch

TORCH = {
    "rnn": {"cell": "rnn"},
    "rnn, relu": {"cell": "rnn", "nonlinearity": "relu"},
    "rnn, stack": {"cell": "rnn", **STACK, "B": 3, "lengths": [2, 4, 1]},
    "gru": {"cell": "gru"},
    "gru, no bias": {"cell": "gru", "bias": False},
    "gru, stack": {"cell": "gru", **STACK, "B": 3, "lengths": [2, 4, 1]},
}


@pytest.mark.parametrize("name", TORCH)
def test_forward_and_backward_are_torchs(name):
    torch = pytest.importorskip("torch")
    case, twin = TORCH[name], Twin(**TORCH[name])
    settings = {key: case[key] for key in ("nonlinearity", "bias", "bidirectional") if key in case}
    kind = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU}[case["cell"]]
    module = kind(2, 4, case.get("L", 1), dtype=torch.float64, **settings)
    assert list(module.state_dict()) == list(twin.weights)
    module.load_state_dict({key: torch.from_numpy(a) for key, a in twin.weights.items()})
    x, h0 = (torch.tensor(a, requires_grad=True) for a in (twin.x, twin.state["h"]))
    given, rnn = x, torch.nn.utils.rnn
    if "lengths" in case:
        given = rnn.pack_padded_sequence(x, torch.tensor(case["lengths"]), enforce_sorted=False)
    y, hn = module(given, h0)
    if "lengths" in case:
        y, _ = rnn.pad_packed_sequence(y, total_length=len(twin.x))
    ((y * torch.from_numpy(twin.dy)).sum() + (hn * torch.from_numpy(twin.dstate[0])).sum()).backward()

    ours_y, (ours_h,), _ = twin.forward()
    assert difference(ours_y, y.detach().numpy()) < 1e-12
    assert difference(ours_h, hn.detach().numpy()) < 1e-12
    theirs = {"x": x.grad, "h0": h0.grad} | {key: p.grad for key, p in module.named_parameters()}
    for key, ours in twin.gradients().items():
        assert difference(ours, theirs[key].numpy()) < 1e-12, key
