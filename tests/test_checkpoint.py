"""Checkpoints: a training that goes on from one gives the bits of one that ran through, whatever happened between."""

import copy
import json
import os
import pickle
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
from grids import same, says

import fastlstm as fl
from fastlstm.checkpoint import load_checkpoint, save_checkpoint

T, B, I, H, CLASSES = 5, 4, 6, 8, 3

# A small training with everything that draws: dropout, masks of all kinds, the order of the data.
TRAINING = """
import sys
import numpy as np
import fastlstm as fl

def model():
    rng = np.random.default_rng(7)  # that both layers draw from
    kind = dict(dropout=0.3, variational_h=0.2, weight_drop=0.2, zoneout_c=0.1, rng=rng)
    return fl.Sequential(
        fl.Embedding(11, 6, rng=0), fl.LSTM(6, 8, num_layers=2, **kind), fl.GRU(8, 8, variational_x=0.3, rng=rng),
        fl.Linear(8, 3, activation="tanh", rng=1),
    )

data = np.random.default_rng(1).integers(0, 11, (20, 5, 4)), np.random.default_rng(2).integers(0, 3, (20, 5, 4))

def step(model, optimiser, order):
    k = order.integers(20)
    y, _, cache = model.forward(data[0][k], cache=True)
    loss, dy = fl.losses.cross_entropy(y, data[1][k])
    optimiser.step(model.backward(dy, cache)[2])

def begin(make):
    found = model()
    return found, make(found), np.random.default_rng(3)

def digest(model):
    return {name: weight.tobytes() for name, weight in model.state_dict().items()}
"""
names = {}
exec(TRAINING, names)
OPTIMISERS = {
    "Adam": lambda model: fl.optim.Adam(model, lr=0.01, betas=(0.8, 0.99), weight_decay=1e-3),
    "SGD": lambda model: fl.optim.SGD(model, lr=0.1),
    "SGD with momentum": lambda model: fl.optim.SGD(model, lr=0.1, momentum=0.9, nesterov=True),
}


def through(make, steps):
    model, optimiser, order = names["begin"](make)
    for _ in range(steps):
        names["step"](model, optimiser, order)
    return model, optimiser, order


@pytest.mark.parametrize("make", OPTIMISERS.values(), ids=OPTIMISERS)
@pytest.mark.parametrize("at", [0, 1, 3])
def test_a_training_goes_on_where_it_was(tmp_path, make, at):
    expected = names["digest"](through(make, 6)[0])
    model, optimiser, order = through(make, at)
    optimiser.lr = 0.02  # as a schedule would
    save_checkpoint(tmp_path / "c", model, optimiser, generators={"order": order}, metadata={"step": str(at)})
    optimiser.lr = make(model).lr
    found = load_checkpoint(tmp_path / "c")
    assert found.metadata == {"step": str(at)} and found.optimiser.lr == 0.02
    assert found.optimiser.model is found.model
    found.optimiser.lr = optimiser.lr
    for _ in range(6 - at):
        names["step"](found.model, found.optimiser, found.generators["order"])
    assert names["digest"](found.model) == expected
    for _ in range(6 - at):  # writing has changed nothing
        names["step"](model, optimiser, order)
    assert names["digest"](model) == expected


def test_generators_that_are_one_stay_one(tmp_path):
    model, optimiser, _ = names["begin"](OPTIMISERS["Adam"])
    save_checkpoint(tmp_path / "c", model, generators={"masks": model[1].rng, "other": np.random.default_rng(1)})
    found = load_checkpoint(tmp_path / "c")
    assert found.model[1].rng is found.model[2].rng is found.generators["masks"]
    assert found.generators["other"] is not found.generators["masks"]
    assert found.optimiser is None


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_and_pickles_share_generators_among_themselves_alone(how):
    model = names["model"]()
    found = how(model)
    assert found[1].rng is found[2].rng is not model[1].rng
    assert found[1].rng.bit_generator.state == model[1].rng.bit_generator.state
    leaf = how(model[1])
    assert leaf.rng is not model[1].rng


def test_the_generator_of_masks_can_be_set():
    a, b = (fl.LSTM(I, H, num_layers=2, dropout=0.5, rng=k) for k in range(2))
    a.rng = 5
    first = a.draw_masks(3, 2)["dropout"]
    rng = np.random.default_rng(5)
    a.rng = b.rng = rng
    same(a.draw_masks(3, 2)["dropout"], first)
    assert a.rng is b.rng is rng
    with pytest.raises(TypeError):
        a.rng = "seed"
    assert a.rng is rng


@pytest.mark.parametrize("bits", ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
def test_every_generator_of_numpy(tmp_path, bits):
    rng = np.random.Generator(getattr(np.random, bits)(3))
    rng.random(3), rng.integers(5, dtype=np.uint32), rng.integers(5, dtype=np.uint32), rng.integers(5, dtype=np.uint32)
    save_checkpoint(tmp_path / "c", fl.LSTM(2, 2, rng=rng), generators={"mine": rng})
    found = load_checkpoint(tmp_path / "c")
    assert found.model.rng is found.generators["mine"]
    same(found.model.rng.integers(1000, size=700, dtype=np.uint32), rng.integers(1000, size=700, dtype=np.uint32))


def test_several_models_and_what_they_keep(tmp_path):
    encoder, decoder = fl.LSTM(I, H, dropout=0.1, rng=0), fl.Sequential(fl.LSTM(H, H, rng=1), fl.Linear(H, 2, rng=2))
    encoder.eval()
    decoder[0].dropout = 0.25
    decoder.metadata, decoder[1].metadata = {"a": "ä"}, {"b": "c"}
    decoder.set_num_threads(2)
    optimiser = fl.optim.SGD([encoder, decoder], 0.1, momentum=0.5)
    grads = [{name: np.ones_like(w) for name, w in model.state_dict().items()} for model in (encoder, decoder)]
    optimiser.step(grads)
    save_checkpoint(tmp_path / "c", [encoder, decoder], optimiser)
    found = load_checkpoint(tmp_path / "c")
    assert isinstance(found.model, list) and found.optimiser.model == tuple(found.model)
    one, other = found.model
    assert (one.training, other.training) == (False, True) and other[0].dropout == 0.25
    assert other.metadata == {"a": "ä"} and other[1].metadata == {"b": "c"}
    assert (one.num_threads, other.num_threads, other[0].num_threads) == (None, 2, 2)
    optimiser.step(grads)
    found.optimiser.step(grads)
    for a, b in zip((encoder, decoder), found.model, strict=True):
        same(list(a.state_dict().values()), list(b.state_dict().values()))
    alone = [encoder]
    save_checkpoint(tmp_path / "c", alone, fl.optim.SGD(alone, 0.1))
    assert len(load_checkpoint(tmp_path / "c").model) == 1


def test_what_cannot_be_loaded_is_not_saved(tmp_path):
    path, layer = tmp_path / "c", fl.Linear(2, 2, rng=0)
    path.write_bytes(b"before")
    adam = fl.optim.Adam(layer)
    with np.errstate(over="ignore"):
        adam.step({name: np.full_like(w, 1e30) for name, w in layer.state_dict().items()})
    with pytest.raises(ValueError, match="exp_avg_sq of weight holds NaN, infinity"):
        save_checkpoint(path, layer, adam)
    adam = fl.optim.Adam(layer)
    adam.lr = -1
    with pytest.raises(ValueError, match="lr must be at least 0"):
        save_checkpoint(path, layer, adam)
    layer._update({"bias": np.nan})
    with pytest.warns(RuntimeWarning, match="NaN or infinity in 0.bias"):
        save_checkpoint(tmp_path / "d", layer)
    with pytest.warns(RuntimeWarning, match="NaN or infinity in 0.bias"):
        load_checkpoint(tmp_path / "d")
    assert path.read_bytes() == b"before"


def test_numbers_of_numpy_and_modules_of_two_types(tmp_path):
    models = [fl.LSTM(3, 4, rng=0), fl.Linear(4, 2, dtype="float64", rng=0)]
    adam = fl.optim.Adam(models, lr=np.float32(0.5), betas=(np.float64(0.5), 0.25))
    grads = [{name: np.ones_like(w) for name, w in one.state_dict().items()} for one in models]
    adam.step(grads)
    save_checkpoint(tmp_path / "c", models, adam)
    found = load_checkpoint(tmp_path / "c")
    adam.step(grads)
    found.optimiser.step(grads)
    for a, b in zip(models, found.model, strict=True):
        same(list(a.state_dict().values()), list(b.state_dict().values()))


def test_generators_spawn_as_before(tmp_path):
    mine = {"a": np.random.default_rng(7), "b": np.random.default_rng([1, 2**40]), "c": np.random.default_rng()}
    mine["d"] = mine["a"].spawn(3)[2]
    save_checkpoint(tmp_path / "c", fl.LSTM(2, 2), generators=mine)
    found = load_checkpoint(tmp_path / "c").generators
    for name, one in mine.items():
        for a, b in zip(one.spawn(2), found[name].spawn(2), strict=True):
            assert a.random() == b.random()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no signals here")
def test_the_bits_of_an_uninterrupted_training_after_kills(tmp_path):
    steps, path = 30, tmp_path / "checkpoint"
    program = TRAINING + f"""
import os
path, steps = {str(path)!r}, {steps}
if os.path.exists(path):
    model, optimiser, generators, notes = fl.load_checkpoint(path)
    order, done = generators["order"], int(notes["done"])
else:
    (model, optimiser, order), done = begin(fl.optim.Adam), 0
print("running", flush=True)
for k in range(done, steps):
    step(model, optimiser, order)
    fl.save_checkpoint(path, model, optimiser, generators={{"order": order}}, metadata={{"done": str(k + 1)}})
"""
    kills = 0
    for attempt in range(60):
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=tmp_path)
        process.stdout.readline()
        time.sleep(0.003 * (attempt % 7))
        process.send_signal(signal.SIGKILL) if attempt < 6 else None
        process.communicate(timeout=60)
        kills += process.returncode == -signal.SIGKILL
        if process.returncode == 0:
            break
    assert kills > 0
    found = load_checkpoint(path)
    assert found.metadata == {"done": str(steps)}
    assert names["digest"](found.model) == names["digest"](through(fl.optim.Adam, steps)[0])
    left = [name for name in os.listdir(tmp_path) if name != "checkpoint"]
    assert not left


# ---- bad arguments, bad files ----------------------------------------------------------------------------------


LAYER = fl.LSTM(I, H, rng=0)
WRONG = [
    (("x",), {}, TypeError, "model must be a Module or a list of Modules, got str"),
    (([],), {}, ValueError, "model must be a Module or a list of Modules, got an empty list"),
    (([LAYER, 3],), {}, TypeError, r"model\[1\] must be a Module, got int"),
    (([LAYER, LAYER],), {}, ValueError, "a module occurs twice"),
    (([LAYER, fl.Last(LAYER)],), {}, ValueError, "a module occurs twice"),
    ((LAYER, "Adam"), {}, TypeError, "optimiser must be one of fastlstm.optim or None, got str"),
    ((LAYER, fl.optim.Adam(fl.GRU(2, 2))), {}, ValueError, "optimiser must be that of model"),
    ((LAYER, fl.optim.Adam([LAYER])), {}, ValueError, "optimiser must be that of model"),
    ((LAYER,), dict(generators=[1]), TypeError, "generators must be a dict of names to generators, got list"),
    ((LAYER,), dict(generators={"a": 3}), TypeError, "generators must map strings to numpy.random.Generators, got 'a'"),
    ((LAYER,), dict(metadata={"a": 3}), TypeError, "metadata must map strings to strings"),
    ((LAYER,), dict(metadata={"checkpoint": "3"}), ValueError, "metadata key 'checkpoint' is taken"),
]


@pytest.mark.parametrize("arguments, options, error, words", WRONG)
def test_wrong_arguments(tmp_path, arguments, options, error, words):
    path = tmp_path / "c"
    path.write_bytes(b"before")
    with pytest.raises(error, match=words):
        save_checkpoint(path, *arguments, **options)
    assert path.read_bytes() == b"before" and len(os.listdir(tmp_path)) == 1


def test_models_and_checkpoints_are_told_apart(tmp_path):
    LAYER.save(tmp_path / "model")
    save_checkpoint(tmp_path / "checkpoint", LAYER)
    with pytest.raises(fl.FileFormatError, match="a model without its training; fastlstm.load reads it"):
        load_checkpoint(tmp_path / "model")
    with pytest.raises(fl.FileFormatError, match="a checkpoint; fastlstm.load_checkpoint reads it"):
        fl.load(tmp_path / "checkpoint")


def told(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def changed(path, change):
    """The file with its description changed: change is a function of the dict."""
    header, rest = told(path)
    meta = header["__metadata__"]
    inside = json.loads(meta["checkpoint"])
    change(inside, header)
    meta["checkpoint"] = json.dumps(inside)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + rest)


def slot(name, value):
    def change(inside, header):
        entry = inside
        *path, last = name.split("/")
        for part in path:
            entry = entry[int(part) if isinstance(entry, list) else part]
        entry[int(last) if isinstance(entry, list) else last] = value

    return change


def renamed(old, new):
    def change(inside, header):
        header[new] = header.pop(old)

    return change


DAMAGE = {
    "other class": slot("optimiser/class", "Ascent"),
    "no optimiser": slot("optimiser", None),
    "no list": slot("models", 3),
    "no models": slot("models", []),
    "two models": lambda inside, header: inside["models"].append(inside["models"][0]),
    "lr": slot("optimiser/lr", -1),
    "betas": slot("optimiser/betas", "ab"),
    "step": slot("optimiser/state/weight_ih_l0/step", -1),
    "unknown weight": slot("optimiser/state/weight", {"step": 1}),
    "generator": slot("generators/0/bit_generator", "os"),
    "seeds": slot("generators/0/seed_seq", {"entropy": "x", "spawn_key": [], "pool_size": 4, "n_children_spawned": 0}),
    "no seeds": slot("generators/0/seed_seq", 3),
    "state of a generator": slot("generators/0/state", "x"),
    "counter of a generator": slot("generators/1/state/counter", "x"),
    "key of a generator": slot("generators/0/state/key", {"dtype": "uint32", "values": [1, 2]}),
    "type of a generator": slot("generators/0/state/key", {"dtype": "object", "values": [1, 2]}),
    "generators": slot("generators", {}),
    "place of a generator": slot("models/0/kept/extras/_rng", {"generator": 7}),
    "negative place": slot("models/0/kept/extras/_rng", {"generator": -1}),
    "a value for a generator": slot("models/0/kept/extras/_rng", {"value": 7}),
    "training": slot("models/0/kept/extras/training", {"value": "yes"}),
    "threads": slot("models/0/kept/extras/_num_threads", {"value": 10**9}),
    "metadata": slot("models/0/kept/extras/metadata", {"value": {"a": 1}}),
    "another attribute": slot("models/0/kept/extras/forward", {"value": 7}),
    "members": slot("models/0/kept/members/0", {}),
    "named": slot("named/mine", 99),
    "description": slot("models/0/model/class", "LSTN"),
    "sizes": slot("models/0/model/config/hidden_size", 9),
    "name of a tensor": renamed("0.weight_ih_l0", "0.weight_ih_l7"),
    "model of a tensor": renamed("0.weight_ih_l0", "5.weight_ih_l0"),
    "slot of a tensor": renamed("optimiser.weight_ih_l0.exp_avg", "optimiser.weight_ih_l0.exp"),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "c"
    layer = fl.LSTM(I, H, rng=np.random.Generator(np.random.MT19937(1)))
    optimiser = fl.optim.Adam(layer)
    optimiser.step({name: np.ones_like(w) for name, w in layer.state_dict().items()})
    save_checkpoint(path, layer, optimiser, generators={"mine": np.random.Generator(np.random.Philox(1))})
    return path


@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_checkpoints(good, tmp_path, what):
    path = tmp_path / "c"
    path.write_bytes(good.read_bytes())
    changed(path, lambda *_: None)
    load_checkpoint(path)
    changed(path, DAMAGE[what])
    with pytest.raises(fl.FileFormatError, match=str(path)):
        load_checkpoint(path)


@pytest.mark.parametrize("name, value", [
    ("generators/0/state/pos", 10**6), ("generators/0/state/pos", -1), ("generators/1/buffer_pos", -5),
    ("generators/1/buffer_pos", 5), ("generators/0/state/pos", 1.5),
])
def test_a_generator_that_would_read_outside_its_memory(good, tmp_path, name, value):
    path = tmp_path / "c"
    path.write_bytes(good.read_bytes())
    changed(path, slot(name, value))
    with pytest.raises(fl.FileFormatError, match="pos of a generator is"):
        load_checkpoint(path)


def test_cut_short_anywhere(good, tmp_path):
    data, path = good.read_bytes(), tmp_path / "c"
    for size in [0, 7, 8, 100, len(data) // 2, len(data) - 1]:
        path.write_bytes(data[:size])
        with pytest.raises(fl.FileFormatError):
            load_checkpoint(path)


def test_a_class_of_the_users_own(tmp_path):
    lines = says(f"""
import fastlstm as fl, numpy as np
class Scale(fl.Linear):
    def __init__(self, factor=1.0, **rest):
        super().__init__(3, 3, **rest)
        self.factor, self.seen = factor, [1, 2]
    def config(self):
        return {{"factor": self.factor}}
    def _extras(self):
        return super()._extras() | {{"seen": self.seen}}
model = fl.Sequential(Scale(2.5), fl.LSTM(3, 3))
model[0].seen.append(7)
fl.save_checkpoint({str(tmp_path / "c")!r}, model, fl.optim.SGD(model, 0.1))
found = fl.load_checkpoint({str(tmp_path / "c")!r}).model[0]
print(type(found).__name__, found.factor, found.seen)
model[0].seen = {{1}}
try:
    fl.save_checkpoint({str(tmp_path / "d")!r}, model)
except TypeError as error:
    print(error)
""")
    assert lines[0] == "Scale 2.5 [1, 2, 7]"
    assert "JSON cannot express" in lines[1]
