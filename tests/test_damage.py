"""Damaged files of every format: refused in words or read, never a crash, never more memory than twice their size."""

import json
import os
import subprocess
import sys
from pathlib import Path

import damage
import numpy as np
import pytest

NEEDS = {"h5": "h5py", "keras": "h5py"}  # format -> the library that reads it
CASES = 2500  # of each format
SEEDS = (0, 1)  # a process each


def run(name, seed, folder):
    folder.mkdir()
    command = [sys.executable, damage.__file__, name, str(CASES // len(SEEDS)), str(seed)]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="no /proc here")
@pytest.mark.parametrize("name", damage.FORMATS)
def test_damaged_files(name, tmp_path):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    children = [run(name, seed, tmp_path / str(seed)) for seed in SEEDS]
    for child in children:
        out, err = child.communicate()
        assert child.returncode == 0, f"status {child.returncode}\n{err[-4000:]}"
        found = json.loads(out)
        assert found["read"] > 2 and found["refused"] > CASES / 10  # both outcomes were seen


def test_damage_is_damage():
    """The wounds change the file, everywhere in it, and are the same for the same seed."""
    data = bytes(range(256)) * 40
    found = [damage.damaged(data, np.random.default_rng(seed)) for seed in range(300)]
    assert found == [damage.damaged(data, np.random.default_rng(seed)) for seed in range(300)]
    assert sum(one != data for one in found) > 290
    assert min(map(len, found)) < 2000 and max(map(len, found)) > len(data)


BAD = {
    "crash": "import ctypes; ctypes.string_at(0)",
    "other exception": "raise KeyError('weight')",
    "memory": "room = bytearray(3 * 10**6); room[::4096] = room[::4096]",
    "address space": "bytearray(1 << 31)",
}


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="no /proc here")
@pytest.mark.parametrize("name", BAD)
def test_the_watch_sees(name, tmp_path):
    program = f"""
import sys; sys.path.insert(0, {str(Path(damage.__file__).parent)!r})
import damage
count = 0
def read(path):
    global count
    count += 1
    if count > 12:
        {BAD[name]}
damage.FORMATS["bad"] = lambda: ([b"x" * 999] * 2, ".bad", read)
damage.main("bad", 50, 0)
"""
    child = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert child.returncode != 0 and ("case 8 of" in child.stderr or name == "crash"), child.stderr
