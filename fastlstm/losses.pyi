from typing import Literal

from .params import _Array, _ArrayLike

__all__ = ["cross_entropy", "mse"]

def cross_entropy(
    logits: _ArrayLike, target: _ArrayLike, lengths: _ArrayLike | None = None, *, batch_first: bool = False,
    mask: _ArrayLike | None = None, weight: _ArrayLike | None = None, ignore_index: int | None = -100,
    label_smoothing: float = 0.0, reduction: Literal["mean", "sum"] = "mean",
) -> tuple[float, _Array]: ...
def mse(
    y: _ArrayLike, target: _ArrayLike, lengths: _ArrayLike | None = None, *, batch_first: bool = False,
    mask: _ArrayLike | None = None, reduction: Literal["mean", "sum"] = "mean",
) -> tuple[float, _Array]: ...
