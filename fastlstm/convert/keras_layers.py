"""Keras's layers as layers here: which settings there are, what they mean, how weights are laid out.

============================  =====================================================================================
LSTM, GRU, SimpleRNN          kernel (I, G*H), recurrent_kernel (H, G*H), bias (G*H,); GRU(reset_after=True) (2, 3H)
CuDNNLSTM, CuDNNGRU           the same sizes, each gate's block laid out otherwise, bias (2*G*H,)
Dense                         kernel (I, O), bias (O,)
Embedding                     embeddings (N, E)
============================  =====================================================================================

Gates: i f c o, which is the order here, and z r h. Source: keras/src/layers/rnn, keras/src/activations; the layout of
CuDNN's: tf_keras, legacy/hdf5_format.py.
"""

import numpy as np

from ..layers import GRU, LSTM, RNN
from ..network import ACTIVATIONS, Embedding, Linear
from .onnx_orders import reordered

RECURRENT = {"LSTM": LSTM, "GRU": GRU, "SimpleRNN": RNN, "CuDNNLSTM": LSTM, "CuDNNGRU": GRU}
_ORDERS = {LSTM: ("ifgo", "ifgo"), GRU: ("zrn", "rzn"), RNN: ("a", "a")}  # Keras's, ours

# Classes that do nothing at inference, and their settings, none of which matters then.
NOTHING = {
    "InputLayer": ("input_dtype", "optional"), "Dropout": ("rate", "noise_shape"),
    "SpatialDropout1D": ("rate", "noise_shape"), "AlphaDropout": ("rate", "noise_shape"), "GaussianDropout": ("rate",),
    "GaussianNoise": ("stddev",), "ActivityRegularization": ("l1", "l2"),
}
# Settings that change no result: names, training, how it is computed.
_HARMLESS = {"name", "trainable", "dtype", "seed", "batch_input_shape", "batch_shape", "implementation", "unroll"}
_HARMLESS_ENDS = ("_initializer", "_regularizer", "_constraint")
_RUN = {"units", "use_bias", "activation", "recurrent_activation", "return_sequences", "return_state", "go_backwards"}
_SEQUENCE = _RUN | {"stateful", "unit_forget_bias", "dropout", "recurrent_dropout", "zero_output_for_mask"}
# Settings that may have these values alone.
_FIXED = {
    "quantization_config": (None,), "lora_rank": (None,), "time_major": (False,), "sparse": (False,),
    "ragged": (False,), "axis": (-1, [-1]), "max_value": (None,), "negative_slope": (0,), "threshold": (0,),
}
_KNOWN = {
    **dict.fromkeys(("LSTM", "CuDNNLSTM", "CuDNNGRU", "SimpleRNN"), _SEQUENCE), "GRU": _SEQUENCE | {"reset_after"},
    "Dense": {"units", "use_bias", "activation"},
    "Embedding": {"input_dim", "output_dim", "mask_zero", "input_length"}, "Masking": {"mask_value"},
    "Activation": {"activation"}, "ReLU": set(), "Softmax": set(),
    "Bidirectional": {"layer", "backward_layer", "merge_mode", "return_sequences"}, "TimeDistributed": {"layer"},
    **{name: set(settings) for name, settings in NOTHING.items()},
}
_PLAIN = ("sigmoid", "tanh", "relu", "softsign", "softplus", "elu")


def check_config(kind, config):
    """ValueError that names a setting which is not known or could change the result."""
    if kind not in _KNOWN:
        extra = ": it holds code, which is never executed" if kind == "Lambda" else ""
        raise ValueError(f"has no counterpart here{extra}")
    for key, value in config.items():
        if key in _HARMLESS or key in _KNOWN[kind] or str(key).endswith(_HARMLESS_ENDS):
            continue
        if key not in _FIXED:
            raise ValueError(f"has the setting {str(key)[:60]}={str(value)[:60]!r}, which is not known here")
        if not any(value == one for one in _FIXED[key]):
            raise ValueError(f"{key}={str(value)[:60]!r} has no counterpart here")


def dtype_of(config):
    """("float32" or "float64", whether Keras computes in half precision)."""
    policy = config.get("dtype", "float32")
    if isinstance(policy, dict):
        inner = policy.get("config")
        policy = inner.get("name") if isinstance(inner, dict) else None
    if policy in ("float32", "float64"):
        return policy, False
    if policy in ("mixed_float16", "mixed_bfloat16"):
        return "float32", True
    raise ValueError(f"dtype {str(policy)[:60]!r}, expected float32, float64 or a mixed one with float32 weights")


def size(config, name):
    """A positive integer."""
    value = config.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is {str(value)[:60]!r}, expected a positive integer")
    return value


def flag(config, name, default=None):
    """True or False; default: of a setting that some versions leave out."""
    value = config.get(name, default)
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {str(value)[:60]!r}, expected true or false")
    return value


# ---- activations ------------------------------------------------------------------------------------------------


def _named(config, name):
    if name not in config:
        raise ValueError(f"its {name} is missing")
    value = config[name]
    if value is None:
        return "linear"
    if not isinstance(value, str):
        raise ValueError(f"{name} is {str(value)[:100]!r}, expected the name of one")
    return value


def _recurrent_activation(config, name, major):
    """An activation of a recurrent layer, as `LSTM` takes it."""
    value = _named(config, name)
    if value in _PLAIN:
        return value
    if value == "linear":
        return "identity"
    if value == "hard_sigmoid":  # Keras 2: clip(0.2 z + 0.5); Keras 3: relu6(z + 3) / 6
        return ("hard_sigmoid", 0.2 if major == 2 else 1 / 6, 0.5)
    if value == "leaky_relu":
        return ("leaky_relu", 0.2)
    known = ", ".join((*_PLAIN, "linear", "hard_sigmoid", "leaky_relu"))
    raise ValueError(f"{name} {value[:60]!r} has no counterpart here; there are {known}")


def dense_activation(kind, config):
    """The activation of a Dense, Activation, ReLU or Softmax layer, as `Linear` takes it."""
    if kind in ("ReLU", "Softmax"):
        return kind.lower()
    value = _named(config, "activation")
    if value == "linear":
        return None
    if value == "none" or value not in ACTIVATIONS:
        known = ", ".join(("linear", *ACTIVATIONS[1:]))
        raise ValueError(f"activation {value[:60]!r} has no counterpart here; there are {known}")
    return value


# ---- recurrent layers -------------------------------------------------------------------------------------------


def recurrent_options(kind, config, major):
    """(class here, its options but input_size) of a recurrent layer."""
    cls = RECURRENT[kind]
    options = {"hidden_size": size(config, "units"), "bias": True, "batch_first": True}
    if kind.startswith("CuDNN"):
        return cls, options
    options["bias"] = flag(config, "use_bias")
    candidate = _recurrent_activation(config, "activation", major)
    if cls is RNN:
        return cls, options | {"activations": (candidate,)}
    gates = _recurrent_activation(config, "recurrent_activation", major)
    if cls is LSTM:
        return cls, options | {"activations": (gates, candidate, candidate)}
    return cls, options | {"activations": (gates, candidate), "reset_after": flag(config, "reset_after", False)}


def recurrent_shapes(kind, config, inputs):
    """Tensor -> shape; inputs: the first axis of the kernel."""
    cls, H = RECURRENT[kind], size(config, "units")
    rows = len(_ORDERS[cls][0]) * H
    shapes = {"kernel": (inputs, rows), "recurrent_kernel": (H, rows)}
    if kind.startswith("CuDNN"):
        return shapes | {"bias": (2 * rows,)}
    if flag(config, "use_bias"):
        shapes["bias"] = (2, rows) if cls is GRU and flag(config, "reset_after", False) else (rows,)
    return shapes


def _rows(kernel, kind):
    """(G*H, I) of a kernel (I, G*H): its transpose, gates in our order.

    A gate's block (I, H) of CuDNN's is a matrix (H, I) in memory.
    """
    before, after = _ORDERS[RECURRENT[kind]]
    inputs, rows = kernel.shape
    H, found = rows // len(before), np.empty((rows, inputs), kernel.dtype)
    for n, gate in enumerate(after):
        start = before.index(gate) * H
        block = kernel[:, start : start + H]
        found[n * H : (n + 1) * H] = block.reshape(H, inputs) if kind.startswith("CuDNN") else block.T
    return found


def recurrent_weights(kind, numbers):
    """Names and layout here of the tensors of `recurrent_shapes`; numbers: name -> function that reads it."""
    found = {"weight_ih_l0": _rows(numbers["kernel"](), kind)}
    found["weight_hh_l0"] = _rows(numbers["recurrent_kernel"](), kind)
    if "bias" not in numbers:
        return found
    orders, bias = _ORDERS[RECURRENT[kind]], numbers["bias"]()
    if kind.startswith("CuDNN"):
        bias = bias.reshape(2, -1)
    if bias.ndim == 1:
        bias = np.stack([bias, np.zeros_like(bias)])
    return found | {f"bias_{name}_l0": reordered(own, *orders) for name, own in zip(("ih", "hh"), bias, strict=True)}


# ---- others -----------------------------------------------------------------------------------------------------


def plain_shapes(kind, config, inputs):
    """Tensor -> shape, of Dense or Embedding."""
    if kind == "Embedding":
        return {"embeddings": (size(config, "input_dim"), size(config, "output_dim"))}
    units = size(config, "units")
    return {"kernel": (inputs, units)} | ({"bias": (units,)} if flag(config, "use_bias") else {})


def plain_layer(kind, shapes, activation):
    """(class here, its options) of Dense or Embedding."""
    if kind == "Embedding":
        sizes = shapes["embeddings"]
        return Embedding, {"num_embeddings": sizes[0], "embedding_dim": sizes[1]}
    inputs, units = shapes["kernel"]
    options = {"in_features": inputs, "out_features": units, "bias": "bias" in shapes, "activation": activation}
    return Linear, options


def plain_weights(kind, numbers):
    """Names and layout here; numbers: name -> function that reads it."""
    if kind == "Embedding":
        return {"weight": numbers["embeddings"]()}
    found = {"weight": np.ascontiguousarray(numbers["kernel"]().T)}
    return found | ({"bias": numbers["bias"]()} if "bias" in numbers else {})
