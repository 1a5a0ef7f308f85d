"""How ONNX orders gates and names activations, beside how this package does. Source: ONNX's Operators.md, LSTM GRU RNN.

Weights of ONNX: W (D, G*H, I), R (D, G*H, H), B (D, 2*G*H) with those of W first, P (D, 3*H) of gates i, o, f.
"""

import numpy as np

ORDERS = {"LSTM": "iofg", "GRU": "zrn", "RNN": "a"}  # of ONNX, in the letters of variants.Variant.gates
CELLS = {"LSTM": "lstm", "GRU": "gru", "RNN": "rnn"}
PEEPHOLES = "iof"

# ONNX -> (name here, does it take alpha, beta). Affine(1, 0) is the identity here.
ACTIVATIONS = {
    "Sigmoid": ("sigmoid", 0), "HardSigmoid": ("hard_sigmoid", 2), "Tanh": ("tanh", 0), "Relu": ("relu", 0),
    "Softsign": ("softsign", 0), "Softplus": ("softplus", 0), "Elu": ("elu", 1), "LeakyRelu": ("leaky_relu", 1),
    "ThresholdedRelu": ("thresholded_relu", 1), "ScaledTanh": ("scaled_tanh", 2), "Affine": ("affine", 2),
}


def reordered(array, before, after):
    """The blocks of `array` along its first axis, one per letter of `before`, in the order of the letters `after`.

    Letters of `before` that `after` lacks are left out. A new C-contiguous array.
    """
    blocks = dict(zip(before, np.split(array, len(before)), strict=True))
    return np.concatenate([blocks[letter] for letter in after])
