"""Makes keras_<version>.zip beside this file: models that Keras saved, each with inputs and Keras's own predictions.

    KERAS_BACKEND=tensorflow python tests/data/make_keras_golden.py [FOLDER]

With FOLDER: the archive of all cases, there; without: of those in KEPT, here, which are few to keep the archive small.

The committed archives: Keras 2.15.0 (tensorflow-cpu 2.15.1), 3.0.5 (tensorflow-cpu 2.16.2), 3.15.1 (tensorflow-cpu
2.21.0). For every case there are <case>.keras and <case>.h5, as ``model.save`` writes them, and <case>.npz with x, y
(and y1 of a second output) and lengths, where rows are padded. Weights are random, biases too. Cases ending in _64 are
float64.
"""
# ruff: noqa: B023 (every function that binds a loop's variable is called before the next is made)

import logging
import os
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

layers = keras.layers
OLD = keras.__version__.startswith("2")
I, H, T, B, VOCABULARY = 5, 7, 9, 3, 11
LENGTHS = (9, 4, 1)
ENDINGS = (".keras",) if keras.__version__.startswith("3.0.") else (".keras", ".h5")  # 3.0 fails to write some .h5
CELLS = {"lstm": layers.LSTM, "gru": layers.GRU, "rnn": layers.SimpleRNN}

# Case -> the files of it that are committed: both formats of a few, for the rest the usual one of that version.
_BOTH = ("lstm_bi_own", "chain_nested")
_ONE = (
    "mixed_bi_own", "chain_text", "chain_functional", "chain_dense", "chain_frozen", "lstm_bi_none", "lstm_back",
    "mask_functional", "mask_functional_tokens", "gru_before", "gru_hard", "rnn_bi_ave", "mask_tokens", "mask_bi",
    "lstm_bi_concat_64", "rnn_seq_64",
)
if OLD:
    _MORE = ("lstm_nobias", "gru_bi_sum", "gru_before_nobias", "gru_before_64", "lstm_act_softplus")
    KEPT = dict.fromkeys(_BOTH, ENDINGS) | dict.fromkeys(_ONE + _MORE, (".h5",))
elif keras.__version__.startswith("3.0."):
    KEPT = dict.fromkeys(("chain_text", "chain_nested", "lstm_bi_own", "gru_hard"), (".keras",))
else:
    _MORE = ("chain_state", "lstm_backlast", "lstm_bi_mul", "rnn_nobias", "mask_seq", "gru_seq_64")
    _MORE += ("lstm_act_leaky_relu",)
    KEPT = dict.fromkeys(_BOTH, ENDINGS) | dict.fromkeys(_ONE + _MORE, (".keras",))


def input_layer(shape, **options):
    return layers.InputLayer(**{"input_shape" if OLD else "shape": shape}, **options)


def sequential(*members, tokens=False, shape=(None, I)):
    first = input_layer((None,) if tokens else shape, dtype="int32") if tokens else input_layer(shape)
    return keras.Sequential([first, *members])


def functional(*members, outputs=lambda y: y, tokens=False):
    y = x = keras.Input((None,), dtype="int32") if tokens else keras.Input((None, I))
    for member in members:
        y = member(y)
    return keras.Model(x, outputs(y))


def cells():
    """One layer each, in the ways that Keras knows."""
    for name, cls in CELLS.items():
        yield f"{name}_seq", lambda: sequential(cls(H, return_sequences=True))
        yield f"{name}_last", lambda: sequential(cls(H))
        yield f"{name}_nobias", lambda: sequential(cls(H, use_bias=False, return_sequences=True))
        yield f"{name}_back", lambda: sequential(cls(H, return_sequences=True, go_backwards=True))
        yield f"{name}_backlast", lambda: sequential(cls(H, go_backwards=True))
        for merge in ("concat", "sum", "mul", "ave"):
            yield f"{name}_bi_{merge}", lambda: sequential(
                layers.Bidirectional(cls(H, return_sequences=True), merge_mode=merge)
            )
        yield f"{name}_bi_last", lambda: sequential(layers.Bidirectional(cls(H)))
        yield f"{name}_bi_none", lambda: functional(
            layers.Bidirectional(cls(H, return_sequences=True), merge_mode=None), outputs=list
        )
        yield f"{name}_bi_none_last", lambda: functional(layers.Bidirectional(cls(H), merge_mode=None), outputs=list)
    yield "gru_before", lambda: sequential(layers.GRU(H, return_sequences=True, reset_after=False))
    yield "gru_before_nobias", lambda: sequential(layers.GRU(H, reset_after=False, use_bias=False))
    yield "gru_before_bi", lambda: sequential(layers.Bidirectional(layers.GRU(H, reset_after=False)))
    yield "lstm_bi_own", lambda: sequential(layers.Bidirectional(
        layers.LSTM(H, return_sequences=True),
        backward_layer=layers.LSTM(H - 2, return_sequences=True, go_backwards=True, activation="relu", use_bias=False),
    ))
    yield "mixed_bi_own", lambda: sequential(layers.Bidirectional(
        layers.GRU(H, name="ahead"), backward_layer=layers.SimpleRNN(H, go_backwards=True, name="astern"),
        merge_mode="sum",
    ))


def activations():
    for name in ("relu", "linear", "softsign", "softplus", "elu", "hard_sigmoid", "sigmoid", "leaky_relu"):
        yield f"lstm_act_{name}", lambda: sequential(
            layers.LSTM(H, activation=name, recurrent_activation="hard_sigmoid")
        )
    yield "gru_hard", lambda: sequential(layers.GRU(H, recurrent_activation="hard_sigmoid", activation="elu"))
    yield "gru_softsign", lambda: sequential(layers.GRU(H, recurrent_activation="softsign", reset_after=False))
    yield "rnn_relu", lambda: sequential(layers.SimpleRNN(H, activation="relu"))


def chains():
    def text():
        return [
            layers.Embedding(VOCABULARY, I), layers.Dropout(0.3),
            layers.Bidirectional(layers.LSTM(H, return_sequences=True, dropout=0.2, recurrent_dropout=0.1)),
            layers.GaussianNoise(0.1), layers.GRU(6, return_sequences=True), layers.ActivityRegularization(l2=0.1),
            layers.TimeDistributed(layers.Dense(4, activation="relu")), layers.LSTM(H), layers.Dense(3),
            layers.Dropout(0.5), layers.Activation("softmax"),
        ]

    yield "chain_text", lambda: sequential(*text(), tokens=True)
    yield "chain_dense", lambda: sequential(
        layers.Dense(6, "tanh"), layers.LSTM(H, return_sequences=True),
        layers.LSTM(H, return_sequences=True, go_backwards=True),
        layers.SimpleRNN(4, return_sequences=True), layers.Dense(5, use_bias=False), layers.ReLU(),
        layers.Dense(4, "sigmoid"), layers.Dense(3), layers.Softmax(),
    )
    yield "chain_functional", lambda: functional(
        layers.LSTM(H, return_sequences=True, name="z"), layers.SpatialDropout1D(0.2), layers.GRU(H, name="a"),
        layers.Dense(2, "sigmoid", name="m"),
    )
    yield "chain_state", lambda: functional(
        layers.LSTM(H, return_sequences=True, return_state=True), lambda y: layers.GRU(H)(y[0])
    )
    yield "chain_nested", lambda: sequential(
        sequential(layers.Dense(4, "tanh"), layers.LSTM(H, return_sequences=True)),
        layers.LSTM(6, return_sequences=True),
        sequential(layers.GRU(5), layers.Dense(2), shape=(None, 6)),
    )
    yield "chain_frozen", lambda: sequential(
        layers.Bidirectional(layers.LSTM(H, return_sequences=True), trainable=False),
        sequential(layers.LSTM(6, trainable=False), layers.Dense(3), shape=(None, 2 * H)),
    )


def masked():
    yield "mask_last", lambda: sequential(layers.Masking(), layers.LSTM(H, return_sequences=True), layers.GRU(H))
    yield "mask_seq", lambda: sequential(layers.Masking(), layers.GRU(H, return_sequences=True), layers.Dense(3))
    yield "mask_bi", lambda: sequential(
        layers.Masking(), layers.Bidirectional(layers.LSTM(H, return_sequences=True)), layers.SimpleRNN(4),
    )
    yield "mask_tokens", lambda: sequential(
        layers.Embedding(VOCABULARY, I, mask_zero=True), layers.LSTM(H, go_backwards=True), layers.Dense(3),
        tokens=True,
    )
    yield "mask_functional", lambda: functional(
        layers.Masking(), layers.Dropout(0.1), layers.GRU(H, return_sequences=True), layers.LSTM(4)
    )
    yield "mask_functional_tokens", lambda: functional(
        layers.Embedding(VOCABULARY, I, mask_zero=True), layers.GRU(4), tokens=True
    )


def all_cases():
    """Name -> function that makes the model; its loop variables are bound by calling it at once."""
    for family in (cells, activations, chains, masked):
        yield from family()


def write(archive, name, model, folder, rng, kept):
    kind = "float64" if name.endswith("_64") else "float32"
    model.set_weights([(rng.normal(size=w.shape) * 0.5).astype(w.dtype) for w in model.get_weights()])
    if "text" in name or "tokens" in name:
        x = rng.integers(1, VOCABULARY, size=(B, T)).astype("int32")
    else:
        x = rng.normal(size=(B, T, I)).astype(kind)
    found = {"x": x}
    if name.startswith("mask"):
        found["lengths"] = np.array(LENGTHS)
        for row, length in enumerate(LENGTHS):
            x[row, length:] = 0
    y = model(x, training=False)
    found |= {f"y{n or ''}": np.asarray(one) for n, one in enumerate(y if isinstance(y, (list, tuple)) else [y])}
    np.savez(folder / "found.npz", **found)
    archive.write(folder / "found.npz", f"{name}.npz")
    for ending in ENDINGS:
        if kept is not None and ending not in kept[name]:
            continue
        model.save(folder / ("model" + ending))
        archive.write(folder / ("model" + ending), name + ending)


def set_float(kind):
    keras.backend.set_floatx(kind)
    if not OLD:
        keras.config.set_dtype_policy(kind)


def write_cudnn(archive, folder, rng):
    """Files of CuDNN's layers, whose weights Keras converts on loading; predictions of the layers they came from."""
    import tensorflow as tf

    old = tf.compat.v1.keras.layers
    for name, cls, own in (("lstm", layers.LSTM, old.CuDNNLSTM), ("gru", layers.GRU, old.CuDNNGRU)):
        plain, model = (sequential(c(H, return_sequences=True)) for c in (cls, own))
        plain.set_weights([(rng.normal(size=w.shape) * 0.5).astype(w.dtype) for w in plain.get_weights()])
        plain.save_weights(folder / "weights.h5")
        model.load_weights(folder / "weights.h5")
        x = rng.normal(size=(B, T, I)).astype("float32")
        np.savez(folder / "found.npz", x=x, y=np.asarray(plain(x)))
        model.save(folder / "model.h5")
        archive.write(folder / "found.npz", f"cudnn_{name}.npz")
        archive.write(folder / "model.h5", f"cudnn_{name}.h5")


def archive_of(target, kept):
    rng = np.random.default_rng(0)
    with (
        tempfile.TemporaryDirectory() as folder,
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
    ):
        for kind, ending in (("float32", ""), ("float64", "_64")):
            for name, make in all_cases():
                if kept is not None and not set(kept.get(name + ending, ())) & set(ENDINGS):
                    continue
                keras.backend.clear_session()
                set_float(kind)
                try:
                    model = make()
                except (ValueError, TypeError) as error:  # what this version does not have, e.g. an activation
                    print(f"{name}: {error}"[:200])
                    continue
                write(archive, name + ending, model, Path(folder), rng, kept)
        if OLD:
            set_float("float32")
            write_cudnn(archive, Path(folder), rng)
    print(target, target.stat().st_size)


def sample(target):
    """One small model of the newest Keras, for the page about moving here."""
    set_float("float32")
    model = sequential(layers.LSTM(H, return_sequences=True), layers.Dense(3))
    rng = np.random.default_rng(1)
    model.set_weights([(rng.normal(size=w.shape) * 0.5).astype(w.dtype) for w in model.get_weights()])
    model.save(target)


def main():
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    here = Path(__file__).resolve().parent
    target = Path(sys.argv[1] if sys.argv[1:] else here) / f"keras_{keras.__version__}.zip"
    archive_of(target, None if sys.argv[1:] else KEPT)
    if keras.__version__ == "3.15.1" and not sys.argv[1:]:
        sample(here / "keras_sample.keras")


if __name__ == "__main__":
    main()
