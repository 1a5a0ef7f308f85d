"""Files as Keras writes them, made by hand with h5py: descriptions of layers, weights, both formats around them."""

import io
import json
import zipfile

import numpy as np

GATES = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1}
RECURRENT = {
    "units": 4, "activation": "tanh", "recurrent_activation": "sigmoid", "use_bias": True, "return_sequences": True,
    "return_state": False, "go_backwards": False, "stateful": False, "unroll": False, "dropout": 0.0,
}
DEFAULTS = {
    "LSTM": RECURRENT | {"unit_forget_bias": True}, "GRU": RECURRENT | {"reset_after": True}, "SimpleRNN": RECURRENT,
    "Dense": {"units": 2, "activation": "linear", "use_bias": True},
    "Embedding": {"input_dim": 6, "output_dim": 3, "mask_zero": False},
    "InputLayer": {"batch_shape": [None, None, 3]}, "Activation": {"activation": "softmax"},
}
VERSIONS = {".h5": "2.15.0", ".keras": "3.8.0"}


def layer(kind, name=None, **config):
    """A layer of a description; a name of None is the class's in lower case."""
    name = name or kind.lower()
    return {"class_name": kind, "config": {"name": name, "dtype": "float32", **DEFAULTS.get(kind, {}), **config}}


def sequential(*layers, name="sequential"):
    return {"class_name": "Sequential", "config": {"name": name, "layers": list(layers)}}


def functional(*layers, inputs=("inputlayer", 0, 0), outputs=None, **inbound):
    """A chain in the way of Keras 2; inbound: layer's name -> inbound_nodes in place of the chain's."""
    nodes, before = [], None
    for one in layers:
        name = one["config"]["name"]
        calls = inbound.get(name, [] if before is None else [[[before, 0, 0, {}]]])
        nodes.append({**one, "name": name, "inbound_nodes": calls})
        before = name
    ends = [[before, 0, 0]] if outputs is None else outputs
    config = {"name": "model", "layers": nodes, "input_layers": [list(inputs)], "output_layers": ends}
    return {"class_name": "Functional", "config": config}


def weights(*layers, inputs=3, dtype="float32", seed=0):
    """Layer's name -> weight's name -> random numbers, of a chain of plain layers."""
    rng, found = np.random.default_rng(seed), {}
    for one in layers:
        kind, config = one["class_name"], one["config"]
        if kind in GATES:
            H, rows = config["units"], GATES[kind] * config["units"]
            shapes = {"kernel": (inputs, rows), "recurrent_kernel": (H, rows)}
            if config["use_bias"]:
                shapes["bias"] = (2, rows) if config.get("reset_after") else (rows,)
            inputs = H
        elif kind == "Dense":
            shapes = {"kernel": (inputs, config["units"]), "bias": (config["units"],)}
            inputs = config["units"]
        elif kind == "Embedding":
            shapes, inputs = {"embeddings": (config["input_dim"], config["output_dim"])}, config["output_dim"]
        else:
            shapes = {}
        found[config["name"]] = {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}
    return found


def h5(model, arrays, version="2.15.0", attributes=None, change=None):
    """A .h5 file. arrays: as of `weights`; change(file): whatever else is to be done to the open h5py file."""
    import h5py

    file = io.BytesIO()
    with h5py.File(file, "w") as target:
        text = model if isinstance(model, bytes) else json.dumps(model).encode()
        for name, value in ({"keras_version": version, "model_config": text} | (attributes or {})).items():
            if value is not None:
                target.attrs[name] = value
        group = target.create_group("model_weights")
        group.attrs["layer_names"] = [name.encode() for name in arrays]
        for name, members in arrays.items():
            own = group.create_group(name)
            paths = [f"{name}/{weight}:0".encode() for weight in members]
            own.attrs["weight_names"] = paths
            for path, array in zip(paths, members.values()):
                own[path.decode()] = array
        if change:
            change(target)
    return file.getvalue()


def store(arrays, change=None):
    """The bytes of model.weights.h5. arrays: path -> numbers."""
    import h5py

    file = io.BytesIO()
    with h5py.File(file, "w") as target:
        for path, array in arrays.items():
            target[path] = array
        if change:
            change(target)
    return file.getvalue()


def archive(members, compression=zipfile.ZIP_STORED):
    """A zip archive. members: name -> bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as target:
        for name, content in members.items():
            target.writestr(name, content)
    return file.getvalue()


def members(model, arrays, version="3.8.0", change=None):
    """Name -> bytes, of a .keras file. arrays: as of `weights`, or path -> numbers where names have slashes."""
    text = model if isinstance(model, bytes) else json.dumps(model).encode()
    if not any("/" in name for name in arrays):
        arrays = numbered(arrays)
    return {
        "metadata.json": json.dumps({"keras_version": version, "date_saved": "today"}).encode(), "config.json": text,
        "model.weights.h5": store(arrays, change),
    }


def numbered(arrays):
    """Path in a .keras file -> numbers, of what `weights` gives, one layer of a class."""
    found = {}
    for name, own in arrays.items():
        name = {"simplernn": "simple_rnn"}.get(name, name)
        middle = "cell/vars" if "recurrent_kernel" in own else "vars"
        found |= {f"layers/{name}/{middle}/{n}": array for n, array in enumerate(own.values())}
    return found


def keras(model, arrays, version="3.8.0", change=None, compression=zipfile.ZIP_STORED, **more):
    """A .keras file."""
    return archive(members(model, arrays, version, change) | more, compression)


def written(ending, layers, arrays=None, **options):
    """A Sequential of layers in a file of that ending."""
    arrays = weights(*layers) if arrays is None else arrays
    return (h5 if ending == ".h5" else keras)(sequential(*layers), arrays, **options)
