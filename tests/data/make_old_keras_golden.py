"""Makes keras_2.2.4.zip beside this file, as make_keras_golden.py does for later versions.

Made with Python 3.7, keras 2.2.4, tensorflow 1.15.5, h5py 2.10.0. There gates are hard_sigmoid unless told otherwise,
and a GRU resets before the product.
"""

import os
import tempfile
import zipfile

import keras
import numpy as np
from keras import layers

I, H, T, B, VOCABULARY = 5, 7, 9, 3, 11


def cases():
    sequential = keras.models.Sequential
    yield "lstm", sequential([layers.LSTM(H, return_sequences=True, input_shape=(T, I))])
    yield "gru_after", sequential([layers.GRU(H, reset_after=True, return_sequences=True, input_shape=(T, I))])
    inner = sequential([layers.Dense(4, input_shape=(T, I)), layers.SimpleRNN(H, return_sequences=True)], name="inner")
    yield "chain_nested", sequential([inner, layers.GRU(5)])
    yield "chain_text", sequential([
        layers.Embedding(VOCABULARY, I, input_length=T), layers.SpatialDropout1D(0.1),
        layers.Bidirectional(layers.LSTM(H, return_sequences=True)),
        layers.Bidirectional(layers.GRU(6), merge_mode="sum"), layers.Dense(3), layers.Activation("softmax"),
    ])


def main():
    rng = np.random.RandomState(0)
    target = os.path.join(os.path.dirname(os.path.abspath(__file__)), "keras_2.2.4.zip")
    folder = tempfile.mkdtemp()
    arrays, saved = (os.path.join(folder, name) for name in ("found.npz", "model.h5"))
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, model in cases():
            model.set_weights([(rng.normal(size=w.shape) * 0.5).astype(w.dtype) for w in model.get_weights()])
            tokens = rng.randint(0, VOCABULARY, size=(B, T)).astype("int32")
            x = tokens if name == "chain_text" else rng.normal(size=(B, T, I)).astype("float32")
            np.savez(arrays, x=x, y=model.predict(x))
            model.save(saved)
            archive.write(arrays, name + ".npz")
            archive.write(saved, name + ".h5")
    print(target, os.stat(target).st_size)


if __name__ == "__main__":
    main()
