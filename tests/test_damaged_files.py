"""Model files that cannot be loaded: refusals by reason, what they may cost, and damage in thousands of ways."""

import json
import struct
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_bytes import edited, edited_model, join, make, split
from safetensors.numpy import load_file, save_file

import fastlstm as fl
from fastlstm.files import FileFormatError


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A small valid file, as bytes."""
    path = tmp_path_factory.mktemp("good") / "model.safetensors"
    make().save(path, {"note": "é"})
    return path.read_bytes()


def load_bytes(data, path):
    path.write_bytes(data)
    return fl.load(path)


# ---- refusals by reason ------------------------------------------------------------------


def set_metadata(key, value):
    return lambda header: header["__metadata__"].update({key: value})


def set_config(place, **values):
    return lambda description: description["config"]["modules"][place]["config"].update(values)


DEEP = "[" * 100_000
REFUSALS = {
    "empty": (lambda d: b"", "0 bytes are too few"),
    "seven bytes": (lambda d: d[:7], "7 bytes are too few"),
    "header only": (lambda d: d[:8], "announces a header"),
    "text": (lambda d: b"this is no model at all, sorry", "not a safetensors file, or cut short"),
    "pickle": (lambda d: b"\x80\x04\x95" + d, "not a safetensors file"),
    "huge header": (lambda d: struct.pack("<Q", 2**63 - 1) + d[8:], "announces a header of 9223372036854775807"),
    "cut": (lambda d: d[:-1], "damaged"),
    "longer": (lambda d: d + b"\0", "damaged"),
    "header no JSON": (lambda d: join(b"{]      ", b""), "damaged"),
    "nothing inside": (lambda d: join({}, b""), "without a fastlstm model"),
    "foreign": (lambda d: edited(d, lambda h: h.update(__metadata__={"format": "pt"})), "load_state_dict"),
    "no metadata": (lambda d: edited(d, lambda h: h.pop("__metadata__")), "load_state_dict"),
    "newer": (lambda d: edited(d, set_metadata("version", "2")), "newer fastlstm .*version 2, this one reads 1"),
    "version zero": (lambda d: edited(d, set_metadata("version", "0")), "unreadable format version '0'"),
    "version in words": (lambda d: edited(d, set_metadata("version", "one")), "unreadable format version"),
    "long version": (lambda d: edited(d, set_metadata("version", "9" * 5000)), "unreadable format version"),
    "no version": (lambda d: edited(d, lambda h: h["__metadata__"].pop("version")), "unreadable format version ''"),
    "no description": (
        lambda d: edited(d, lambda h: h["__metadata__"].pop("model")), "description of the model is damaged",
    ),
    "bad description": (lambda d: edited(d, set_metadata("model", "{")), "description of the model is damaged"),
    "deep description": (lambda d: edited(d, set_metadata("model", DEEP)), "description of the model is damaged"),
    "description no dict": (lambda d: edited(d, set_metadata("model", "[1]")), "no model can be built"),
    "unknown class": (
        lambda d: edited_model(d, lambda m: m.update({"class": "Transformer"})), "unknown class 'Transformer'",
    ),
    "unknown argument": (lambda d: edited_model(d, set_config(1, colour=1)), "no model can be built.*colour"),
    "missing argument": (
        lambda d: edited_model(d, lambda m: m["config"]["modules"][1]["config"].pop("in_features")),
        "no model can be built",
    ),
    "wrong type": (lambda d: edited_model(d, set_config(1, in_features="3")), "must be an integer"),
    "wrong size": (
        lambda d: edited_model(d, set_config(0, num_embeddings=7)), r"0.weight has shape \(6, 3\), expected \(7, 3\)",
    ),
    "absurd size": (lambda d: edited_model(d, set_config(0, num_embeddings=10**14)), "0.weight has shape"),
    "more absurd": (lambda d: edited_model(d, set_config(0, num_embeddings=10**40)), "no model can be built"),
    "absurd layers": (lambda d: edited_model(d, lambda m: m.update({"class": "LSTM", "config": {
        "input_size": 1, "hidden_size": 1, "num_layers": 10**5}})), "num_layers 100000 with 4 tensors"),
    "absurd list of layers": (lambda d: edited_model(d, lambda m: m.update({"class": "LSTM", "config": {
        "input_size": 1, "hidden_size": [1] * 100}})), "hidden_size of 100 layers with 4 tensors"),
    "absurd LSTM": (lambda d: edited_model(d, lambda m: m.update({"class": "LSTM", "config": {
        "input_size": 10**6, "hidden_size": 10**8}})), "missing weight_ih_l0"),
    "wrong dtype": (
        lambda d: edited_model(d, lambda m: [c["config"].update(dtype="float64") for c in m["config"]["modules"]]),
        "0.weight holds F32, expected F64",
    ),
    "other dtype": (lambda d: edited_model(d, set_config(0, dtype="object")), "dtype must be float32 or float64"),
    "renamed": (lambda d: edited(d, lambda h: h.update(other=h.pop("1.bias"))), "missing 1.bias; unexpected other"),
    "as integers": (lambda d: edited(d, lambda h: h["1.bias"].update(dtype="I32")), "1.bias holds I32"),
    "as bfloat": (lambda d: edited(d, lambda h: h["1.bias"].update(dtype="BF16", shape=[8])), "1.bias has shape"),
    "overlap": (lambda d: edited(d, lambda h: h["1.bias"].update(data_offsets=[0, 16])), "damaged"),
    "beyond": (lambda d: edited(d, lambda h: h["2.weight"].update(data_offsets=[136, 2**50])), "damaged"),
    "negative shape": (lambda d: edited(d, lambda h: h["1.bias"].update(shape=[-4])), "damaged"),
    "huge shape": (lambda d: edited(d, lambda h: h["1.bias"].update(shape=[2**62, 2**62])), "damaged"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusal_says_why(name, good, tmp_path):
    spoil, words = REFUSALS[name]
    path = tmp_path / "bad.safetensors"
    with pytest.raises(FileFormatError, match=words) as caught:
        load_bytes(spoil(good), path)
    assert isinstance(caught.value, ValueError) and str(caught.value).startswith(str(path))
    assert len(str(caught.value)) < 2000


def test_foreign_tensors_load_as_the_message_says(tmp_path):
    save_file({"weight": np.ones((2, 3), "f4"), "bias": np.ones(2, "f4")}, tmp_path / "a")
    with pytest.raises(FileFormatError, match="safetensors.numpy.load_file"):
        fl.load(tmp_path / "a")
    fl.Linear(3, 2).load_state_dict(load_file(tmp_path / "a"))


# ---- memory ------------------------------------------------------------------------------


def peak_of_load(path):
    tracemalloc.start()
    try:
        fl.load(path)
    except FileFormatError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


def test_memory_of_a_load(tmp_path):
    fl.Linear(2000, 1000, rng=0).save(tmp_path / "a")
    assert peak_of_load(tmp_path / "a") < 2 * (tmp_path / "a").stat().st_size


@pytest.mark.parametrize("name", [name for name in REFUSALS if "absurd" in name or "huge" in name])
def test_refusals_do_not_allocate(name, good, tmp_path):
    (tmp_path / "a").write_bytes(REFUSALS[name][0](good))
    fl.Linear(3, 2)  # whatever is imported late
    assert peak_of_load(tmp_path / "a") < 1_000_000


# ---- damage at random --------------------------------------------------------------------


def survives(data, path):
    """Either a model whose tensors fit its description, or FileFormatError with the path."""
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a flip can make a NaN
        try:
            model = fl.load(path)
        except FileFormatError as error:
            assert str(path) in str(error)
            return False
    assert model._weight_shapes() == {n: w.shape for n, w in model.state_dict().items()}
    type(model).from_config(model.config())
    return True


def test_every_cut(good, tmp_path):
    assert survives(good, tmp_path / "a")
    for length in range(len(good)):
        assert not survives(good[:length], tmp_path / "a")


def test_flips(good, tmp_path):
    """One to eight flipped bits, in the header, where the sense is, or among the weights."""
    rng = np.random.default_rng(0)
    header = 8 + struct.unpack("<Q", good[:8])[0]
    loaded = 0
    for _ in range(800):
        data = bytearray(good)
        region = (0, header) if rng.random() < 0.8 else (header, len(data))
        for at in rng.integers(*region, rng.integers(1, 9)):
            data[at] ^= 1 << rng.integers(8)
        loaded += survives(bytes(data), tmp_path / "a")
    assert 100 < loaded < 400  # both outcomes were seen


def test_a_flip_among_the_weights_changes_only_them(good, tmp_path):
    header = 8 + struct.unpack("<Q", good[:8])[0]
    for at in range(header, len(good), 7):
        data = bytearray(good)
        data[at] ^= 0x10
        assert survives(bytes(data), tmp_path / "a")


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=6,
)


def places(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield from places(child, (*path, key))


def put(value, path, new):
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = put(copy[path[0]], path[1:], new)
    return copy


@settings(max_examples=500, deadline=None)
@given(data=st.data())
def test_junk_in_the_header(good, tmp_path_factory, data):
    """Any JSON in any place of the header."""
    header, body = split(good)
    place = data.draw(st.sampled_from(list(places(header))))
    header = put(header, place, data.draw(JUNK))
    survives(join(json.dumps(header).encode(), body), tmp_path_factory.getbasetemp() / "junk")


@settings(max_examples=500, deadline=None)
@given(data=st.data())
def test_junk_in_the_description(good, tmp_path_factory, data):
    """Any JSON in any place of the model's description."""
    def change(header):
        description = json.loads(header["__metadata__"]["model"])
        place = data.draw(st.sampled_from(list(places(description))))
        header["__metadata__"]["model"] = json.dumps(put(description, place, data.draw(JUNK)))
    survives(edited(good, change), tmp_path_factory.getbasetemp() / "junk")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=64), st.integers(0, 2**64 - 1) | st.integers(0, 200))
def test_sizes(good, tmp_path_factory, text, length):
    path = tmp_path_factory.getbasetemp() / "sizes"
    survives(struct.pack("<Q", length) + good[8:], path)
    assert not survives(struct.pack("<Q", length) + text, path)
