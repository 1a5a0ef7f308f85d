from .torch_accelerate import Report as Report
from .torch_accelerate import accelerate as accelerate
from .torch_accelerate import restore as restore
from .torch_layers import GRU as GRU
from .torch_layers import LSTM as LSTM
from .torch_layers import RNN as RNN

__all__ = ["GRU", "LSTM", "RNN", "Report", "accelerate", "restore"]
