"""from_onnx on files made to cost much by what they compute, and on files of which some nodes cannot be read."""

import contextlib
import itertools
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import damage
import numpy as np
import onnx_bytes as ob
import pytest
from command_line import fails, succeeds
from test_growth import grows_with_size
from test_onnx_fold import ARRAYS, W, branch, choice, ints, model, op, tensors_of

import fastlstm as fl
from fastlstm.convert import formats


@contextlib.contextmanager
def memory_below(limit):
    """Python's own memory, in bytes, in the block."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


def written(folder, data):
    path = folder / "model.onnx"
    path.write_bytes(data)
    return path


# ---- memory -----------------------------------------------------------------------------------------------------

LARGE = np.ones((1, 300, 300), "f4")  # 360 kB
CUBE = {"s": ints(2**14, 2**14, 2**14)}
MANY = [op("Expand", "one s", "many")]


@pytest.mark.parametrize("nodes, arrays", [
    ([op("Concat", " ".join("a" * 64), "b", axis=0), op("Concat", " ".join("b" * 64), "c", axis=0),
      op("Concat", " ".join("c" * 64), axis=0)], {"a": LARGE}),
    ([op("Tile", "a s")], {"a": W, "s": ints(2**13, 2**13, 2**13)}),
    ([*MANY, op("Neg", "many")], CUBE), ([*MANY, op("Cast", "many", to=11)], CUBE),
    ([*MANY, op("Cast", "many", to=16)], CUBE), ([*MANY, op("Reshape", "many t")], {**CUBE, "t": ints(-1)}),
    ([*MANY, op("ReduceSum", "many")], CUBE), ([*MANY, op("Add", "many one")], CUBE),
    ([*MANY, op("Concat", "many many", axis=0)], CUBE), ([*MANY, op("Flatten", "many")], CUBE),
    ([*MANY, op("Equal", "many one", "c"), op("Where", "c one one")], CUBE),
    ([*MANY, op("DequantizeLinear", "bytes one")], {**CUBE, "zero": np.int8(0)}),
    ([op("ConstantOfShape", "s", "many"), op("Gather", "many t")], {**CUBE, "t": ints(0)}),
    ([op("ConstantOfShape", "s", "many"), op("Neg", "many")], CUBE),
    ([op("ConstantOfShape", "s", "i"), op("Cast", "i", "j", to=7), op("Gather", "one j")], CUBE),
])
def test_sizes_that_are_only_named(nodes, arrays, tmp_path):
    """No memory is taken before it is known that there is room."""
    if any(b"bytes" in node for node in nodes):
        nodes = [op("Expand", "zero s", "bytes"), *nodes[1:]]
    path = written(tmp_path, model(nodes, {"one": np.ones(1, "f4"), **arrays}))
    reason = pytest.raises(fl.FileFormatError, match="needs more memory than twice|does not fit|has W of shape")
    with memory_below(3 * os.path.getsize(path) + 500_000), reason:
        fl.from_onnx(path)


def test_weights_that_are_one_number(tmp_path):
    """A view of one number is a layer of any size, for which there is no room either."""
    rnn = ob.node("RNN", ["x", "w", "r"], ["y"], "rnn")
    nodes = [op("Expand", "one s"), op("Expand", "one t", "r"), rnn]
    arrays = {"one": np.ones(1, "f4"), "s": ints(1, 2**14, 2**14), "t": ints(1, 2**14, 2**14)}
    with pytest.raises(fl.FileFormatError, match="shares weights with other nodes, .* twice the file's size"):
        fl.from_onnx(written(tmp_path, ob.model(ob.graph(nodes, tensors_of(arrays)))))
    small = {**arrays, "s": ints(1, 4, 3), "t": ints(1, 4, 4), "unused": LARGE}
    found = fl.from_onnx(written(tmp_path, ob.model(ob.graph(nodes, tensors_of(small)))))["rnn"]
    assert found.state_dict()["weight_ih_l0"].tolist() == [[1] * 3] * 4


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="no /proc here")
@pytest.mark.parametrize("kind", ["f4", "f4 beside", "f2", "f2 cast", "i1", "i1 whole", "view"])
def test_memory(kind, tmp_path):
    """Twice the file's size, or that of the layer if it is larger, is enough: as exporters write them, W in pieces."""
    (tmp_path / "small").write_bytes(model([op("Neg", "a")], {"a": W}))
    W_, R = np.ones((1000, 1200), "f4"), np.ones((1, 1000, 1000), "f4")
    kinds = {"view": "f4"}.get(kind, kind[:2])
    arrays = {"a": W_.astype(kinds), "r": R.astype(kinds), "s": np.ones((), "f4")}
    if kind == "f4 beside":
        for name in "ar":
            (tmp_path / name).write_bytes(arrays[name].tobytes())
            arrays[name] = arrays[name], {"location": name}
    split = op("Split", "a", "a0 a1 a2 a3", split=[250] * 4)
    nodes = [split, op("Concat", "a0 a2 a3 a1", "b", axis=0)]
    made = {"i1": "DequantizeLinear", "f2 cast": "Cast"}.get(kind)
    attributes = {"to": 1} if made == "Cast" else {}
    if kind == "view":
        nodes = [op("Transpose", "a", "b", perm=[0, 1])]
    if made:
        nodes = [op(made, f"a{n}" + (" s" if made != "Cast" else ""), f"c{n}", **attributes) for n in range(4)]
        nodes = [split, *nodes, op("Concat", "c0 c2 c3 c1", "b", axis=0)]
    if kind == "i1 whole":
        nodes = [op("DequantizeLinear", "a s", "b")]
    nodes.append(op("Unsqueeze", "b", axes=[0]))
    nodes.append(op("DequantizeLinear", "r s", "R") if kinds == "i1" else op("Identity", "r", "R"))
    rnn = ob.node("RNN", ["x", "w", "R"], ["y"], "rnn")
    (tmp_path / "large").write_bytes(ob.model(ob.graph([*nodes, rnn], tensors_of(arrays)), 12))
    program = f"""
import sys; sys.path.insert(0, {str(Path(damage.__file__).parent)!r})
import damage, fastlstm as fl
fl.from_onnx("small")
print(damage._read_watched(fl.from_onnx, "large")[1])
"""
    child = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr[-3000:]
    most = max(sum(path.stat().st_size for path in tmp_path.iterdir()), W_.nbytes + R.nbytes)
    assert 0.7 * most <= int(child.stdout) <= 2.1 * most


# ---- time -------------------------------------------------------------------------------------------------------


def chain(length, last="w"):
    names = ["a", *(f"a{n}" for n in range(length - 1)), last]
    return [op("Neg", a, b) for a, b in itertools.pairwise(names)]


def test_long_chains(tmp_path):
    found = fl.from_onnx(written(tmp_path, model(chain(1000), {"a": W})))["rnn"].state_dict()
    assert np.array_equal(found["weight_ih_l0"], W[0])
    with pytest.raises(fl.FileFormatError, match="W is computed by more than 1024 nodes"):
        fl.from_onnx(written(tmp_path, model(chain(20_000), {"a": W})))
    with pytest.raises(fl.FileFormatError, match="makes too many numbers on the way"):
        fl.from_onnx(written(tmp_path, model(chain(1000), {"a": LARGE})))


def test_work_for_chains(tmp_path):
    assert grows_with_size(lambda length: written(tmp_path, model(chain(length), {"a": W})), fl.from_onnx)


def test_work_for_nodes_that_share_constants(tmp_path):
    """As exporters write them: all Slices of all layers use the same few numbers."""
    def make(count):
        nodes = []
        for n in range(count):
            nodes += [op("Slice", "a zero four zero", f"b{n}"), op("Unsqueeze", f"b{n} zero", f"c{n}"),
                      ob.node("RNN", ["x", f"c{n}", "R"], [f"y{n}"], clip=1.0 + n)]
        arrays = {"a": W[0], "R": ARRAYS["R"], "zero": ints(0), "four": ints(4), "junk": np.ones((300, 300), "f4")}
        return written(tmp_path, ob.model(ob.graph(nodes, tensors_of(arrays))))

    assert grows_with_size(make, fl.from_onnx, (40, 80))


def test_nodes_that_share_long_chains(tmp_path):
    """They are computed for each node, so their steps are bounded by the number of names."""
    nodes = chain(900, "v")
    for n in range(40):
        nodes += [op("Mul", f"v s{n}", f"w{n}"), ob.node("RNN", ["x", f"w{n}", "R"], [f"y{n}"])]
    arrays = {"a": W, "R": ARRAYS["R"], **{f"s{n}": np.ones(1, "f4") for n in range(40)}}
    with pytest.raises(fl.FileFormatError, match="looks up too many names that others share"):
        fl.from_onnx(written(tmp_path, ob.model(ob.graph(nodes, tensors_of(arrays)))))


def test_depth_of_choices(tmp_path):
    """Conditions of conditions, branches in branches: 16 of them, whatever Python's stack allows."""
    def conditions(count):
        nodes = [choice(f"c{n}", ([], {"p": np.array(True)}, "p"), ([], {"p": np.array(True)}, "p"), f"c{n + 1}")
                 for n in range(count)]
        return model([*nodes, choice(f"c{count}", ([], {"p": W}, "p"), ([], {"p": W}, "p"))], {"c0": np.array(True)})

    def branches(count):
        node = op("Identity", "a", "v")
        for _ in range(count):
            node = op("If", "c", "v", then_branch=branch([node], {}, "v"), else_branch=branch([node], {}, "v"))
        return model([node, op("Identity", "v")], {"a": W, "c": np.array(True)})

    for make, most in ((conditions, 15), (branches, 8)):  # each branch is there twice
        found = fl.from_onnx(written(tmp_path, make(most)))["rnn"].state_dict()
        assert np.array_equal(found["weight_ih_l0"], W[0])
    with pytest.raises(fl.FileFormatError, match="whose condition is given by an If, and so on"):
        fl.from_onnx(written(tmp_path, conditions(17)))


def test_a_crowd_of_names(tmp_path):
    """More names than nodes have room for cost no memory."""
    crowd = ob.field(1, ob.fields(2, ["a"] * 4000) + ob.field(4, "Split")) * 8
    path = written(tmp_path, ob.model(crowd + ob.graph([ob.node("RNN", ["x", "W", "R"], ["y"])], tensors_of(ARRAYS))))
    reason = pytest.raises(fl.FileFormatError, match="is in a graph with more names than")
    with memory_below(2 * os.path.getsize(path) + 200_000), reason:
        fl.from_onnx(path)


# ---- some of the nodes ------------------------------------------------------------------------------------------


def several(count=1):
    """`good`, and nodes that cannot be read: one of another domain, in a function, with weights known too late."""
    rnn = [ob.node("RNN", ["x", "W", "R", "B"], ["y"], "good", hidden_size=4),
           ob.node("RNN", ["x", "late", "R"], ["z"], "late"), ob.node("QLSTM", ["x"], ["u"], "quick", "com.example")]
    rnn += [ob.node("RNN", ["x", "gone", "R"], [f"g{n}"]) for n in range(count)]
    function = ob.field(25, ob.field(1, "f") + ob.field(7, ob.node("GRU", ["x", "W", "R"], ["y"], "inner")))
    nodes = [op("Tanh", "x", "late"), *rnn]
    return ob.model(ob.graph(nodes, tensors_of({"W": W, "R": ARRAYS["R"], "B": ARRAYS["B"]})), more=function)


def test_all_that_cannot_be_read_are_named(tmp_path):
    path = written(tmp_path, several())
    with pytest.raises(fl.FileFormatError) as caught:
        fl.from_onnx(path)
    words = str(caught.value)
    for part in (f"{path}: 4 recurrent nodes cannot be read: node 'late' (RNN) cannot be read: W is 'late', ",
                 "node 'quick' (QLSTM) is of domain 'com.example'", "node 'g0' (RNN) cannot be read: W is 'gone'",
                 "node 'inner' (GRU) is inside the function 'f'", "from_onnx(path, names=['good']) reads the others"):
        assert part in words
    with pytest.raises(fl.FileFormatError, match="1003 recurrent nodes cannot .*; and 998 more; ") as caught:
        fl.from_onnx(written(tmp_path, several(1000)))
    assert len(str(caught.value)) < 6000


def test_names_of_nodes_to_read(tmp_path):
    path = written(tmp_path, several())
    assert list(fl.from_onnx(path, names=["good"])) == list(fl.from_onnx(path, ("good",))) == ["good"]
    assert fl.from_onnx(path, names=[]) == {}
    with pytest.raises(fl.FileFormatError, match=r"model.onnx: node 'late' .RNN. cannot .*names=\['good'\]. reads"):
        fl.from_onnx(path, names=["late", "good"])
    with pytest.raises(fl.FileFormatError, match="no recurrent node is called 'y'; there are 'good', 'late', 'quick'"):
        fl.from_onnx(path, names=["good", "y"])
    for names in ("good", b"good", [1], 3):
        with pytest.raises(TypeError, match="names must be a list of names of nodes, got"):
            fl.from_onnx(path, names=names)


def test_inspect_and_convert_take_what_can_be_read(tmp_path):
    path = written(tmp_path, several())
    found = formats.contents(path)
    assert list(found.models) == ["good"] and list(found.refused) == ["late", "quick", "g0", "inner"]
    text = succeeds("inspect", path)
    assert "an ONNX graph: 5 recurrent layers" in text and "'good':" in text
    assert "'late' cannot be read: node 'late' (RNN) cannot be read: W is 'late'" in text
    succeeds("convert", path, tmp_path / "good.safetensors", "--name", "good")
    weights = fl.load(tmp_path / "good.safetensors").state_dict()
    assert np.array_equal(weights["weight_ih_l0"], W[0])
    assert "late: node 'late' (RNN) cannot be read: W is 'late'" in fails(
        "convert", path, tmp_path / "late.safetensors", "--name", "late")


def test_pieces_of_a_number_that_is_repeated(tmp_path):
    """Only what is taken is in memory."""
    nodes = [op("ConstantOfShape", "s", "many"), op("Gather", "many t")]
    path = written(tmp_path, model(nodes, {"s": ints(2**34), "t": np.zeros((1, 4, 3), np.int64)}))
    with memory_below(500_000):
        assert not fl.from_onnx(path)["rnn"].state_dict()["weight_ih_l0"].any()


def test_nodes_full_of_nothing(tmp_path):
    """Fields that say nothing are not walked again for every name that the node gives."""
    junk = ob.node("Constant", [], ["c"], value=ob.tensor("", W)) + b"\x78\x00" * 200_000
    nodes = [junk, *(op("Concat", " ".join("c" * 64), f"d{n}", axis=0) for n in range(100))]
    nodes += [op("Concat", " ".join(f"d{n}" for n in range(50)), axis=0)]
    with pytest.raises(fl.FileFormatError, match="more than 4096 fields"):
        fl.from_onnx(written(tmp_path, model(nodes, {})))


def test_small_blocks_take_no_more_memory(tmp_path):
    size = 300_000
    nodes = [op("DequantizeLinear", "q s", "d", axis=0, block_size=1), op("Slice", "d b e", "f"), op("Reshape", "f t")]
    arrays = {"q": np.ones(size, "i1"), "s": np.ones(size, "f4"), "b": ints(0), "e": ints(12), "t": ints(1, 4, 3)}
    path = written(tmp_path, model(nodes, arrays, opset=21))
    with memory_below(3 * os.path.getsize(path)):
        assert (fl.from_onnx(path)["rnn"].state_dict()["weight_ih_l0"] == 1).all()
