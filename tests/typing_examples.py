"""The public face as a user writes it, for mypy; never run. An error here is an error in someone's editor.

Where a line must be refused it says ``type: ignore``; mypy warns of one that is not needed, so it fails either way.
"""

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import assert_type

import fastlstm as fl

Array = npt.NDArray[Any]
State = tuple[Array, Array]


class Foreign:
    """What is no array but hands its memory over, as tensors of other libraries do."""

    def __dlpack__(self, *, stream: int | None = None) -> object:
        raise NotImplementedError

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0


def layers(x: np.ndarray, lengths: list[int], reset: np.ndarray, flag: bool) -> np.ndarray:
    lstm = fl.LSTM(
        40, 128, num_layers=2, bias=True, batch_first=False, dropout=0.1, bidirectional=False, proj_size=0,
        dtype="float32", rng=0, num_threads=None,
    )
    y, (hn, cn) = lstm(x)
    y, (hn, cn) = lstm(x, (hn, cn), lengths=lengths, reset=reset)
    y, (hn, cn) = lstm(Foreign(), (hn, None))
    y, state, trace = lstm(x, trace=True)
    print(trace.i, trace.f, trace.g, trace.o, trace.c, trace.h, trace.i[0].mean(axis=0))
    y, state, cache = lstm.forward(x, state, cache=True)
    dx, dstate, grads = lstm.backward(y, cache, dstate=None)
    found = lstm.load_state_dict(lstm.state_dict(), strict=True)
    assert_type(found.missing_keys, list[str])

    assert_type(lstm(x), tuple[Array, State])
    assert_type(lstm(x, trace=True), tuple[Array, State, fl.Trace])
    assert_type(lstm(x, trace=flag), tuple[Any, ...])
    assert_type(lstm.forward(x), tuple[Array, State])
    assert_type(lstm.forward(x, trace=True), tuple[Array, State, fl.Trace])
    assert_type(lstm.forward(x, trace=flag, cache=flag), tuple[Any, ...])
    assert_type(lstm.forward(x, trace=True, cache=True)[2], fl.Trace)
    assert_type(lstm.backward(y, cache), tuple[Array, State, dict[str, Array]])
    assert_type(lstm.backward(y, cache, input_gradient=False)[0], None)
    assert_type(lstm.backward(y, cache, input_gradient=flag)[0], Array | None)
    assert_type(lstm.train().eval(), fl.LSTM)
    assert_type(lstm.plan(100, 8).threads, int)
    result: np.ndarray = dx + grads["weight_ih_l0"].sum() + dstate[0].sum()
    return result


def family(x: np.ndarray) -> None:
    lstm = fl.LSTM(
        40, [256, 128], peephole="ifo", coupled="f=1-i", activations=("sigmoid", "tanh", ("leaky_relu", 0.1)),
        clip=50.0, layer_norm="gates", variational_x=0.1, weight_drop=0.5, zoneout_c=0.1,
    )
    y, _, cache = lstm.forward(x, cache=True, masks=lstm.draw_masks(10, 4))
    print(cache.masks["mask_x_l0"], lstm.hidden_size[1])
    lstm.zoneout_c = 0.2
    assert_type(lstm.zoneout_c, float)
    assert_type(fl.GRU(40, 128, reset_after=False, zoneout_h=0.1).stream().state, Array)
    assert_type(fl.RNN(40, 128, activations=["elu"])(x), tuple[Array, Array])
    assert_type(fl.DepthGatedLSTM(40, 128, peephole="io")(x, trace=True)[2], fl.DepthGatedTrace)
    assert_type(fl.ClockworkRNN(40, 128, periods=(1, 4))(x)[1], State)
    assert_type(fl.LSTM1997(40, 128, block_size=2, gradient="full")(x)[1], tuple[Array, Array, Array])
    assert_type(fl.LSTM1997(40, 128)(x, trace=True)[2], fl.LSTM1997Trace)
    fl.RNN(40, 128, zoneout_c=0.1)  # type: ignore[call-arg]
    fl.ClockworkRNN(40, 128, proj_size=3)  # type: ignore[call-arg]
    lstm(x, masks={})  # type: ignore[call-overload]


def refused_by_layers(x: np.ndarray, lstm: fl.LSTM) -> None:
    fl.LSTM("40", 128)  # type: ignore[arg-type]
    fl.LSTM(40)  # type: ignore[call-arg]
    fl.LSTM(40, 128, 2, True, False, 0.0, False, 0, "float32")  # type: ignore[call-arg]
    fl.GRU(40, 128, proj_size=4)  # type: ignore[call-arg]
    lstm(None)  # type: ignore[call-overload]
    lstm(x, x)  # type: ignore[call-overload]
    lstm(x, cache=True)  # type: ignore[call-overload]
    y, state, trace = lstm(x)  # type: ignore[misc]
    y, state = lstm.forward(x, cache=True)  # type: ignore[misc]
    lstm.backward(x, None)  # type: ignore[call-overload]
    lstm.load_state_dict([x])  # type: ignore[arg-type]
    lstm.num_threads = 2  # type: ignore[misc]
    lstm.hidden_size = 2  # type: ignore[misc]
    lstm.peephole = "ifo"  # type: ignore[misc]
    lstm.dropout = "0.5"  # type: ignore[assignment]
    lstm.backward(x, lstm.forward(x, cache=True)[2], input_gradient=False)[0].sum()  # type: ignore[attr-defined]


def streams(x: np.ndarray, lstm: fl.LSTM, model: fl.Sequential) -> np.ndarray:
    stream = lstm.stream(batch_size=8)
    h = stream.step(x[0])
    h = stream.step(x[1], out=h)
    assert_type(stream.state, State)
    stream.state = stream.state
    stream.state = None
    stream.reset(mask=np.zeros(8, bool))
    stream.reset()
    stream.step(x[1], out=[h])  # type: ignore[arg-type]
    stream.state = x  # type: ignore[assignment]
    assert_type(fl.Linear(128, 1).stream().step(h), Array)
    assert_type(model.stream(8).process(x), Array)
    return stream.process(x)


def parts(x: np.ndarray) -> None:
    linear = fl.Linear(128, 96, activation="relu")
    assert_type(linear(x), Array)
    y, _, cache = linear.forward(x, cache=True)
    assert_type(linear.backward(y, cache), tuple[Array, None, dict[str, Array]])
    embedding = fl.Embedding(96, 32)
    y, _, index = embedding.forward([[1, 2]], cache=True)
    assert_type(embedding.backward(y, index)[0], None)
    fl.Linear(128, 96, activation="swish")  # type: ignore[arg-type]
    linear(x, (x, x))  # type: ignore[arg-type]
    linear(x, trace=True)  # type: ignore[arg-type]


def models(tokens: np.ndarray, targets: np.ndarray) -> None:
    model = fl.Sequential(fl.Embedding(96, 32), fl.LSTM(32, 128), fl.Linear(128, 96, activation="none"))
    adam = fl.optim.Adam(model, lr=3e-3)
    logits, state, cache = model.forward(tokens, None, cache=True)
    loss, dlogits = fl.losses.cross_entropy(logits, targets)
    _, _, grads = model.backward(dlogits, cache)
    assert_type(fl.clip_grad_norm(grads, 1.0), float)
    adam.step(grads)
    adam.step({**grads, "0.weight": None})
    adam.lr = 1e-4
    adam.load_state_dict(adam.state_dict())
    assert_type(model[0], fl.Module)
    assert_type(model[1:] + model[:1], fl.Sequential)
    assert_type(model[1:], fl.Sequential)
    print([member.num_parameters for member in model], len(model))
    model.save("model.safetensors")
    model.save(Path("model.safetensors"), metadata={"note": "mine"})
    try:
        again = fl.load("model.safetensors")
    except fl.FileFormatError as error:
        print(error)
    else:
        assert_type(again, fl.Module)
        print(again(tokens), loss, state)
    fl.Sequential([fl.Linear(1, 1)])  # type: ignore[arg-type]
    fl.Sequential(fl.LSTM)  # type: ignore[arg-type]
    fl.optim.SGD(model)  # type: ignore[call-arg]
    fl.optim.SGD(model.state_dict(), lr=0.1)  # type: ignore[arg-type]
    adam.step([dlogits])  # type: ignore[list-item]
    both = fl.optim.SGD([model, fl.Linear(2, 2)], lr=0.1)
    both.step([grads, grads])
    assert_type(fl.clip_grad_norm([grads, grads], 1.0), float)
    fl.optim.Adam("model")  # type: ignore[arg-type]
    fl.losses.cross_entropy(logits, targets, [3, 2], batch_first=model.batch_first, mask=targets > 0, ignore_index=None)
    fl.losses.mse(logits, logits, mask=[[1.0]], reduction="all")  # type: ignore[arg-type]
    model.forward(tokens, lengths=[3, 2], batch_first=True)
    model.save("model.safetensors", metadata={"epoch": 3})  # type: ignore[dict-item]
    with open(os.devnull) as file:
        fl.load(file)  # type: ignore[arg-type]
        model.save(file)  # type: ignore[arg-type]
    model.save(b"model.safetensors")  # type: ignore[arg-type]


def sources(model: fl.Module, data: bytes) -> None:
    file = io.BytesIO()
    model.save(file)
    fl.to_onnx(model, file)
    fl.save_checkpoint(file, model)
    for given in (data, bytearray(data), memoryview(data)):
        fl.load(given)
        fl.from_torch(given)
    fl.load_checkpoint(io.BytesIO(data))
    with zipfile.ZipFile("archive.zip") as archive, archive.open("model.keras") as member, open("m.onnx", "rb") as onnx:
        assert_type(fl.from_keras(member), fl.Module)
        fl.from_onnx(onnx)
        fl.read_torch(archive.open("model.pt"))
    with open("model.safetensors", "wb", buffering=0) as raw:
        model.save(raw)
    fl.load(3)  # type: ignore[arg-type]
    model.save([])  # type: ignore[arg-type]


class Doubled(fl.LSTM):
    """A model of one's own."""

    def config(self) -> dict[str, Any]:
        return {**super().config(), "twice": True}


def models_in_and_out(x: np.ndarray) -> None:
    layers = fl.from_onnx("a.onnx")
    layers = fl.from_onnx("a.onnx", names=["lstm"])
    assert_type(layers, dict[str, fl.LSTM | fl.GRU | fl.RNN | fl.Reverse | fl.Bidirectional])
    model = fl.Sequential(fl.Bidirectional(fl.LSTM(2, 3), fl.GRU(2, 3), "sum"), fl.Last(fl.RNN(3, 4)))
    fl.to_onnx(model, "b.onnx", state=True, metadata={"note": "3"})
    assert_type(fl.from_keras("a.keras"), fl.Module)
    assert_type(fl.from_torch("a.pt", "lstm.", batch_first=True), fl.Module)
    assert_type(fl.Reverse(fl.GRU(2, 3)).in_time, bool)
    fl.Bidirectional(fl.LSTM(2, 3), fl.GRU(2, 3), "max")  # type: ignore[arg-type]
    fl.Last(fl.Linear(2, 3))  # type: ignore[arg-type]
    fl.from_torch("a.pt", batch_first="yes")  # type: ignore[arg-type]
    print(layers["lstm"](x))


def process() -> str:
    fl.set_num_threads(2)
    fl.set_num_threads(None)
    fl.set_num_threads("2")  # type: ignore[arg-type]
    fl.show_config()
    assert_type(fl.get_num_threads(), int)
    with fl.num_threads(2):
        pass

    @fl.num_threads(None)
    def one(n: int) -> str:
        return str(n)

    assert_type(one(1), str)
    fl.num_threads("2")  # type: ignore[arg-type]
    assert_type(fl.available_isas(), tuple[str, ...])
    return f"{fl.__version__} {fl.isa()} {Doubled(1, 2).hidden_size}"
