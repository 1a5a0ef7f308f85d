from typing import ClassVar, Final, TypeAlias

from numpy.typing import DTypeLike

from .option_checks import Activation
from .params import _Array, _ArrayLike, _Rng, _Sizes, _State, _State3, _StateLike, _StateLike3
from .recurrent import Recurrent as Recurrent
from .traces import DepthGatedTrace, GRUTrace, LSTM1997Trace, RNNTrace, Trace

_Activation: TypeAlias = str | tuple[str | float, ...] | list[str | float]
_Activations: TypeAlias = tuple[_Activation, ...] | list[_Activation] | None

class LSTM(Recurrent[_State, _StateLike, Trace]):
    # With gate_recurrence the state is (h, c, gates): more than these types say.
    cell: ClassVar[str]
    peephole: Final[str]
    peephole_o: Final[str]
    coupled: Final[str | None]
    without: Final[str]
    activations: Final[tuple[Activation, ...]]
    clip: Final[float | None]
    cell_clip: Final[float | None]
    proj_clip: Final[float | None]
    layer_norm: Final[str | None]
    norm_eps: Final[float]
    gate_recurrence: Final[bool]
    variational_x: float
    variational_h: float
    recurrent_dropout: float
    weight_drop: float
    zoneout_h: float
    zoneout_c: float
    def __init__(
        self, input_size: int, hidden_size: _Sizes, num_layers: int = 1, bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0, *,
        dtype: DTypeLike = "float32", rng: _Rng = None, num_threads: int | None = None,
        peephole: str = "", peephole_o: str = "c", coupled: str | None = None, without: str = "",
        activations: _Activations = None, clip: float | None = None, cell_clip: float | None = None,
        proj_clip: float | None = None, layer_norm: str | None = None, norm_eps: float = 1e-5,
        gate_recurrence: bool = False,
        variational_x: float = 0.0, variational_h: float = 0.0, recurrent_dropout: float = 0.0,
        weight_drop: float = 0.0, zoneout_h: float = 0.0, zoneout_c: float = 0.0,
    ) -> None: ...

class GRU(Recurrent[_Array, _ArrayLike, GRUTrace]):
    cell: ClassVar[str]
    reset_after: Final[bool]
    activations: Final[tuple[Activation, ...]]
    clip: Final[float | None]
    variational_x: float
    variational_h: float
    recurrent_dropout: float
    weight_drop: float
    zoneout_h: float
    def __init__(
        self, input_size: int, hidden_size: _Sizes, num_layers: int = 1, bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, *,
        dtype: DTypeLike = "float32", rng: _Rng = None, num_threads: int | None = None,
        reset_after: bool = True, activations: _Activations = None, clip: float | None = None,
        variational_x: float = 0.0, variational_h: float = 0.0, recurrent_dropout: float = 0.0,
        weight_drop: float = 0.0, zoneout_h: float = 0.0,
    ) -> None: ...

class RNN(Recurrent[_Array, _ArrayLike, RNNTrace]):
    cell: ClassVar[str]
    nonlinearity: Final[str | None]
    activations: Final[tuple[Activation, ...]]
    clip: Final[float | None]
    variational_x: float
    variational_h: float
    weight_drop: float
    zoneout_h: float
    def __init__(
        self, input_size: int, hidden_size: _Sizes, num_layers: int = 1,
        nonlinearity: str | None = "tanh", bias: bool = True, batch_first: bool = False, dropout: float = 0.0,
        bidirectional: bool = False, *, dtype: DTypeLike = "float32", rng: _Rng = None,
        num_threads: int | None = None, activations: _Activations = None, clip: float | None = None,
        variational_x: float = 0.0, variational_h: float = 0.0, weight_drop: float = 0.0, zoneout_h: float = 0.0,
    ) -> None: ...

class DepthGatedLSTM(Recurrent[_State, _StateLike, DepthGatedTrace]):
    cell: ClassVar[str]
    peephole: Final[str]
    peephole_o: Final[str]
    activations: Final[tuple[Activation, ...]]
    variational_x: float
    variational_h: float
    recurrent_dropout: float
    weight_drop: float
    zoneout_h: float
    zoneout_c: float
    def __init__(
        self, input_size: int, hidden_size: _Sizes, num_layers: int = 2, bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0, *,
        dtype: DTypeLike = "float32", rng: _Rng = None, num_threads: int | None = None,
        peephole: str = "", peephole_o: str = "c", activations: _Activations = None,
        variational_x: float = 0.0, variational_h: float = 0.0, recurrent_dropout: float = 0.0,
        weight_drop: float = 0.0, zoneout_h: float = 0.0, zoneout_c: float = 0.0,
    ) -> None: ...

class ClockworkRNN(Recurrent[_State, _StateLike, RNNTrace]):
    cell: ClassVar[str]
    periods: Final[tuple[int, ...]]
    activations: Final[tuple[Activation, ...]]
    variational_x: float
    variational_h: float
    weight_drop: float
    def __init__(
        self, input_size: int, hidden_size: _Sizes, num_layers: int = 1, bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, *,
        dtype: DTypeLike = "float32", rng: _Rng = None, num_threads: int | None = None,
        periods: int | tuple[int, ...] | list[int] = 4, activations: _Activations = None,
        variational_x: float = 0.0, variational_h: float = 0.0, weight_drop: float = 0.0,
    ) -> None: ...

class LSTM1997(Recurrent[_State3, _StateLike3, LSTM1997Trace]):
    cell: ClassVar[str]
    block_size: Final[int]
    without: Final[str]
    biased: Final[str]
    gradient: Final[str]
    activations: Final[tuple[Activation, ...]]
    variational_x: float
    variational_h: float
    recurrent_dropout: float
    weight_drop: float
    def __init__(
        self, input_size: int, hidden_size: _Sizes, num_layers: int = 1, bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, *,
        dtype: DTypeLike = "float32", rng: _Rng = None, num_threads: int | None = None,
        block_size: int = 1, without: str = "", biased: str = "all", gradient: str = "truncated",
        activations: _Activations = None,
        variational_x: float = 0.0, variational_h: float = 0.0, recurrent_dropout: float = 0.0,
        weight_drop: float = 0.0,
    ) -> None: ...
