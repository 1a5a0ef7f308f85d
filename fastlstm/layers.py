"""The recurrent layers: options and formulas of every cell, with torch's names, shapes and defaults where it has them.

What they can do is in recurrent.py. Formulas of all options, and of backward: docs/equations.md. Regularisers, their
sources, and what they draw: regularizers.py.
"""

from .attributes import fixed
from .recurrent import Recurrent


class LSTM(Recurrent):
    """Long short-term memory, any number of layers, one or two directions (as torch.nn.LSTM).

        i, f, o = sigmoid(W_ih x + b_ih + W_hh h + b_hh),  g = tanh(...)
        c = f * c + i * g,  h = o * tanh(c)            proj_size: h = W_hr (o * tanh(c))

    Hochreiter & Schmidhuber 1997; forget gate: Gers, Schmidhuber & Cummins 2000; projection: Sak, Senior &
    Beaufays 2014. Gate order in the weights: i, f, g, o.

    Parameters, per layer l (and ``_reverse``): weight_ih_l0 (4H, I), weight_hh_l0 (4H, R), bias_ih_l0 and
    bias_hh_l0 (4H,) unless ``bias=False``, weight_hr_l0 (P, H) with ``proj_size`` P; deeper layers take D*R inputs.

    input_size (I), hidden_size (H), num_layers (L): positive integers; hidden_size may be a list with one for each
    layer. dropout: rate in [0, 1] between layers, training only. proj_size (P): 0, or less than hidden_size. dtype:
    "float32", which None means, too, or "float64". rng: None, a seed or a numpy.random.Generator, for weights and
    masks. num_threads: upper bound; None leaves it to the plan.

    Options, which add or drop parameters (docs/equations.md):
    peephole: gates that see the cell state, a subset of "ifo" (Gers & Schmidhuber 2000); weight_peephole_l0.
    peephole_o: "c", or "c_prev": the output gate sees the cell state of the step before.
    coupled: "i=1-f" or "f=1-i", the first of which then has no weights (Greff et al. 2015, CIFG).
    without: gates that are fixed at 1, a subset of "ifo" (Greff et al. 2015; NIG, NFG, NOG).
    activations: of gates, candidate, output; names, or tuples (name, alpha, beta), as in ONNX. None: as above.
    clip, cell_clip, proj_clip: bounds of what activations read (ONNX), of c, of h (TensorFlow; needs proj_size).
    layer_norm: "ba" (Ba, Kiros & Hinton 2016) or "gates", the sums of each gate by itself; norm_eps is its epsilon.
    gate_recurrence: gates see those of the step before (Greff et al. 2015, FGR); weight_gh_l0, and a third state:
    the state is (h, c, gates) with gates of shape (L*D, B, 3H).

    Regularisers, rates in [0, 1) that act in training: variational_x, variational_h (Gal & Ghahramani 2016),
    recurrent_dropout (Semeniuta, Severyn & Barth 2016), weight_drop (Merity, Keskar & Socher 2018), zoneout_h,
    zoneout_c (Krueger et al. 2017; at inference its expectation).

    Raises TypeError or ValueError that names the argument, and for options that make no sense together.

    >>> lstm = LSTM(3, 5, rng=0)
    >>> y, (hn, cn) = lstm(np.zeros((7, 2, 3), np.float32))
    >>> y.shape, hn.shape
    ((7, 2, 5), (1, 2, 5))
    """

    cell = "lstm"

    def __init__(
        self, input_size, hidden_size, num_layers=1, bias=True, batch_first=False, dropout=0.0,
        bidirectional=False, proj_size=0, *, dtype="float32", rng=None, num_threads=None,
        peephole="", peephole_o="c", coupled=None, without="", activations=None, clip=None, cell_clip=None,
        proj_clip=None, layer_norm=None, norm_eps=1e-5, gate_recurrence=False,
        variational_x=0.0, variational_h=0.0, recurrent_dropout=0.0, weight_drop=0.0, zoneout_h=0.0, zoneout_c=0.0,
    ):
        self._set_up(locals())


class GRU(Recurrent):
    """Gated recurrent units, any number of layers, one or two directions (as torch.nn.GRU).

        r, z = sigmoid(W_ih x + b_ih + W_hh h + b_hh),  n = tanh(W_ih x + b_ih + r * (W_hh h + b_hh))
        h = (1 - z) * n + z * h

    Cho et al. 2014, with the reset after the product; reset_after=False: before it, as in that paper,
    n = tanh(W_ih x + b_ih + W_hh (r * h) + b_hh). Gate order in the weights: r, z, n. The state is hn alone:
    ``y, hn = gru(x, h0)``, and ``dx, dh0, grads = gru.backward(dy, cache, dhn)``. Its trace is a `GRUTrace`.

    Parameters and arguments as of `LSTM`, with 3H rows for 4H and without a projection. activations: of gates,
    candidate. Regularisers as of `LSTM`, but for zoneout_c.

    >>> gru = GRU(3, 5, rng=0)
    >>> y, hn = gru(np.zeros((7, 2, 3), np.float32))
    >>> y.shape, hn.shape
    ((7, 2, 5), (1, 2, 5))
    """

    cell = "gru"

    def __init__(
        self, input_size, hidden_size, num_layers=1, bias=True, batch_first=False, dropout=0.0,
        bidirectional=False, *, dtype="float32", rng=None, num_threads=None,
        reset_after=True, activations=None, clip=None,
        variational_x=0.0, variational_h=0.0, recurrent_dropout=0.0, weight_drop=0.0, zoneout_h=0.0,
    ):
        self._set_up(locals())


class RNN(Recurrent):
    """A simple recurrent network, any number of layers, one or two directions (as torch.nn.RNN).

        h = f(W_ih x + b_ih + W_hh h + b_hh)      f: nonlinearity, "tanh" or "relu"

    Elman 1990. The state is hn alone: ``y, hn = rnn(x, h0)``. Its trace is an `RNNTrace`. Parameters and arguments as
    of `LSTM`, with H rows for 4H and without a projection. activations: a tuple of one, instead of nonlinearity.
    Regularisers as of `LSTM`, but for recurrent_dropout and zoneout_c.

    >>> rnn = RNN(3, 5, nonlinearity="relu", rng=0)
    >>> y, hn = rnn(np.zeros((7, 2, 3), np.float32))
    >>> y.shape, hn.shape
    ((7, 2, 5), (1, 2, 5))
    """

    cell = "rnn"

    def __init__(
        self, input_size, hidden_size, num_layers=1, nonlinearity="tanh", bias=True, batch_first=False, dropout=0.0,
        bidirectional=False, *, dtype="float32", rng=None, num_threads=None,
        activations=None, clip=None, variational_x=0.0, variational_h=0.0, weight_drop=0.0, zoneout_h=0.0,
    ):
        if nonlinearity not in (None, "tanh", "relu"):
            raise ValueError(f'nonlinearity must be "tanh" or "relu", got {nonlinearity!r}')
        if nonlinearity == "tanh" and activations is not None:
            nonlinearity = None  # the default, which activations replace
        self._set_up(locals())

    @fixed
    def nonlinearity(self):
        """"tanh" or "relu"; None when it is another of the activations."""
        name = self._spec.v.activations[0].name
        return name if name in ("tanh", "relu") else None

    def config(self):
        found = {**super().config(), "nonlinearity": self.nonlinearity}
        return {**found, "activations": None} if self.nonlinearity else found


class DepthGatedLSTM(Recurrent):
    """An LSTM whose layers hand their cell state upwards, through a gate.

        d = sigmoid(W_d x + b_d + w_c * c + w_l * c_below),  c = d * c_below + f * c + i * g

    in every layer but the first, which is an LSTM; c_below is the cell state of the layer below, of the same step and
    direction. Yao et al. 2015. All layers have the same hidden_size.

    Parameters as of `LSTM`, and weight_d_ih_l1 (H, K), weight_d_c_l1, weight_d_lower_l1, bias_d_l1 (H,) from the second
    layer on. Arguments, options and regularisers as of `LSTM`, as far as they are named below. The state is (h, c),
    the trace a `DepthGatedTrace`.

    >>> model = DepthGatedLSTM(3, 5, rng=0)
    >>> y, (hn, cn) = model(np.zeros((7, 2, 3), np.float32))
    >>> y.shape, hn.shape
    ((7, 2, 5), (2, 2, 5))
    """

    cell = "depth_gated"

    def __init__(
        self, input_size, hidden_size, num_layers=2, bias=True, batch_first=False, dropout=0.0,
        bidirectional=False, proj_size=0, *, dtype="float32", rng=None, num_threads=None,
        peephole="", peephole_o="c", activations=None,
        variational_x=0.0, variational_h=0.0, recurrent_dropout=0.0, weight_drop=0.0, zoneout_h=0.0, zoneout_c=0.0,
    ):
        self._set_up(locals())


class ClockworkRNN(Recurrent):
    """A simple recurrent network whose units are modules that run at different rates.

        h = tanh(W_ih x + b_ih + W_hh h + b_hh)   in modules whose period divides the number of the step; else h = h

    Koutnik, Greff, Gomez & Schmidhuber 2014. periods: of the modules, in rising order; a number n stands for 1, 2, 4,
    ... 2^(n-1). hidden_size is a multiple of their number. A module hears those whose period is at least its own: the
    other elements of weight_hh are not used and have a gradient of 0.

    The state is (h, t), with t (L*D, B, 1) the number of the step, modulo the least common multiple of the periods.
    The trace is an `RNNTrace`. Parameters and arguments as of `RNN`. activations: a tuple of one, default tanh.
    Regularisers: variational_x, variational_h, weight_drop, as of `LSTM`.

    >>> model = ClockworkRNN(3, 8, rng=0)
    >>> y, (hn, tn) = model(np.zeros((7, 2, 3), np.float32))
    >>> y.shape, tn.shape
    ((7, 2, 8), (1, 2, 1))
    """

    cell = "clockwork"

    def __init__(
        self, input_size, hidden_size, num_layers=1, bias=True, batch_first=False, dropout=0.0,
        bidirectional=False, *, dtype="float32", rng=None, num_threads=None,
        periods=4, activations=None, variational_x=0.0, variational_h=0.0, weight_drop=0.0,
    ):
        self._set_up(locals())


class LSTM1997(Recurrent):
    """Long short-term memory as it was first: memory blocks without forget gates.

        i, o = sigmoid(W_ih x + b + W_hh [h i o]),  g = 4 sigmoid(...) - 2
        c = c + i * g,  h = o * (2 sigmoid(c) - 1)

    Hochreiter & Schmidhuber 1997. block_size: cells that share an input and an output gate; hidden_size, the number of
    cells, is a multiple of it. The hidden layer is fully connected: gates see those of the step before.
    without="o": no output gates. biased="gates": only gates have a bias. gradient="truncated": that of the paper,
    in which errors go back in time through c alone; "full": the derivative. activations: of gates, candidate, output.

    Parameters, with U = H + 2 H / block_size units in the order cells, input gates, output gates: weight_ih_l0 (U, I),
    weight_hh_l0 (U, U), bias_ih_l0 (U,). The state is (h, c, gates), with gates of shape (L*D, B, U - H); the trace is
    an `LSTM1997Trace`. Regularisers as of `LSTM`, but for zoneout.

    >>> model = LSTM1997(3, 6, block_size=2, rng=0)
    >>> y, (hn, cn, gates) = model(np.zeros((7, 2, 3), np.float32))
    >>> y.shape, gates.shape
    ((7, 2, 6), (1, 2, 6))
    """

    cell = "lstm_1997"

    def __init__(
        self, input_size, hidden_size, num_layers=1, bias=True, batch_first=False, dropout=0.0,
        bidirectional=False, *, dtype="float32", rng=None, num_threads=None,
        block_size=1, without="", biased="all", gradient="truncated", activations=None,
        variational_x=0.0, variational_h=0.0, recurrent_dropout=0.0, weight_drop=0.0,
    ):
        self._set_up(locals())
