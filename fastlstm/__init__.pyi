from . import losses as losses
from . import optim as optim
from ._version import __version__ as __version__
from .checkpoint import Checkpoint as Checkpoint
from .checkpoint import load_checkpoint as load_checkpoint
from .checkpoint import save_checkpoint as save_checkpoint
from .convert.keras_models import from_keras as from_keras
from .convert.onnx_read import from_onnx as from_onnx
from .convert.onnx_write import to_onnx as to_onnx
from .convert.torch_files import read_torch as read_torch
from .convert.torch_files import with_prefix as with_prefix
from .convert.torch_models import from_torch as from_torch
from .convert.torch_models import to_torch as to_torch
from .files import FileFormatError as FileFormatError
from .files import load as load
from .last import Last as Last
from .layers import GRU as GRU
from .layers import LSTM as LSTM
from .layers import LSTM1997 as LSTM1997
from .layers import RNN as RNN
from .layers import ClockworkRNN as ClockworkRNN
from .layers import DepthGatedLSTM as DepthGatedLSTM
from .module import Module as Module
from .network import Embedding as Embedding
from .network import Linear as Linear
from .optim import clip_grad_norm as clip_grad_norm
from .runtime import available_isas as available_isas
from .runtime import get_num_threads as get_num_threads
from .runtime import isa as isa
from .runtime import num_threads as num_threads
from .runtime import set_num_threads as set_num_threads
from .runtime import show_config as show_config
from .sequential import Sequential as Sequential
from .traces import DepthGatedTrace as DepthGatedTrace
from .traces import GRUTrace as GRUTrace
from .traces import LSTM1997Trace as LSTM1997Trace
from .traces import RNNTrace as RNNTrace
from .traces import Trace as Trace
from .wrappers import Bidirectional as Bidirectional
from .wrappers import Reverse as Reverse

__all__ = [
    "GRU", "LSTM", "LSTM1997", "RNN", "Bidirectional", "Checkpoint", "ClockworkRNN", "DepthGatedLSTM",
    "DepthGatedTrace", "Embedding", "FileFormatError", "GRUTrace", "LSTM1997Trace", "Last", "Linear", "Module",
    "RNNTrace", "Reverse", "Sequential", "Trace", "__version__", "available_isas", "clip_grad_norm", "from_keras",
    "from_onnx", "from_torch", "get_num_threads", "isa", "load", "load_checkpoint", "losses", "num_threads", "optim",
    "read_torch", "save_checkpoint", "set_num_threads", "show_config", "to_onnx", "to_torch", "with_prefix",
]
