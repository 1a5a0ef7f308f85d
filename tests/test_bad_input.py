"""Every public argument given wrongly: the exception, the words a user needs, and a model that is as it was."""

import numpy as np
import pytest
from grids import Case, flat, problem, python, same, says

import fastlstm as fl
from fastlstm import _core

T, B, I, H = 4, 3, 6, 9
CASE = Case(T, B, I, H, layers=2, bidirectional=True)

MAKING = [
    (dict(input_size=0), ValueError, "input_size must be at least 1, got 0"),
    (dict(hidden_size=-3), ValueError, "hidden_size must be at least 1, got -3"),
    (dict(num_layers=0), ValueError, "num_layers must be at least 1, got 0"),
    (dict(input_size=2.0), TypeError, "input_size must be an integer, got float"),
    (dict(hidden_size=True), TypeError, "hidden_size must be an integer, got bool"),
    (dict(num_layers="2"), TypeError, "num_layers must be an integer, got str"),
    (dict(bias=1), TypeError, "bias must be True or False, got int"),
    (dict(batch_first="yes"), TypeError, "batch_first must be True or False, got str"),
    (dict(bidirectional=None), TypeError, "bidirectional must be True or False, got NoneType"),
    (dict(dropout=1.01), ValueError, r"dropout must be a number in \[0, 1\], got 1.01"),
    (dict(zoneout_h=1.0), ValueError, r"zoneout_h must be a number in \[0, 1\), got 1.0"),
    (dict(dtype=3), TypeError, "dtype must be float32 or float64, got 3"),
    (dict(dropout=-0.1), ValueError, "dropout must be a number"),
    (dict(dropout="a"), ValueError, "dropout must be a number"),
    (dict(dropout=float("nan")), ValueError, "dropout must be a number"),
    (dict(proj_size=9), ValueError, "proj_size must be smaller than hidden_size 9, got 9"),
    (dict(proj_size=-1), ValueError, "proj_size must be at least 0, got -1"),
    (dict(proj_size=1.5), TypeError, "proj_size must be an integer, got float"),
    (dict(dtype="float16"), ValueError, "dtype must be float32 or float64, got 'float16'"),
    (dict(dtype=int), ValueError, "dtype must be float32 or float64"),
    (dict(num_threads=0), ValueError, "num_threads must be in 1..1024, got 0"),
    (dict(num_threads=2**40), ValueError, "num_threads must be in 1..1024, got 1099511627776"),
    (dict(num_threads=1.5), TypeError, "num_threads must be an integer or None, got float"),
    (dict(num_threads=True), TypeError, "num_threads must be an integer or None, got bool"),
    (dict(nonsense=1), TypeError, "nonsense"),
]


@pytest.mark.parametrize("change, error, words", MAKING)
def test_making_a_layer(change, error, words):
    with pytest.raises(error, match=words):
        fl.LSTM(**{"input_size": I, "hidden_size": H} | change)


x, zeros = np.zeros((T, B, I), np.float32), np.zeros
SHAPE = r"expected \(T, B, I\) or unbatched \(T, I\) with I = input_size = 6"
CALLING = [
    (dict(x=zeros((T, B, 5))), ValueError, r"x has shape \(4, 3, 5\), " + SHAPE),
    (dict(x=zeros(I)), ValueError, r"x has shape \(6,\), " + SHAPE),
    (dict(x=zeros((1, T, B, I))), ValueError, r"x has shape \(1, 4, 3, 6\), " + SHAPE),
    (dict(x=1.0), ValueError, r"x has shape \(\), " + SHAPE),
    (dict(x=None), TypeError, r"x must hold real numbers, got object \(NoneType\)"),
    (dict(x="text"), TypeError, "x must hold real numbers, got <U4"),
    (dict(x=[["a"] * I]), TypeError, "x must hold real numbers"),
    (dict(x=x + 1j), TypeError, "x must hold real numbers, got complex64"),
    (dict(x=x.astype("datetime64[s]")), TypeError, "x must hold real numbers, got datetime64"),
    (dict(x=[[1.0], [1.0, 2.0]]), ValueError, "x cannot be read as an array"),
    (dict(x={"a": 1}), TypeError, "x must hold real numbers, got object .dict."),
    (dict(state=x), TypeError, r"state must be a pair \(h0, c0\), got ndarray"),
    (dict(state=(x,)), TypeError, r"state must be a pair \(h0, c0\), got tuple of 1"),
    (dict(state={"h": x}), TypeError, r"state must be a pair \(h0, c0\), got dict"),
    (dict(state=(zeros((4, 2, H)), None)), ValueError, r"h0 has shape .4, 2, 9., expected .4, 3, 9. = .L\*D, B, R."),
    (dict(state=(None, zeros((2, 3, H)))), ValueError, r"c0 has shape .2, 3, 9., expected .4, 3, 9. = .L\*D, B, H."),
    (dict(state=(zeros((4, H)), None)), ValueError, "h0 has shape"),
    (dict(state=("h", None)), TypeError, "h0 must hold real numbers"),
    (dict(state=(None, [[1], [1, 2]])), ValueError, "c0 cannot be read as an array"),
    (dict(lengths=[1, 2]), ValueError, r"lengths has shape \(2,\), expected \(3,\), one per row of the batch"),
    (dict(lengths=3), ValueError, r"lengths has shape \(\), expected \(3,\)"),
    (dict(lengths=[]), ValueError, r"lengths has shape \(0,\), expected \(3,\)"),
    (dict(lengths=[1, 5, 2]), ValueError, r"lengths\[1\] is 5, expected 0 <= length <= T = 4"),
    (dict(lengths=[1, 2, -1]), ValueError, r"lengths\[2\] is -1, expected 0 <= length <= T = 4"),
    (dict(lengths=np.array([1, 2, 2**63], np.uint64)), ValueError, r"lengths\[2\] is 9223372036854775808"),
    (dict(lengths=[1.0, 2.0, 3.0]), TypeError, "lengths must hold integers, got float64"),
    (dict(lengths=[True, True, True]), TypeError, "lengths must hold integers, got bool"),
    (dict(lengths=[1, None, 2]), TypeError, "lengths must hold integers, got object"),
    (dict(lengths=[[1], [1, 2]]), ValueError, "lengths cannot be read as an array"),
    (dict(reset=zeros((B, T), bool)), ValueError, r"reset has shape \(3, 4\), expected \(4, 3\) = \(T, B\)"),
    (dict(reset=zeros(T, bool)), ValueError, r"reset has shape \(4,\)"),
    (dict(reset=True), ValueError, r"reset has shape \(\)"),
    (dict(reset=zeros((T, B))), TypeError, "reset must hold booleans, got float64"),
    (dict(reset=[[True], [True, False]]), ValueError, "reset cannot be read as an array"),
    (dict(nonsense=1), TypeError, "nonsense"),
]


@pytest.mark.parametrize("way", ["call", "trace", "cache"])
@pytest.mark.parametrize("change, error, words", CALLING)
def test_calling_a_layer(change, error, words, way):
    p = problem(CASE, "float32")
    layer = p.layer()
    before, weights = layer(p.x, **p.given), layer.state_dict()
    given = {"x": p.x} | change
    with pytest.raises(error, match=words):
        layer(**given) if way == "call" else layer.forward(**given, **{way: True})
    same(layer(p.x, **p.given), before)
    same(list(layer.state_dict().values()), list(weights.values()))


def test_the_words_follow_the_layout():
    turned, flat_x = fl.LSTM(I, H, batch_first=True), zeros((T, I))
    with pytest.raises(ValueError, match=r"expected \(B, T, I\) or unbatched \(T, I\)"):
        turned(zeros((B, T, I + 1)))
    with pytest.raises(ValueError, match=r"reset has shape \(4, 3\), expected \(3, 4\) = \(B, T\)"):
        turned(zeros((B, T, I)), reset=zeros((T, B), bool))
    with pytest.raises(ValueError, match=r"reset has shape \(4, 1\), expected \(4,\) = \(T,\)"):
        turned(flat_x, reset=zeros((T, 1), bool))
    with pytest.raises(ValueError, match=r"h0 has shape \(1, 1, 9\), expected \(1, 9\) = \(L\*D, R\)"):
        turned(flat_x, (zeros((1, 1, H)), None))
    with pytest.raises(ValueError, match="lengths has shape"):
        turned(flat_x, lengths=[1, 2])


def test_a_plain_call_with_a_cache_says_what_to_call():
    with pytest.raises(TypeError, match=r"for training call model.forward\(x, cache=True\)"):
        fl.LSTM(I, H)(x, cache=True)


BACK = [
    (dict(dy=zeros((T, B, H))), ValueError, r"dy has shape \(4, 3, 9\), expected \(4, 3, 18\), the shape of y"),
    (dict(dy=zeros((B, T, 2 * H))), ValueError, "dy has shape"),
    (dict(dy=None), TypeError, "dy must hold real numbers, got object"),
    (dict(dy=[[1], [1, 2]]), ValueError, "dy cannot be read as an array"),
    (dict(cache=None), TypeError, r"cache must come from forward\(..., cache=True\), got NoneType"),
    (dict(cache=(1, 2)), TypeError, "cache must come from forward"),
    (dict(dstate=zeros((4, B, H))), TypeError, r"dstate must be a pair \(dhn, dcn\), got ndarray"),
    (dict(dstate=(zeros((4, B, H - 1)), None)), ValueError, "dhn has shape"),
    (dict(dstate=(None, zeros((3, B, H)))), ValueError, "dcn has shape"),
    (dict(dstate=(None, "x")), TypeError, "dcn must hold real numbers"),
]


@pytest.mark.parametrize("change, error, words", BACK)
def test_backward(change, error, words):
    p = problem(CASE, "float32")
    layer = p.layer()
    cache = layer.forward(p.x, cache=True, **p.given)[-1]
    good = {"dy": p.dy, "cache": cache, "dstate": p.dstate}
    expected = list(flat(layer.backward(**good)).values())
    with pytest.raises(error, match=words):
        layer.backward(**good | change)
    same(list(flat(layer.backward(**good)).values()), expected)


@pytest.mark.parametrize("other", [
    CASE._replace(H=40), CASE._replace(layers=3), CASE._replace(I=20), CASE._replace(bidirectional=False),
    CASE._replace(proj=4), CASE._replace(H=40, layers=1, bidirectional=False),
])
def test_the_cache_of_a_layer_of_other_sizes_is_refused(other):
    """Its gradients would be written past the end of this layer's."""
    p, q = problem(CASE, "float32"), problem(other, "float32")
    cache = q.layer().forward(q.x, cache=True)[-1]
    for dy in (p.dy, q.dy):
        with pytest.raises(ValueError, match="cache was made by a layer of other sizes"):
            p.layer().backward(dy, cache)
    double = problem(CASE, "float64").layer().forward(p.x, cache=True)[-1]
    with pytest.raises(ValueError, match="cache was made by a layer of other sizes"):
        p.layer().backward(p.dy, double)


def test_a_cache_cannot_be_copied_to_another_process():
    import pickle

    cache = fl.LSTM(I, H).forward(x, cache=True)[-1]
    with pytest.raises(TypeError, match="a cache belongs to the process that made it"):
        pickle.dumps(cache)


@pytest.mark.parametrize("T, B, error, words", [
    (-1, 2, ValueError, r"T must be in 0..2\*\*28, got -1"), (2, -1, ValueError, r"B must be in 0..2\*\*28, got -1"),
    (2**70, 1, ValueError, r"T must be in 0..2\*\*28"),
    (1.5, 2, TypeError, "T must be an integer, got float"), (2, True, TypeError, "B must be an integer, got bool"),
])
def test_plan(T, B, error, words):
    with pytest.raises(error, match=words):
        fl.LSTM(I, H).plan(T, B)


def test_sizes_beyond_memory_are_a_memory_error():
    layer = fl.LSTM(1, 9)
    with pytest.raises(MemoryError):
        layer(np.broadcast_to(np.float32(0), (1 << 40, 1, 1)))
    with pytest.raises(MemoryError):
        layer.forward(np.broadcast_to(np.float32(0), (1 << 40, 1, 1)), cache=True)
    assert layer(zeros((1, 1, 1)))[0].shape == (1, 1, 9)


def test_torch_tensors_it_cannot_read_are_named():
    torch = pytest.importorskip("torch")
    layer = fl.LSTM(I, H)
    with pytest.raises((TypeError, ValueError), match="x cannot be read as an array"):
        layer(torch.zeros((T, B, I), device="meta"))
    with pytest.raises((TypeError, ValueError), match="x cannot be read as an array"):
        layer(torch.zeros((T, B, I)).to_sparse())


@pytest.mark.parametrize("n, error, words", [
    (0, ValueError, "n must be in 1..1024, got 0"), (-2, ValueError, "n must be in 1..1024"),
    (1.0, TypeError, "n must be an integer or None, got float"), ("2", TypeError, "n must be an integer or None"),
    (True, TypeError, "n must be an integer or None, got bool"),
])
def test_set_num_threads(n, error, words):
    before = fl.get_num_threads()
    with pytest.raises(error, match=words):
        fl.set_num_threads(n)
    assert fl.get_num_threads() == before


# ------------------------------------------------------------------------------------------ environment


ELSEWHERE = "neon" if "avx2" in _core.available_isas() else "avx2"  # a set of another architecture


@pytest.mark.parametrize("value", ["avx1024", "AVX2", "avx2 ", ELSEWHERE])
@pytest.mark.parametrize("use", ["fl.isa()", "fl.LSTM(2, 3)", "fl.Linear(2, 3)([[1, 2]])", "fl.show_config()"])
def test_a_wrong_fastlstm_isa_is_an_error_that_lists_the_choices(value, use):
    status, _, err = python(f"import fastlstm as fl; {use}", FASTLSTM_ISA=value)
    assert status == 1
    last = err.strip().split("\n")[-1]
    assert last.startswith(f"RuntimeError: FASTLSTM_ISA={value!r}: ")
    assert last.endswith("; choices here: " + ", ".join(_core.available_isas()))


def test_a_right_fastlstm_isa_is_used():
    code = "import fastlstm as fl; m = fl.LSTM(2, 3); print(fl.isa(), m._packed().isa)"
    for name in _core.available_isas():
        assert says(code, FASTLSTM_ISA=name) == [f"{name} {name}"]
    best = _core.available_isas()[0]
    assert says(code) == says(code, FASTLSTM_ISA="") == [f"{best} {best}"]


def test_force_isa_refuses_what_is_not_there():
    with pytest.raises(RuntimeError, match="no instruction set 'avx1024' on this machine; choices: .*scalar"):
        _core.force_isa("avx1024")
    assert _core.isa() in _core.available_isas()


def test_a_wrong_fastlstm_gemm_is_an_error_that_lists_the_choices():
    status, _, err = python("import fastlstm as fl; fl.LSTM(2, 3)([[[1, 2]]])", FASTLSTM_GEMM="mkl")
    assert status == 1
    last = err.strip().split("\n")[-1]
    assert last.startswith("RuntimeError: ")
    assert all(word in last for word in ("FASTLSTM_GEMM", "auto", "panel", "blas"))


@pytest.mark.parametrize("mode, blas", [("blas", "True"), ("panel", "False"), ("auto", "False"), ("", "False")])
def test_a_right_fastlstm_gemm_is_used(mode, blas):
    assert says("import fastlstm as fl; print(fl.LSTM(2, 3).plan(4, 2).blas)", FASTLSTM_GEMM=mode) == [blas]


@pytest.mark.parametrize("text", ["abc", "-1", "2.5", "1025", "99999999999", " 2", "²"])
@pytest.mark.parametrize("use", ["fl.get_num_threads()", "fl.LSTM(2, 3, num_threads=1)([[[1, 2]]])",
                                 "fl.Linear(2, 3)([[1, 2]])", "fl.show_config()"])
def test_a_number_of_threads_in_the_environment_that_is_none(text, use):
    status, out, err = python(f"import fastlstm as fl; print('imported'); {use}", FASTLSTM_NUM_THREADS=text)
    assert (status, out.split("\n")[0]) == (1, "imported")
    last = err.strip().split("\n")[-1]
    assert last == f"RuntimeError: FASTLSTM_NUM_THREADS={text!r} must be an integer in 0..1024 (0: the default)"
