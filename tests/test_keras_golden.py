"""fastlstm.from_keras: models that Keras saved give what Keras computed (tests/data/make_*.py).

Neither Keras nor h5py is needed.
"""

import io
import warnings
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import fastlstm as fl

DATA = Path(__file__).resolve().parent / "data"
ARCHIVES = sorted(DATA.glob("keras_*.zip"))
CASES = []
for archive in ARCHIVES:
    with zipfile.ZipFile(archive) as files:
        CASES += [(archive, name) for name in files.namelist() if not name.endswith(".npz")]


def case(archive, name, folder):
    """(path of the model's file, name -> array of what Keras was given and gave)."""
    with zipfile.ZipFile(archive) as files:
        path = folder / name
        path.write_bytes(files.read(name))
        with np.load(io.BytesIO(files.read(path.stem + ".npz"))) as found:
            return path, dict(found)


def outputs(model, x, **options):
    found = model(x, **options)
    y = found[0] if model.recurrent else found
    return y if isinstance(y, tuple) else (y,)


def test_the_cases_are_there():
    assert [path.stem for path in ARCHIVES] == ["keras_2.15.0", "keras_2.2.4", "keras_3.0.5", "keras_3.15.1"]
    count = Counter(name.rpartition(".")[2] for _, name in CASES)
    assert count["keras"] > 20 and count["h5"] > 20


@pytest.mark.parametrize("archive, name", CASES, ids=[f"{one.stem}-{name}" for one, name in CASES])
def test_as_keras_computes(archive, name, tmp_path):
    path, expected = case(archive, name, tmp_path)
    lengths = expected.get("lengths")
    options = {} if lengths is None else {"lengths": lengths}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model = fl.from_keras(path)
    assert [one.category for one in told] == ([] if lengths is None else [UserWarning])
    found = outputs(model, expected["x"], **options)
    assert len(found) == sum(key in expected for key in ("y", "y1"))
    for one, wanted in zip(found, (expected[key] for key in ("y", "y1") if key in expected)):
        assert one.shape == wanted.shape and one.dtype == wanted.dtype
        if lengths is not None and one.ndim == 3:  # what lies beyond a row's length is nobody's promise
            inside = np.arange(one.shape[1]) < lengths[:, None]
            one, wanted = one[inside], wanted[inside]
        limit = 2e-6 if one.dtype == np.float32 else 1e-12
        assert np.abs(one - wanted).max() < limit
        assert np.abs(wanted).max() > 0.1  # and it is no comparison of zeros


@pytest.mark.parametrize("archive, name", CASES[::4], ids=[f"{one.stem}-{name}" for one, name in CASES[::4]])
@pytest.mark.filterwarnings("ignore:.*would mask:UserWarning")
def test_saved_here_and_alone(archive, name, tmp_path):
    """What was read can be saved and loaded; rows do not depend on each other, one step and no row are fine."""
    path, expected = case(archive, name, tmp_path)
    x = expected["x"]
    model = fl.from_keras(str(path))
    model.save(tmp_path / "model.safetensors")
    again = fl.load(tmp_path / "model.safetensors")
    assert repr(again) == repr(model)
    for piece in (x, x[:1], x[:, :1], x[:0]):
        for one, other in zip(outputs(model, piece), outputs(again, piece)):
            assert one.tobytes() == other.tobytes() and len(one) == len(piece)
    for whole, one in zip(outputs(model, x), outputs(model, x[:1])):
        assert whole[:1].tobytes() == one.tobytes()


def test_what_comes_of_it(tmp_path):
    """The shortest module that says the same."""
    def of(name):
        path, _ = case(ARCHIVES[-1], name, tmp_path)
        return fl.from_keras(path)

    text = of("chain_text.keras")
    assert [type(one).__name__ for one in text] == ["Embedding", "LSTM", "GRU", "Linear", "Last", "Linear"]
    assert text[1].bidirectional and text[1].batch_first and text[-1].activation == "softmax"
    assert isinstance(of("lstm_back.keras"), fl.Reverse) and not of("lstm_back.keras").in_time
    own = of("lstm_bi_own.keras")
    assert isinstance(own, fl.Bidirectional) and own.backward_layer.hidden_size == 5 and not own.backward_layer.bias
    assert isinstance(of("lstm_backlast.keras").layer, fl.Reverse)
    assert [type(one).__name__ for one in of("chain_nested.keras")] == ["Sequential", "LSTM", "Sequential"]


def test_hard_sigmoid_has_its_versions_slope(tmp_path):
    slopes = []
    for archive, ending in ((ARCHIVES[0], ".h5"), (ARCHIVES[-1], ".keras")):
        path, _ = case(archive, "gru_hard" + ending, tmp_path)
        slopes.append(fl.from_keras(path).layer.activations[0])
    assert [one[:2] for one in slopes] == [("hard_sigmoid", 0.2), ("hard_sigmoid", 1 / 6)]


def test_the_warning_names_the_layer(tmp_path):
    path, _ = case(ARCHIVES[-1], "mask_bi.keras", tmp_path)
    with pytest.warns(UserWarning, match=r"mask_bi\.keras: layer 'masking' \(Masking\).*lengths=") as told:
        fl.from_keras(path)
    assert told[0].filename == __file__
    path, _ = case(ARCHIVES[-1], "mask_tokens.keras", tmp_path)
    with pytest.warns(UserWarning, match=r"layer 'embedding' \(Embedding\) would mask"):
        fl.from_keras(path)
