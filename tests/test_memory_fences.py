"""Every array of a call between two pages that may not be touched, flush with the first or the last.

One element read or written too far ends the process; which lane a masked load leaves out is seen nowhere else.
"""

import os
import sys

import pytest
from grids import says

FENCED = """
import ctypes, mmap, sys
import numpy as np
sys.path.append(TESTS)
from grids import FEATURES, problem
from fastlstm import _core
import fastlstm as fl

libc, kept = ctypes.CDLL(None, use_errno=True), []

def fenced(array, last):
    if array is None:
        return None
    page, nbytes = mmap.PAGESIZE, array.nbytes
    pages = -(-nbytes // page)
    room = mmap.mmap(-1, (pages + 2) * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(room))
    offset = page + (pages * page - nbytes if last else 0)
    inside = np.frombuffer(room, array.dtype, array.size, offset).reshape(array.shape)
    inside[...] = array
    for fence in (start, start + (pages + 1) * page):
        assert libc.mprotect(ctypes.c_void_p(fence), ctypes.c_size_t(page), 0) == 0
    kept.append(room)
    return inside

plain = {name: case for name, case in FEATURES.items() if not case.proj}
others = [case._replace(cell=cell) for case in plain.values() for cell in ("gru", "rnn")]
for case in (*FEATURES.values(), *others):
    for dtype in ("float32", "float64"):
        for last in (False, True):
            p = problem(case, dtype)
            layer, slots, R = p.layer(), case.layers * case.directions, case.proj or case.H
            model = layer._packed_for_training()
            lengths = None if p.lengths is None else np.asarray(p.lengths, np.int64)
            two = case.cell == "lstm"
            pair = lambda state: () if state is None else state if two else (state,)
            x, lengths, reset, dy = (fenced(a, last) for a in (
                p.x, lengths, None if p.reset is None else p.reset.astype(np.uint8), p.dy))
            state0, dstaten = (tuple(fenced(a, last) for a in pair(s)) for s in (p.state, p.dstate))
            state0 = state0 or (None,) * (1 + two)
            empty = lambda *shape: fenced(np.zeros(shape, dtype), last)
            new = lambda: tuple(empty(slots, case.B, width) for width in (R, case.H)[: 1 + two])
            model.forward(x, state0, empty(*p.dy.shape), new(), lengths, reset)
            cache = model.forward_cached(x, state0, new(), lengths, reset)
            table = []
            for end in layer._spec.names:
                ih, hh = (layer._weights[f"weight_{k}_{end}"].shape for k in ("ih", "hh"))
                table.append({"weight_ih": empty(*ih), "weight_hh": empty(*hh), "bias_ih": empty(ih[0])})
                table[-1] |= {"bias_hh": empty(ih[0])} if model.own_bias_hh else {}
                table[-1] |= {"weight_hr": empty(R, case.H)} if case.proj else {}
            model.backward(cache, dy, dstaten, empty(*x.shape), new(), table)
            if not case.bidirectional:
                stream = layer.stream(case.B)
                stream.step(x[0], out=empty(case.B, R))
            fl.Linear(case.I, case.H, dtype=dtype)(x)
            _core.apply("tanh", x)
            layer.load_state_dict({k: fenced(w, last) for k, w in layer.state_dict().items()})
            layer(x)
print(_core.isa(), _core.gemm_mode())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs mprotect")
@pytest.mark.parametrize("gemm", ["panel", "blas"])
def test_nothing_is_read_or_written_beyond_the_arrays_of_a_call(isa, gemm):
    code = FENCED.replace("TESTS", repr(os.path.dirname(__file__)))
    assert says(code, FASTLSTM_ISA=isa, FASTLSTM_GEMM=gemm) == [f"{isa} {gemm}"]
