"""fastlstm.from_keras: what is refused, and by which words; files made by hand (tests/keras_bytes.py)."""

import io
import json
import os
import tracemalloc
import warnings
import zipfile

import keras_bytes as kb
import numpy as np
import pytest

import fastlstm as fl
from fastlstm.convert.hdf5_read import MAX_TEXT
from fastlstm.files import FileFormatError

pytest.importorskip("h5py")

LSTM, DENSE = kb.layer("LSTM"), kb.layer("Dense")
INPUT = kb.layer("InputLayer")
ENDINGS = (".h5", ".keras")


@pytest.fixture
def read(tmp_path):
    def read(data, ending=".h5"):
        path = tmp_path / f"a{ending}"
        path.write_bytes(data)
        return fl.from_keras(path)

    return read


@pytest.fixture
def refused(read):
    def refused(data, words, ending=".h5"):
        with pytest.raises(FileFormatError, match=rf"a\{ending}: .*{words}"):
            read(data, ending)

    return refused


# ---- what is read -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_to_the_bit(ending, dtype, read):
    layers = [kb.layer("LSTM", dtype=dtype), kb.layer("GRU", units=5, dtype=dtype),
              kb.layer("SimpleRNN", units=6, dtype=dtype), kb.layer("Dense", dtype=dtype)]
    arrays = kb.weights(*layers, dtype=dtype)
    model = read(kb.written(ending, layers, arrays), ending)
    assert [type(one).__name__ for one in model] == ["LSTM", "GRU", "RNN", "Linear"] and model.dtype == dtype
    found = model.state_dict()

    def same(name, expected):
        assert found[name].tobytes() == np.ascontiguousarray(expected).tobytes(), name
        assert found[name].flags.c_contiguous and found[name].flags.writeable

    same("0.weight_ih_l0", arrays["lstm"]["kernel"].T)
    same("0.weight_hh_l0", arrays["lstm"]["recurrent_kernel"].T)
    same("0.bias_ih_l0", arrays["lstm"]["bias"])
    same("0.bias_hh_l0", np.zeros(16, dtype))
    gru = np.r_[5:10, 0:5, 10:15]  # r z h of z r h
    same("1.weight_ih_l0", arrays["gru"]["kernel"][:, gru].T)
    same("1.weight_hh_l0", arrays["gru"]["recurrent_kernel"][:, gru].T)
    same("1.bias_ih_l0", arrays["gru"]["bias"][0, gru])
    same("1.bias_hh_l0", arrays["gru"]["bias"][1, gru])
    same("2.weight_ih_l0", arrays["simplernn"]["kernel"].T)
    same("3.weight", arrays["dense"]["kernel"].T)


def test_old_ways_to_write(read):
    """Keras before 2.2.3: a list of layers; Keras before 2.4: class Model; long lists of names in parts."""
    arrays = kb.weights(LSTM)
    assert isinstance(read(kb.h5({"class_name": "Sequential", "config": [LSTM]}, arrays, "2.1.6")), fl.LSTM)
    graph = kb.functional(INPUT, LSTM) | {"class_name": "Model"}
    assert isinstance(read(kb.h5(graph, {"inputlayer": {}, **arrays}, "2.2.4-tf")), fl.LSTM)

    def parts(file):
        names = file["model_weights/lstm"].attrs.pop("weight_names")
        file["model_weights/lstm"].attrs["weight_names0"] = names[:2]
        file["model_weights/lstm"].attrs["weight_names1"] = names[2:]

    assert isinstance(read(kb.h5(kb.sequential(LSTM), arrays, change=parts)), fl.LSTM)
    plain = kb.layer("GRU")
    del plain["config"]["reset_after"]  # there was none before 2.1.3: before the product
    assert not read(kb.h5(kb.sequential(plain), kb.weights(plain), "2.1.0")).reset_after


def test_archives_of_keras_2_13(read, refused):
    """Which writes every layer once but counts it twice."""
    layers = [kb.layer("Dense", f"d{n}", units=n + 2) for n in range(3)]
    arrays = kb.weights(*layers)
    for step in (1, 2):
        names = ["dense", f"dense_{step}", f"dense_{2 * step}"]
        paths = {
            f"_layer_checkpoint_dependencies/{name}/vars/{n}": array
            for name, own in zip(names, arrays.values()) for n, array in enumerate(own.values())
        }
        data = kb.keras(kb.sequential(*layers), paths, "2.13.1")
        if step == 1:
            refused(data, r"layer 'd1' .*: kernel \(.*dense_2/vars/0\) has shape \(3, 4\), expected", ".keras")
        else:
            found = read(data, ".keras").state_dict()
            assert found["2.weight"].tobytes() == arrays["d2"]["kernel"].T.tobytes()


def test_models_inside_models_of_keras_2(read):
    """Their weights' names say nothing of the models inside."""
    inner = [kb.layer("Dense", "deep", units=5), kb.layer("LSTM", "below")]
    model = kb.sequential(kb.sequential(kb.sequential(*inner, name="third"), kb.layer("GRU"), name="second"))
    plain = kb.weights(*inner, kb.layer("GRU"))

    def fill(file):
        group = file["model_weights/second"]
        for name, own in plain.items():
            for weight, array in own.items():
                group[f"{name}/{weight}:0"] = array
        group.attrs["weight_names"] = [f"{name}/{weight}:0".encode() for name in plain for weight in plain[name]]

    found = read(kb.h5(model, {"second": {}}, change=fill))
    assert [type(one).__name__ for one in found] == ["Sequential", "GRU"]
    assert found[0][0].state_dict()["weight"].tobytes() == plain["deep"]["kernel"].T.tobytes()
    assert found[1].input_size == 4


def test_what_belongs_to_training_is_left_out(read):
    arrays = kb.numbered(kb.weights(LSTM)) | {
        "layers/lstm/cell/seed_generator/vars/0": np.zeros(2, "u4"), "optimizer/vars/0": np.array(3),
    }
    assert isinstance(read(kb.keras(kb.sequential(LSTM), arrays), ".keras"), fl.LSTM)

    def more(file):
        file["optimizer_weights/Adam/iter"] = 3
        group, path = file["model_weights/lstm"], "lstm/seed_generator/seed_generator_state"
        names = [name.encode() for name in group.attrs["weight_names"]]
        group[path], group.attrs["weight_names"] = np.zeros(2, "u4"), [*names, path.encode()]

    assert isinstance(read(kb.h5(kb.sequential(LSTM), kb.weights(LSTM), change=more)), fl.LSTM)


def test_mixed_precision_and_odd_weights_are_told(read):
    half = kb.layer("LSTM", dtype={"class_name": "DTypePolicy", "config": {"name": "mixed_float16"}})
    with pytest.warns(UserWarning, match=r"half precision.*layer 'lstm' \(LSTM\)"):
        assert read(kb.written(".h5", [half])).dtype == np.float32
    arrays = kb.weights(LSTM)
    arrays["lstm"]["recurrent_kernel"][2, 3] = np.nan
    with pytest.warns(RuntimeWarning, match=r"NaN or infinity in weight_hh_l0 of layer 'lstm' \(LSTM\)"):
        read(kb.written(".h5", [LSTM], arrays))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(kb.written(".h5", [LSTM]))


# ---- tensors ----------------------------------------------------------------------------------------------------


def without(arrays, layer, weight):
    return {**arrays, layer: {name: one for name, one in arrays[layer].items() if name != weight}}


def changed(arrays, layer, weight, value):
    return {**arrays, layer: {**arrays[layer], weight: value}}


@pytest.mark.parametrize("ending", ENDINGS)
def test_tensors(ending, refused):
    arrays, layers = kb.weights(LSTM, DENSE), [LSTM, DENSE]

    def check(arrays, words):
        refused(kb.written(ending, layers, arrays), words, ending)

    check(without(arrays, "dense", "bias"), r"layer 'dense' \(Dense\): missing bias")
    if ending == ".h5":
        check(without(arrays, "lstm", "kernel"), r"layer 'lstm' \(LSTM\): missing kernel")
    check(changed(arrays, "lstm", "more", np.zeros(2, "f4")), "tensors that no layer has: .*lstm.*(more|3)")
    check({**arrays, "other": arrays["dense"]}, "tensors that no layer has: .*other")
    for weight, shape in (("kernel", (3, 12)), ("recurrent_kernel", (16, 4)), ("bias", (2, 16)), ("bias", (1, 16)),
                          ("bias", ()), ("kernel", (3, 16, 1)), ("kernel", (0, 16))):
        words = rf"layer 'lstm' \(LSTM\): {weight} \(.*\) has shape \({', '.join(map(str, shape))},?\), expected \("
        check(changed(arrays, "lstm", weight, np.zeros(shape, "f4")), words)
    check(changed(arrays, "lstm", "kernel", arrays["lstm"]["kernel"].T.copy()), r"has shape \(16, 3\), expected")
    for kind, words in (("f8", "float64"), ("f2", "float16"), ("i4", "integers"), (">f4", "floats of another kind")):
        odd = arrays["lstm"]["bias"].astype(kind)
        check(changed(arrays, "lstm", "bias", odd), rf"bias \(.*\) holds {words}, expected float32")
    dense = kb.weights(LSTM, kb.layer("Dense", units=3))["dense"]
    check({**arrays, "dense": dense}, r"layer 'dense' \(Dense\): kernel \(.*\) has shape \(4, 3\), expected \(4, 2\)")
    narrow = kb.weights(LSTM, DENSE, inputs=3)["dense"] | {"kernel": np.zeros((5, 2), "f4")}
    check({**arrays, "dense": narrow}, "layers do not fit each other .*takes 5 features")


def test_gru_biases(refused):
    for after, bias in ((True, (12,)), (False, (2, 12))):
        gru = kb.layer("GRU", reset_after=after)
        arrays = changed(kb.weights(gru), "gru", "bias", np.zeros(bias, "f4"))
        refused(kb.written(".h5", [gru], arrays), r"bias \(gru/gru/bias:0\) has shape \(.*\), expected \(")


def test_how_tensors_are_stored(refused):
    def put(**options):
        def change(file):
            del file["model_weights/lstm/lstm/bias:0"]
            file["model_weights/lstm/lstm"].create_dataset("bias:0", data=np.zeros(16, "f4"), **options)

        return kb.h5(kb.sequential(LSTM), kb.weights(LSTM), change=change)

    for options, words in (
        (dict(chunks=(4,)), "stored in chunks"), (dict(compression="gzip"), "compressed or filtered"),
        (dict(external=[("x.bin", 0, 64)]), "stored in another file"),
    ):
        refused(put(**options), rf"layer 'lstm' \(LSTM\): bias \(lstm/lstm/bias:0\): is {words}")


def test_names_of_groups_and_tensors_must_agree(refused):
    arrays = kb.weights(LSTM)

    def rename(file):
        file["model_weights"].attrs["layer_names"] = [b"gru"]

    refused(kb.h5(kb.sequential(LSTM), arrays, change=rename), "model_weights and its layer_names differ: 'lstm', 'g")

    def lose(file):
        file["model_weights/lstm"].attrs["weight_names"] = [b"lstm/kernel:0"]

    refused(kb.h5(kb.sequential(LSTM), arrays, change=lose), "its weight_names differ: 'lstm/bias:0'")

    def twice(file):
        file["model_weights/lstm/other/kernel:0"] = np.zeros((3, 16), "f4")
        names = file["model_weights/lstm"].attrs["weight_names"]
        file["model_weights/lstm"].attrs["weight_names"] = [*map(str.encode, names), b"other/kernel:0"]

    refused(kb.h5(kb.sequential(LSTM), arrays, change=twice), "two tensors are named kernel")

    def soft(file):
        import h5py

        file["model_weights/lstm/lstm/bias:0"] = h5py.SoftLink("/x")

    bare = kb.layer("LSTM", use_bias=False)
    refused(kb.h5(kb.sequential(bare), kb.weights(bare), change=soft), "'bias:0' is a symbolic link")


# ---- layers and settings ----------------------------------------------------------------------------------------


ODD_LAYERS = [
    (kb.layer("Conv1D"), r"layer 'conv1d' \(Conv1D\): has no counterpart"),
    (kb.layer("Lambda", function="x"), r"layer 'lambda' \(Lambda\): .*code, which is never executed"),
    (kb.layer("MultiHeadAttention"), "has no counterpart"), (kb.layer("RNN", cell={}), r"layer 'rnn' \(RNN\): has no"),
    (kb.layer("My>Layer"), "has no counterpart"), (kb.layer("BatchNormalization"), "has no counterpart"),
    (LSTM | {"registered_name": "My>LSTM"}, r"layer 'lstm' \(LSTM\) is registered as 'My>LSTM'"),
    (LSTM | {"module": "mine.layers"}, "is of module 'mine.layers', not one of Keras's own"),
    (LSTM | {"module": "kerasmine"}, "is of module 'kerasmine'"),
    (LSTM | {"module": None, "registered_name": "LSTM"}, "is of module 'None'"),
    (LSTM | {"shared": 1}, "has 'shared', which is not known"), (LSTM | {"name": "b"}, "is named 'b', too"),
    ({"class_name": "LSTM"}, "config of a LSTM is 'None', expected a dict"), (7, "a layer is '7', expected a dict"),
    (kb.layer("LSTM", window=3), r"layer 'lstm' \(LSTM\): has the setting window='3', which is not known"),
    (kb.layer("LSTM", time_major=True), "time_major='True' has no counterpart"),
    (kb.layer("Dense", quantization_config={"a": 1}), "quantization_config=.* has no counterpart"),
    (kb.layer("Dense", lora_rank=4), "lora_rank='4' has no counterpart"),
    (kb.layer("LSTM", dtype="float16"), "dtype 'float16', expected float32, float64"),
    (kb.layer("LSTM", dtype="bfloat16"), "dtype 'bfloat16'"),
    (kb.layer("LSTM", dtype={"class_name": "QuantizedDTypePolicy", "config": {"mode": "int8"}}), "dtype 'None'"),
    (kb.layer("LSTM", dtype="int8_from_float32"), "dtype 'int8_from_float32'"),
    (kb.layer("LSTM", units=0), "units is '0', expected a positive integer"),
    (kb.layer("LSTM", units=4.0), "units is '4.0'"), (kb.layer("LSTM", units=True), "units is 'True'"),
    (kb.layer("LSTM", use_bias=1), "use_bias is '1', expected true or false"),
    (kb.layer("LSTM", name="gru", units=4, return_sequences=None), "two layers are named 'gru'"),
    (kb.layer("LSTM", activation="gelu"), "activation 'gelu' has no counterpart here; there are sigmoid, tanh"),
    (kb.layer("LSTM", recurrent_activation="softmax"), "recurrent_activation 'softmax' has no counterpart"),
    (kb.layer("LSTM", activation={"class_name": "function", "config": "mine"}), "expected the name of one"),
    (kb.layer("Dense", activation="elu"), r"layer 'dense' \(Dense\): activation 'elu' has no counterpart .* softmax"),
    (kb.layer("Dense", activation="none"), "activation 'none' has no counterpart"),
    (kb.layer("Activation"), r"layer 'activation' \(Activation\) is not right behind a Dense"),
    (kb.layer("InputLayer", ragged=True), "ragged='True' has no counterpart"),
    (kb.layer("Softmax", axis=1), "axis='1' has no counterpart"), (kb.layer("ReLU", max_value=6), "max_value='6'"),
    (kb.layer("TimeDistributed", layer=LSTM), r"layer 'timedistributed' .* holds layer 'lstm' \(LSTM\), which has no"),
    (kb.layer("Bidirectional", layer=DENSE, merge_mode="sum"), r"holds layer 'dense' \(Dense\), which is no recu"),
    (kb.layer("Bidirectional", layer=LSTM, merge_mode="max"), "merge_mode is 'max', expected concat"),
    (kb.layer("Bidirectional", layer=LSTM, merge_mode=None), "merge_mode None must be the end of the model"),
    (kb.layer("Bidirectional", layer=LSTM), "merge_mode is 'missing'"),
    (kb.layer("Bidirectional", layer=kb.layer("LSTM", go_backwards=True), merge_mode="sum"), "go_backwards=True, exp"),
    (kb.layer("Bidirectional", layer=LSTM, merge_mode="sum", backward_layer=kb.layer("LSTM", "b")), "=False, expected"),
    (kb.layer("Bidirectional", layer=LSTM, merge_mode="sum",
              backward_layer=kb.layer("GRU", go_backwards=True, return_sequences=False)), "differ in return_sequences"),
    (kb.layer("Dropout", speed=1), "has the setting speed='1'"),
]


@pytest.mark.parametrize("layer, words", ODD_LAYERS, ids=range(len(ODD_LAYERS)))
def test_odd_layers(layer, words, refused):
    first = kb.layer("GRU")
    for ending in ENDINGS:
        data = (kb.h5 if ending == ".h5" else kb.keras)(kb.sequential(first, layer), kb.weights(first))
        refused(data, words, ending)


def test_two_activations(refused):
    layers = [kb.layer("Dense", activation="tanh"), kb.layer("Activation")]
    refused(kb.written(".h5", layers), r"layer 'activation' \(Activation\) is not right behind a Dense without an act")


def test_masks_and_turned_layers(refused):
    turned = kb.layer("LSTM", go_backwards=True)
    layers = [kb.layer("Masking", mask_value=0.0), turned]
    refused(kb.written(".h5", layers), r"layer 'lstm' \(LSTM\): is reached by the mask of layer 'masking' \(Masking\)")
    tokens = kb.layer("Embedding", mask_zero=True)
    refused(kb.written(".h5", [tokens, turned]), "is reached by the mask of layer 'embedding'")


def test_models_that_compute_nothing(refused):
    for layers in ([], [INPUT], [INPUT, kb.layer("Dropout", rate=0.1)]):
        refused(kb.h5(kb.sequential(*layers), kb.weights(*layers)), "holds nothing that computes")


# ---- graphs -----------------------------------------------------------------------------------------------------


GRU = kb.layer("GRU", return_sequences=False)
GRAPHS = [
    (dict(outputs=[["gru", 0, 1]]), "has the outputs gru 1, expected output 0"),
    (dict(outputs=[["gru", 0, 0], ["gru", 0, 1], ["gru", 0, 2]]), "has the outputs gru 0, gru 1, gru 2"),
    (dict(outputs=[["gru", 0, 0], ["lstm", 0, 0]]), "has the outputs gru 0, lstm 0"),
    (dict(outputs=[["gru", 0, 0], ["gru", 0, 1]]), r"layer 'gru' \(GRU\): has one output"),
    (dict(outputs=[]), "has the outputs , expected"), (dict(outputs=[["dense", 0, 0]]), "'dense' is missing or comes"),
    (dict(outputs=[["lstm", 0, 0]]), r"layer 'gru' \(GRU\) is not on the way"),
    (dict(outputs=[["gru", "0", 0]]), "output_layers is .*expected a layer's name and two numbers"),
    (dict(outputs={"y": ["gru", 0, 0]}), "output_layers is .*, expected a list"),
    (dict(inputs=("lstm", 0, 0)), "is no chain from its input 'lstm'"),
    (dict(gru=[[["lstm", 0, 1, {}]]]), r"layer 'gru' \(GRU\) takes output 1 of 'lstm'"),
    (dict(gru=[[["lstm", 0, 0, {}], ["lstm", 0, 1, {}]]]), r"layer 'gru' \(GRU\) is called on 2 inputs"),
    (dict(gru=[[["lstm", 0, 0, {}]]] * 2), r"layer 'gru' \(GRU\) is called 2 times"), (dict(gru=[]), "called 0 times"),
    (dict(gru=[[["gru", 0, 0, {}]]]), "'gru' is missing or comes twice"),
    (dict(gru=[[["lstm", 0, 0, {"initial_state": ["lstm", 0, 1]}]]]), r"layer 'gru' \(GRU\) is called with initial_st"),
    (dict(gru=[[["lstm", 0, 0, {"training": True}]]]), "is called with training='True'"),
    (dict(gru=[[["lstm", 0, 0, {"mask": ["lstm", 0, 0]}]]]), "is called with mask="),
    (dict(gru=[{"args": [{"class_name": "__keras_tensor__", "config": {"keras_history": ["lstm", 0, 2]}}],
                "kwargs": {"mask": None, "training": False}}]), "takes output 2 of 'lstm'"),
    (dict(gru=[{"args": [{"class_name": "x", "config": {}}], "kwargs": {}}]), "expected a layer's output"),
    (dict(gru=[{"args": [3], "kwargs": {}}]), "an input of layer 'gru'"), (dict(gru={}), "inbound_nodes is '{}'"),
]


@pytest.mark.parametrize("graph, words", GRAPHS, ids=range(len(GRAPHS)))
def test_graphs(graph, words, refused):
    arrays = kb.weights(INPUT, LSTM, GRU)
    refused(kb.h5(kb.functional(INPUT, LSTM, GRU, **graph), arrays), words)


def test_graphs_that_are_chains(read):
    """In either way to write them; states that nobody uses."""
    state = kb.layer("LSTM", return_state=True)
    arrays = kb.weights(INPUT, state, GRU)
    new = [{"args": [{"class_name": "__keras_tensor__", "config": {"keras_history": ["lstm", 0, 0]}}],
            "kwargs": {"mask": None, "training": False}}]
    for graph in ({}, {"gru": new}, {"gru": [[["lstm", 1, 0]]]}, {"outputs": ["gru", 0, 0]}):
        model = read(kb.h5(kb.functional(INPUT, state, GRU, **graph), arrays))
        assert [type(one).__name__ for one in model] == ["LSTM", "Last"]


def tensor(name):
    return {"class_name": "__keras_tensor__", "config": {"keras_history": [name, 0, 0]}}


def operation(kind, name, args, **config):
    """An operation of Keras 3 in a functional model."""
    return {"module": "keras.src.ops.numpy", "class_name": kind, "registered_name": kind, "name": name,
            "config": {"name": name, **config}, "inbound_nodes": [{"args": args, "kwargs": {}}]}


def masked(mask="any", any_of=None, compare=None, first=None, kinds=("Any", "NotEqual")):
    """Masking and an LSTM that is called with a mask, as Keras 3 writes them."""
    masking = kb.layer("Masking", mask_value=0.5) if first is None else first
    name = masking["config"]["name"]
    call = [{"args": [tensor(name)], "kwargs": {"mask": tensor(mask), "training": False}}]
    model = kb.functional(INPUT, masking, LSTM, lstm=call)
    model["config"]["layers"] += [
        operation(kinds[0], "any", [tensor("compare")], **{"axis": -1, "keepdims": False, **(any_of or {})}),
        operation(kinds[1], "compare", compare or [tensor("inputlayer"), 0.5]),
    ]
    return kb.keras(model, kb.numbered(kb.weights(LSTM)), "3.8.0")


def test_masks_of_functional_models(read, refused):
    with pytest.warns(UserWarning, match=r"layer 'masking' \(Masking\) would mask"):
        assert isinstance(read(masked(), ".keras"), fl.LSTM)
    words = r"layer 'lstm' \(LSTM\) is called with a mask that is not that of a Masking or an Embedding"
    for odd in (
        dict(mask="compare"), dict(mask="inputlayer"), dict(mask="other"), dict(any_of={"axis": 1}),
        dict(any_of={"keepdims": True}), dict(compare=[tensor("inputlayer"), 0.0]), dict(first=kb.layer("Dropout")),
        dict(compare=[tensor("masking"), 0.5]), dict(compare=[tensor("inputlayer")]),
        dict(kinds=("All", "NotEqual")), dict(kinds=("Any", "Equal")),
        dict(first=kb.layer("Embedding", input_dim=6, output_dim=3)),
    ):
        refused(masked(**odd), words, ".keras")
    refused(masked(first=kb.layer("Embedding", mask_zero=True)), words, ".keras")


def test_two_last_outputs(refused):
    both = kb.layer("Bidirectional", layer=kb.layer("LSTM", return_sequences=False), merge_mode=None)
    graph = kb.functional(INPUT, both, outputs=[["bidirectional", 0, 0], ["bidirectional", 0, 1]])
    refused(kb.h5(graph, kb.weights(INPUT, both)), "merge_mode None and without return_sequences has no counterpart")
    both["config"]["merge_mode"] = "sum"
    refused(kb.h5(graph, kb.weights(INPUT, both)), "has one output with merge_mode 'sum', the model takes two of it")


def test_two_outputs_inside_another_model(refused):
    both = kb.layer("Bidirectional", layer=LSTM, merge_mode=None)
    ends = [["bidirectional", 0, 0], ["bidirectional", 0, 1]]
    inner = kb.functional(INPUT, both, outputs=ends)
    inner["config"]["name"] = "inner"
    refused(kb.h5(kb.sequential(inner), {"inner": {}}), "layer 'bidirectional' .*: gives two outputs inside another")


def test_settings_that_must_be_there(refused):
    for name, words in (("return_sequences", "is 'None', expected true"), ("go_backwards", "is 'None', expected true"),
                        ("use_bias", "is 'None', expected true"), ("activation", "its activation is missing"),
                        ("recurrent_activation", "its recurrent_activation is missing"), ("units", "units is 'None'")):
        one = kb.layer("LSTM")
        del one["config"][name]
        refused(kb.h5(kb.sequential(one), kb.weights(LSTM)), words)


def test_other_models(refused):
    arrays = kb.weights(LSTM)
    refused(kb.h5({"class_name": "Mine", "config": {}}, arrays), "a model of class 'Mine'; a Sequential or Functional")
    refused(kb.h5({"class_name": "Sequential", "config": {"layers": [LSTM], "odd": 1}}, arrays), "the setting 'odd'")
    refused(kb.h5({"class_name": "Sequential", "config": {"layers": 3}}, arrays), "layers is '3', expected a list")
    refused(kb.h5(kb.sequential(LSTM, LSTM), arrays), "two layers are named 'lstm'")
    two = kb.functional(INPUT, LSTM)
    two["config"]["input_layers"] = [["inputlayer", 0, 0], ["other", 0, 0]]
    refused(kb.h5(two, arrays), "has 2 inputs, expected one")


# ---- files ------------------------------------------------------------------------------------------------------


def test_versions(refused):
    arrays, model = kb.weights(LSTM), kb.sequential(LSTM)
    for version, words in (("1.2.2", "written by Keras 1.2.2; versions 2 and 3"), ("4.0.1", "written by Keras 4.0.1"),
                           ("new", "unreadable Keras version 'new'"), ("30.1", "written by Keras 30.1")):
        refused(kb.h5(model, arrays, version), words)
        refused(kb.keras(model, arrays, version), words, ".keras")
    refused(kb.h5(model, arrays, None), "unreadable Keras version '1'")


def test_weights_alone(refused):
    def bare(file):
        del file.attrs["model_config"]
        file.attrs["layer_names"] = file["model_weights"].attrs["layer_names"]

    refused(kb.h5(kb.sequential(LSTM), kb.weights(LSTM), change=bare), "holds weights alone: model.save")
    refused(kb.store(kb.numbered(kb.weights(LSTM))), "holds weights alone")
    refused(kb.store({"a": np.zeros(3)}), "without the attribute model_config, not a model of Keras")


TOLD = "takes 3 features by its weights, but layer '{}' .{}. is for inputs of shape "


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("layers, words", [
    ([kb.layer("InputLayer", batch_shape=[None, None, 4]), LSTM], TOLD.format("inputlayer", "InputLayer")),
    ([kb.layer("InputLayer", batch_input_shape=[None, 7, 4], batch_shape=None), LSTM], TOLD.format(".*", "InputLayer")),
    ([kb.layer("LSTM", batch_input_shape=[None, None, 2])], TOLD.format("lstm", "LSTM")),
    ([kb.layer("Dense", batch_input_shape=[None, 2])], TOLD.format("dense", "Dense")),
    ([LSTM | {"build_config": {"input_shape": [None, None, 5]}}], TOLD.format("lstm", "LSTM")),
    ([kb.layer("InputLayer", batch_shape=[None, None, 4]), kb.layer("Dropout", rate=0.5), LSTM], "inputs of shape"),
    ([kb.layer("InputLayer", batch_shape=[None, 3]), LSTM], "takes sequences, but layer .* inputs of shape .None, 3."),
])
def test_shapes_that_the_description_tells(layers, words, ending, refused, read):
    """An InputLayer, or a layer's own setting, must say what the weights say."""
    arrays = kb.weights(DENSE if layers[-1]["class_name"] == "Dense" else LSTM)
    refused(kb.written(ending, layers, arrays), words, ending)
    right = [kb.layer("InputLayer"), LSTM | {"build_config": {"input_shape": [None, None, 3]}}]
    assert read(kb.written(ending, right, kb.weights(LSTM)), ending).input_size == 3


def test_members_of_the_archive(refused):
    model, arrays = kb.sequential(LSTM), kb.weights(LSTM)
    for name in ("metadata.json", "config.json", "model.weights.h5"):
        files = kb.members(model, arrays)
        del files[name]
        refused(kb.archive(files), f"without {name}, not a model of Keras", ".keras")
    refused(kb.keras(model, arrays, compression=zipfile.ZIP_DEFLATED), "is compressed or encrypted", ".keras")
    refused(kb.keras(model, arrays, **{"model.weights.npz": b""}), r"'model\.weights\.npz' in the archive", ".keras")
    file = io.BytesIO(kb.keras(model, arrays))
    with zipfile.ZipFile(file, "a") as target, pytest.warns(UserWarning, match="Duplicate"):
        target.writestr("config.json", b"{}")
    refused(file.getvalue(), "more than one 'config.json'", ".keras")
    data = bytearray(kb.keras(model, arrays))
    data[data.index(b'"LSTM"') + 2] ^= 1
    refused(bytes(data), "'config.json' is damaged: its checksum is wrong", ".keras")
    refused(kb.keras(b"[]", arrays), r"config\.json holds a list, expected a dict", ".keras")
    refused(kb.keras(b"{", arrays), r"config\.json is damaged", ".keras")
    refused(kb.keras(b"[" * 100_000, arrays), r"config\.json is damaged", ".keras")
    refused(kb.keras(b'{"a": "' + b"x" * MAX_TEXT + b'"}', arrays), r"config\.json has \d+ bytes, at most", ".keras")


@pytest.mark.parametrize("data, words", [
    (b"", "neither a .keras archive nor an HDF5 file"), (b"PK\x03\x04", "damaged"), (b"\x89HDF\r\n\x1a\n", "outside"),
    (b"{}", "neither"), (b"\x89HDF\r\n\x1a\n" + bytes(100), "offsets and lengths of 0 and 0"),
])
def test_other_files(data, words, refused):
    refused(data, words)


def test_errors_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        fl.from_keras(tmp_path / "none.keras")
    with pytest.raises(IsADirectoryError):
        fl.from_keras(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileFormatError, match="not a regular file"):
        fl.from_keras(tmp_path / "pipe")
    with pytest.raises(TypeError):
        fl.from_keras(3)


def test_every_truncation(read, tmp_path):
    small = kb.layer("SimpleRNN", units=1)
    for ending in ENDINGS:
        data = kb.written(ending, [small], kb.weights(small, inputs=1))
        read(data, ending)
        for cut in range(0, len(data) - 1, 31):
            with pytest.raises(FileFormatError):
                read(data[:cut], ending)


def test_memory(tmp_path):
    """Reading takes no more than twice the file; a description of sizes that are not there takes nothing."""
    large, small = kb.layer("LSTM", units=300), kb.layer("LSTM", units=1 << 30)
    path = tmp_path / "a.h5"
    path.write_bytes(kb.written(".h5", [large], kb.weights(large, inputs=200)))
    tracemalloc.start()
    try:
        fl.from_keras(path)
        assert tracemalloc.get_traced_memory()[1] < 2 * path.stat().st_size
        path.write_bytes(kb.written(".h5", [small], kb.weights(LSTM)))
        tracemalloc.reset_peak()
        with pytest.raises(FileFormatError, match=r"expected \(3, 4294967296\)"):
            fl.from_keras(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_one_array_many_times(read):
    """Layers whose tensors are one array in the file need more than it has."""
    layers = [kb.layer("Dense", f"dense_{n}", units=64) for n in range(40)]
    arrays = kb.weights(layers[0], inputs=64)

    def link(file):
        for n in range(1, 40):
            group = file["model_weights"].create_group(f"dense_{n}")
            for name in ("kernel", "bias"):
                group[f"dense_{n}/{name}:0"] = file[f"model_weights/dense_0/dense_0/{name}:0"]
            group.attrs["weight_names"] = [f"dense_{n}/{name}:0".encode() for name in ("kernel", "bias")]
        file["model_weights"].attrs["layer_names"] = [one["config"]["name"].encode() for one in layers]

    data = kb.h5(json.loads(json.dumps(kb.sequential(*layers))), arrays, change=link)
    with pytest.raises(FileFormatError, match=f"arrays of \\d+ bytes in a file of {len(data)}"):
        read(data)
