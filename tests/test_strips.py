"""Strips: a worker handles the rows of a step in strips, which limits its pointer lists and changes no result.

`tests/c_engine_test.c`, compiled with -DFL_STRIP_ROWS=2, crosses the borders of strips in all its calls.
"""

import itertools
import re
import threading
from pathlib import Path

import numpy as np
import pytest
from family import SOME, agree, gradients_agree, problem, rows_of
from grids import Case, assert_split, openmp, present, same

import fastlstm as fl
from fastlstm import _core, machine

SOURCE = Path(__file__).resolve().parent.parent / "src_c" / "fl_internal.h"
STRIP = int(re.search(r"#define FL_STRIP_ROWS (\d+)", SOURCE.read_text(encoding="utf-8"))[1])
LISTS = 23  # pointers that a worker needs for a row, at most, when no products are made ahead
EVERYTHING = Case(T=4, B=2 * STRIP + STRIP // 2, I=17, H=19, layers=2, lengths="ragged", reset=True)
CELLS = (  # of family.SOME, one for each way to run a step
    "lstm", "all clips", "norm gates, coupled", "gru, reset before", "depth gated, peepholes", "clockwork 1 2 3",
    "1997, blocks of 3, full",
)
MASKED = ("lstm, projection", "norm gates, coupled", "gru, reset before", "clockwork 1 2 3", "depth gated, peepholes")


@pytest.fixture
def constants():
    """A function that changes some of the machine's constants, so that a plan divides the work as a test wants it."""
    machine.settle(2)
    yield lambda **some: _core.set_machine({**_core.machine(), **some})
    _core.set_machine(None)


def some_rows(p, rows):
    """x and keywords of some rows."""
    return p.x[:, rows], present(
        state=None if p.state is None else rows_of(p.state, rows),
        lengths=None if p.lengths is None else p.lengths[rows],
        reset=None if p.reset is None else p.reset[:, rows],
    )


# ---- results ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("rows", [STRIP, STRIP + 1, EVERYTHING.B])
def test_the_reference_agrees_on_both_sides_of_a_border(name, rows):
    p = problem(name, EVERYTHING._replace(T=2, B=rows, bidirectional=True), "float32")
    layer = p.layer()
    y, state, _ = layer.forward(p.x, cache=True, **p.given)
    agree(p, y, state)
    gradients_agree(p, p.gradients(layer))


@pytest.mark.parametrize("name", SOME)
def test_a_row_does_not_depend_on_its_strip(name):
    p = problem(name, EVERYTHING, "float32")
    layer = p.layer()
    y, state = layer(p.x, **p.given)
    ends = [0, 1, STRIP - 1, STRIP, STRIP + 1, 2 * STRIP - 1, 2 * STRIP, EVERYTHING.B]
    for first, end in itertools.pairwise(ends):
        rows = slice(first, end)
        x, given = some_rows(p, rows)
        same(layer(x, **given), (y[:, rows], rows_of(state, rows)))
    turned, given = some_rows(p, slice(None, None, -1))
    same(layer(turned, **given), (y[:, ::-1], rows_of(state, slice(None, None, -1))))


# ---- threads ----------------------------------------------------------------------------------------------------

# Reading weights from the own cache takes all the time, and what workers read of each other none.
DEAR_WEIGHTS = {
    "flops_per_ns": (500.0, 500.0), "private_cache": 16_700_000.0, "private_bytes_per_ns": 1.0,
    "shared_bytes_per_ns": 1000.0, "shared_bytes_per_ns_all": 1e5,
}
SPLITS = {  # split -> threads, what else the case has, constants that lead there
    "rows": (3, {}, {"private_cache": 16_000_000.0}),
    "blocks": (3, {"I": 128, "H": 216}, DEAR_WEIGHTS),
    "directions": (2, {"I": 128, "H": 216, "bidirectional": True}, DEAR_WEIGHTS),
}


@openmp
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", CELLS)
def test_threads_give_the_bits_of_one_thread(constants, name, split):
    threads, sizes, limits = SPLITS[split]
    constants(wake_ns=1000.0, barrier_ns=50.0, **limits)
    case = EVERYTHING._replace(T=3, **sizes)
    p = problem(name, case, "float32")
    one, several = p.layer(num_threads=1), p.layer(num_threads=threads)
    if several.plan(case.T, case.B).split != split:
        pytest.skip("the plan divides this cell otherwise")
    expected, gradients = one(p.x, **p.given), p.gradients(one)
    try:
        for manner in ("gives up", "persists"):
            _core.force_team(manner)
            same(several(p.x, **p.given), expected)
    finally:
        _core.force_team("persists")  # as tests/conftest.py has it
    for key, value in p.gradients(several).items():
        same(value, gradients[key])


@openmp
@pytest.mark.parametrize("split", SPLITS)
def test_every_split_is_reached(constants, split):
    """Else the test above skips and proves nothing."""
    threads, sizes, limits = SPLITS[split]
    constants(wake_ns=1000.0, barrier_ns=50.0, **limits)
    case = EVERYTHING._replace(T=3, **sizes)
    for name in ("lstm", "gru, reset before"):
        assert_split(problem(name, case, "float32").layer(num_threads=threads), split, threads, case.T, case.B)


@pytest.mark.parametrize("name", MASKED)
def test_masks_act_the_same_in_every_strip(constants, name):
    constants(wake_ns=1000.0, barrier_ns=50.0, private_cache=131_072.0)
    case = EVERYTHING._replace(T=3, I=100, H=72)
    p = problem(name, case, "float32")
    rates = {rate: 0.25 for rate in ("variational_x", "variational_h", "recurrent_dropout", "zoneout_h")
             if {"variational_x": "mask_x", "variational_h": "mask_h", "recurrent_dropout": "mask_g"}.get(rate, rate)
             in p.v.masks}
    one, several = (p.layer(**rates, num_threads=n) for n in (1, 3))
    masks = one.draw_masks(case.T, case.B)
    expected, state, kept = one.forward(p.x, cache=True, masks=masks, **p.given)
    gradients = one.backward(p.dy, kept, p.dstate)
    answer = p.twin(masks)
    agree(p, expected, state, answer)
    y, last, kept = several.forward(p.x, cache=True, masks=masks, **p.given)
    same((y, last), (expected, state))
    again = several.backward(p.dy, kept, p.dstate)
    same(again[0], gradients[0])
    for key, value in gradients[2].items():
        same(again[2][key], value)


@openmp
@pytest.mark.parametrize("split", SPLITS)
def test_with_fewer_workers_than_planned_each_has_more_rows(constants, split):
    """Several calls at once share the threads, so most get fewer than their plan says."""
    threads, sizes, limits = SPLITS[split]
    constants(wake_ns=1000.0, barrier_ns=50.0, **limits)
    p = problem("lstm, projection", EVERYTHING._replace(T=3, **sizes), "float32")
    layer, failures = p.layer(num_threads=threads), []
    expected = p.layer(num_threads=1)(p.x, **p.given)
    gradients = p.gradients(p.layer(num_threads=1))

    def call():
        try:
            for _ in range(2):
                same(layer(p.x, **p.given), expected)
                for key, value in p.gradients(layer).items():
                    same(value, gradients[key])
        except BaseException as failure:
            failures.append(failure)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert failures == []
    assert _core.teams_active() == 0


@openmp
def test_a_clockwork_counts_the_rows_of_other_workers():
    case = Case(T=7, B=33, I=40, H=66)
    p = problem("clockwork 1 2 3", case, "float32")
    lengths = [7, 5, 3] + [2] * 30  # at the last steps most workers have no row
    results = []
    for threads in (1, 3):
        layer = p.layer(num_threads=threads)
        assert_split(layer, "rows" if threads > 1 else "none", threads, case.T, case.B, backward=True)
        *_, cache = layer.forward(p.x, p.state, lengths=lengths, cache=True)
        dx, _, gradients = layer.backward(p.dy, cache)
        results.append([dx, *gradients.values()])
    same(results[1], results[0])


# ---- memory -----------------------------------------------------------------------------------------------------

BATCH = 4096
LAYERS = {
    "lstm": lambda: fl.LSTM(64, 64),
    "two layers": lambda: fl.LSTM(64, 64, 2),
    "bidirectional": lambda: fl.LSTM(64, 64, bidirectional=True),
    "projection": lambda: fl.LSTM(64, 64, proj_size=32),
    "layer norm": lambda: fl.LSTM(64, 64, layer_norm="ba"),
    "gru, reset before": lambda: fl.GRU(64, 64, reset_after=False),
    "clockwork": lambda: fl.ClockworkRNN(64, 64),
    "blocks": lambda: fl.LSTM(8, 1000),
    "blocks, projection": lambda: fl.LSTM(8, 1000, proj_size=256),
    "blocks, bidirectional": lambda: fl.LSTM(8, 1000, bidirectional=True),
    "blocks, gru, reset before": lambda: fl.GRU(8, 1000, reset_after=False),
}


@openmp
@pytest.mark.parametrize("name", LAYERS)
def test_the_workspace_does_not_grow_as_threads_times_batch(constants, name):
    blocks = name.startswith("blocks")
    constants(wake_ns=1000.0, barrier_ns=50.0, **(DEAR_WEIGHTS if blocks else {"private_cache": 16_000_000.0}))
    packed = LAYERS[name]()._packed_for_training()
    for kind in ({}, {"training": True}, {"backward": True}):
        found = packed.plan(50, BATCH, backward=bool(kind.get("backward")), threads=64)
        assert found["split"] == ("blocks" if blocks else "rows") or (blocks and "backward" in kind)
        assert found["threads"] >= 32
        one, many = (packed.workspace_bytes(50, BATCH, threads=n, **kind) for n in (1, 64))
        assert many <= 1.1 * one + found["threads"] * STRIP * LISTS * np.dtype(np.intp).itemsize


def test_one_thread_has_lists_as_long_as_a_strip(constants):
    """The formula of docs/performance.md, in bytes."""
    packed = fl.LSTM(64, 64)._packed()
    strip, batch = (packed.workspace_bytes(50, rows, threads=1) for rows in (STRIP, BATCH))
    assert batch - strip == 2 * 8 * (BATCH - STRIP)  # the order of the rows, and their lengths
