"""fastlstm.to_onnx: what ONNX lacks is refused by name and place, and files are whole or not there."""

import stat
import sys

import numpy as np
import pytest

import fastlstm as fl
from fastlstm.module import hollow

onnx = pytest.importorskip("onnx")

HARD = (("hard_sigmoid", 0.25, 0.25), "tanh", "tanh")
REFUSED = {
    "projection": (lambda: fl.LSTM(3, 4, proj_size=2), r"the model itself \(LSTM\): ONNX has no proj_size=2$"),
    "peephole_o": (lambda: fl.LSTM(3, 4, peephole="o", peephole_o="c_prev"), r"no peephole_o='c_prev'$"),
    "without": (lambda: fl.LSTM(3, 4, without="i"), r"no without='i'$"),
    "cell_clip": (lambda: fl.LSTM(3, 4, cell_clip=3), r"no cell_clip=3\.0$"),
    "proj_clip": (lambda: fl.LSTM(3, 4, proj_size=2, proj_clip=1), r"no proj_size=2, proj_clip=1\.0$"),
    "layer_norm": (lambda: fl.LSTM(3, 4, layer_norm="ba"), r"no layer_norm='ba'$"),
    "layer_norm, gates": (lambda: fl.LSTM(3, 4, layer_norm="gates", norm_eps=0.1), r"no layer_norm='gates'$"),
    "gate_recurrence": (lambda: fl.LSTM(3, 4, gate_recurrence=True), r"no gate_recurrence=True$"),
    "zoneout": (lambda: fl.LSTM(3, 4, zoneout_h=0.25, zoneout_c=0.5), r"no zoneout_h=0\.25, zoneout_c=0\.5$"),
    "zoneout of a GRU": (lambda: fl.GRU(3, 4, zoneout_h=0.1), r"\(GRU\): ONNX has no zoneout_h=0\.1$"),
    "zoneout of an RNN": (lambda: fl.RNN(3, 4, zoneout_h=0.1), r"\(RNN\): ONNX has no zoneout_h=0\.1$"),
    "coupled": (lambda: fl.LSTM(3, 4, coupled="i=1-f", activations=("tanh", "tanh", "tanh")),
                r"no coupled='i=1-f' with activation tanh of the gates$"),
    "coupled, hard": (lambda: fl.LSTM(3, 4, coupled="i=1-f", activations=HARD), "activation hard_sigmoid of the gates"),
    "inside": (lambda: fl.Sequential(fl.Linear(2, 3), fl.Sequential(fl.LSTM(3, 4), fl.LSTM(4, 3, layer_norm="ba"))),
               r"^to_onnx: 1\.1 \(LSTM\): ONNX has no layer_norm='ba'$"),
    "wrapped": (lambda: fl.Sequential(fl.Last(fl.Bidirectional(fl.GRU(3, 4), fl.LSTM(3, 4, without="o")))),
                r"^to_onnx: 0\.layer\.backward_layer \(LSTM\): ONNX has no without='o'$"),
    "depth gated": (lambda: fl.DepthGatedLSTM(3, 4), r"the model itself \(DepthGatedLSTM\) has no counterpart"),
    "clockwork": (lambda: fl.Sequential(fl.ClockworkRNN(3, 4)), r"^to_onnx: 0 \(ClockworkRNN\) has no counterpart"),
    "1997": (lambda: fl.Reverse(fl.LSTM1997(3, 4)), r"^to_onnx: layer \(LSTM1997\) has no counterpart in ONNX$"),
    "subclass": (lambda: Mine(3, 4), r"\(Mine\) has no counterpart"),
    "subclass inside": (lambda: fl.Sequential(Mine(3, 4)), r"0 \(Mine\) has no counterpart"),
    "a tiny clip": (lambda: fl.LSTM(3, 4, clip=1e-60), r"no clip with 1e-60, its attributes are of 32 bits$"),
    "a large constant": (lambda: fl.RNN(3, 4, activations=(("affine", 1.0, -1e39),)), r"no activation affine with -1e"),
    "clip in float64": (lambda: fl.GRU(3, 4, clip=0.1, dtype="float64"), r"no clip with 0\.1, its attributes"),
    "constant in float64": (lambda: fl.LSTM(3, 4, activations=("hard_sigmoid", "tanh", "tanh"), dtype="float64"),
                            r"no activation hard_sigmoid with 0\.2, its attributes"),
    "an embedding behind": (lambda: fl.Sequential(fl.Linear(2, 3), fl.Embedding(5, 2)),
                            r"1 \(Embedding\) takes integers, but is not the first member"),
}


class Mine(fl.LSTM):
    pass


@pytest.mark.parametrize("name", REFUSED)
def test_what_onnx_lacks(name, tmp_path):
    make, words = REFUSED[name]
    with pytest.raises(TypeError if "counterpart" in words else ValueError, match=words):
        fl.to_onnx(make(), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_the_same_numbers_are_taken_where_float32_has_them(tmp_path):
    fl.to_onnx(fl.GRU(3, 4, clip=0.125, dtype="float64"), tmp_path / "a.onnx")
    fl.to_onnx(fl.GRU(3, 4, clip=0.1), tmp_path / "a.onnx")


WRONG = {
    "model": (lambda p: fl.to_onnx(3, p), TypeError, "model must be a Module, got int"),
    "class": (lambda p: fl.to_onnx(fl.LSTM, p), TypeError, "model must be a Module, got type"),
    "state": (lambda p: fl.to_onnx(fl.LSTM(2, 3), p, state=1), TypeError, "state must be True or False, got int"),
    "lengths": (lambda p: fl.to_onnx(fl.LSTM(2, 3), p, lengths=None), TypeError, "lengths must be True or False"),
    "no state": (lambda p: fl.to_onnx(fl.Linear(2, 3), p, state=True), ValueError, "state=True.*no recurrent layer"),
    "no lengths": (lambda p: fl.to_onnx(fl.Linear(2, 3), p, lengths=True), ValueError, "lengths=True.*no recurrent"),
    "old": (lambda p: fl.to_onnx(fl.LSTM(2, 3), p, opset=13), ValueError, r"opset must be in 14\.\.25, got 13"),
    "new": (lambda p: fl.to_onnx(fl.LSTM(2, 3), p, opset=26), ValueError, r"opset must be in 14\.\.25, got 26"),
    "no opset": (lambda p: fl.to_onnx(fl.LSTM(2, 3), p, opset=None), TypeError, "opset must be an integer, got None"),
    "a flag": (lambda p: fl.to_onnx(fl.LSTM(2, 3), p, opset=True), TypeError, "opset must be an integer, got bool"),
    "metadata": (lambda p: fl.to_onnx(fl.LSTM(2, 3), p, metadata=[1]), TypeError, "metadata must be a dict"),
    "a note": (lambda p: fl.to_onnx(fl.LSTM(2, 3), p, metadata={"a": 1}), TypeError, "map strings to strings"),
    "taken": (lambda p: fl.to_onnx(fl.LSTM(2, 3), p, metadata={"fastlstm.model": ""}), ValueError,
              "'fastlstm.model' is taken; fastlstm.model describes the model"),
    "surrogate": (lambda p: fl.to_onnx(fl.LSTM(2, 3), p, metadata={"a": "\ud800"}), ValueError, "UTF-8"),
    "path": (lambda p: fl.to_onnx(fl.LSTM(2, 3), 3.5), TypeError, "float"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(name, tmp_path):
    call, kind, words = WRONG[name]
    with pytest.raises(kind, match=words):
        call(tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_an_opset_newer_than_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx.defs, "onnx_opset_version", lambda: 16)
    with pytest.raises(ValueError, match=r"opset is 17, but the package onnx .* ends at 16"):
        fl.to_onnx(fl.LSTM(2, 3), tmp_path / "a.onnx")


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'fastlstm\[onnx\]'"):
        fl.to_onnx(fl.LSTM(2, 3), tmp_path / "a.onnx")


def test_what_is_too_large_is_refused_before_anything_is_copied(tmp_path):
    with hollow():
        model = fl.LSTM(20000, 20000)  # 12.8 GB that are not there
    with pytest.raises(ValueError, match="needs 128006400.. bytes, a file of ONNX holds 2147483647 at most"):
        fl.to_onnx(model, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("make, room", [
    (lambda: fl.LSTM(3, 4, bias=False, peephole="o"), 464),  # P has zeros that the model has not
    (lambda: fl.LSTM(3, 4, bias=False), 448),  # the numbers fit, but not with what is around them
])
def test_what_is_too_large_in_the_file(make, room, tmp_path, monkeypatch):
    model = make()
    assert model.parameters_bytes == room
    monkeypatch.setattr("fastlstm.convert.onnx_build.LIMIT", room)
    with pytest.raises(ValueError, match=f"bytes, a file of ONNX holds {room} at most"):
        fl.to_onnx(model, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


# ---- whole or not at all ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["os.replace", "os.fsync"])
def test_a_failure_leaves_what_was_there(what, tmp_path, monkeypatch):
    path = tmp_path / "a.onnx"
    path.write_bytes(b"what was there")

    def fail(*_):
        raise OSError("no room")

    monkeypatch.setattr(what, fail)
    with pytest.raises(OSError, match="no room"):
        fl.to_onnx(fl.LSTM(2, 3), path)
    assert path.read_bytes() == b"what was there" and list(tmp_path.iterdir()) == [path]


def test_a_failure_half_way_leaves_what_was_there(tmp_path, monkeypatch):
    from fastlstm.convert import onnx_ways

    path, calls, rows = tmp_path / "a.onnx", [], onnx_ways._rows

    def fail(*given):
        calls.append(None)
        if len(calls) == 5:
            raise MemoryError
        return rows(*given)

    path.write_bytes(b"what was there")
    monkeypatch.setattr(onnx_ways, "_rows", fail)
    with pytest.raises(MemoryError):
        fl.to_onnx(fl.LSTM(2, 3, 2), path)
    assert path.read_bytes() == b"what was there" and list(tmp_path.iterdir()) == [path] and len(calls) == 5


def test_a_graph_that_fails_its_check_is_not_written(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise onnx.checker.ValidationError("no")

    monkeypatch.setattr(onnx.checker, "check_model", fail)
    with pytest.raises(onnx.checker.ValidationError):
        fl.to_onnx(fl.LSTM(2, 3), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_permissions_and_links_stay(tmp_path):
    path, link = tmp_path / "a.onnx", tmp_path / "link.onnx"
    path.write_bytes(b"")
    path.chmod(0o640)
    link.symlink_to(path)
    fl.to_onnx(fl.LSTM(2, 3, rng=0), link)
    assert link.is_symlink() and stat.S_IMODE(path.stat().st_mode) == 0o640
    onnx.checker.check_model(onnx.load(path), full_check=True)


def test_places_that_are_none(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a directory"):
        fl.to_onnx(fl.LSTM(2, 3), tmp_path)
    with pytest.raises(FileNotFoundError):
        fl.to_onnx(fl.LSTM(2, 3), tmp_path / "nowhere" / "a.onnx")


def test_numbers_that_are_none_are_written_as_they_are(tmp_path):
    model = fl.LSTM(2, 3, rng=0)
    weights = model.state_dict()
    weights["weight_ih_l0"][0, 0] = np.nan
    with pytest.warns(RuntimeWarning, match="weight_ih_l0"):
        model.load_state_dict(weights)
    fl.to_onnx(model, tmp_path / "a.onnx")
    stored = {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(tmp_path / "a.onnx").graph.initializer}
    assert np.isnan(stored["l0.W"]).sum() == 1
