"""Python's garbage collector among caches: memory that a pool took over stays whole."""

import gc
import subprocess
import sys

import pytest

# Each makes a cycle older than the cache in it, so the collector meets the cycle first; then the block is used again.
PROGRAMS = {
    "cache in a cycle": "d = {}; d['me'] = d; d['kept'] = layer.forward(x, cache=True)[2]; del d",
    "pool and cache in a cycle": """
other = fl.LSTM(8, 64, rng=0); d = [other]; d.append(d); d.append(other.forward(x, cache=True)[2]); del other, d""",
    "sequential": """
model = fl.Sequential(fl.LSTM(8, 64), fl.GRU(64, 3)); d = [model]; d.append(d)
for _ in range(3): d.append(model.forward(x, cache=True)[2])
del model, d""",
    "stream": "stream = layer.stream(4); d = [stream]; d.append(d); stream.process(x); del stream, d",
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("rows", [4, 256])  # small blocks of the heap, large ones of their own
def test_blocks_survive_the_collector(name, rows):
    program = f"""
import gc
import numpy as np
import fastlstm as fl
gc.disable()
layer, x = fl.LSTM(8, 64, rng=0), np.ones((20, {rows}, 8), "f4")
x = x[:, :4].repeat({rows // 4}, 1)
expected = layer.forward(x, cache=True)[0]
for _ in range(5):
    {PROGRAMS[name].strip().replace(chr(10), chr(10) + "    ").replace("stream(4)", f"stream({rows})")}
    gc.collect()
    junk = [np.full(s, 1e30, "f4") for s in (100, 5000, 200_000)]
    y, _, cache = layer.forward(x, cache=True)
    assert np.array_equal(y, expected)
    layer.backward(np.ones_like(y), cache)
    del cache, junk
bad = [o for o in gc.get_objects() if type(o).__name__ in ("Memory", "Pool", "Rooms")]
assert not bad, bad
"""
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert child.returncode == 0 and child.stderr == "", f"{child.returncode}\n{child.stderr}"


def test_a_cache_in_a_cycle_is_collected():
    import numpy as np

    import fastlstm as fl

    d = {}
    d["me"], d["kept"] = d, fl.LSTM(3, 4, rng=0).forward(np.ones((2, 1, 3), "f4"), cache=True)[2]
    kind = type(d["kept"].core)
    before = sum(type(one) is kind for one in gc.get_objects())
    del d
    gc.collect()
    assert sum(type(one) is kind for one in gc.get_objects()) < before
