"""The bundled example: monthly sunspot numbers, forecast one month after the other by streaming.

========================  ====================================================================
`load_series`             months and values of ``data/sunspots.csv``
`Scaling`                 square root, then zero mean and unit variance over the training part
`stream_forecast`         one `step` per month; every step forecasts the next 12 months
`baselines`               persistence, one solar cycle earlier, trailing mean, autoregression
`score`, `score_table`    errors on a stretch of months; the same as text
`notes`                   where the band comes from, and what AR is
`write_csv`, `write_png`  the forecast as a table and as a picture
========================  ====================================================================

One convention for every forecast, the model's and the baselines': an array (N, 12) whose row t,
column h - 1 is the forecast for month t + h made from months 0..t. What a method cannot say is NaN.
"""

import csv
import io
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ._progress import Progress
from .whole_files import write_figure, write_whole

DATA = Path(__file__).parent / "data"
SERIES = DATA / "sunspots.csv"
MODEL = DATA / "sunspots.safetensors"

HORIZONS = 12  # months ahead, all forecast at once
SHOWN = (1, 3, 6, 12)
CYCLE = 132  # months: eleven years, the mean length of a solar cycle
AR_ORDER = 36

# The series is cut by time, once: weights and scaling see months before VALIDATION_FROM, the
# choice of the settings and of the best epoch sees months before HELD_OUT_FROM, nothing sees the rest.
VALIDATION_FROM = "1910-01"
HELD_OUT_FROM = "1950-01"


def load_series(path=SERIES):
    """The series as ``(months, values)``: datetime64[M] (N,) and float64 (N,)."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.reader(line for line in file if not line.startswith("#")))[1:]
    months = np.array([month for month, _ in rows], dtype="datetime64[M]")
    return months, np.array([value for _, value in rows], dtype=np.float64)


def month_index(months, month):
    """Position of ``"YYYY-MM"`` in `months`, which may lie just past the end."""
    return int((np.datetime64(month, "M") - months[0]).astype(int))


class Scaling(NamedTuple):
    """Sunspot number <-> what the model sees: ``z = (sqrt(x) - mean) / std``.

    The scatter of sunspot numbers grows with their level; after a square root it hardly does.
    spread: standard deviation of the forecast error in sqrt(x), one per horizon, on the training part.
    """

    mean: float
    std: float
    spread: tuple[float, ...] = (0.0,) * HORIZONS

    @classmethod
    def fit(cls, values):
        """Constants of a stretch of the series: the training part, never more."""
        root = np.sqrt(values)
        return cls(float(root.mean()), float(root.std()))

    def forward(self, values):
        """Sunspot numbers to z, float64."""
        return (np.sqrt(values) - self.mean) / self.std

    def roots(self, outputs, z):
        """The model's outputs (N, 12) at inputs z (N,) as forecasts of sqrt(x).

        The model forecasts the *change* from the present month; that alone, without any learning,
        makes it as good as persistence.
        """
        return (outputs + z[:, None]) * self.std + self.mean

    def numbers(self, roots):
        """Forecasts of sqrt(x) as forecasts of the mean of x: E[x] = E[sqrt(x)]^2 + variance."""
        return np.maximum(roots, 0.0) ** 2 + np.square(self.spread)

    def band(self, roots, width=1.2816):
        """Lower and upper sunspot number `width` standard deviations off; 1.2816 is an 80 % band."""
        margin = width * np.asarray(self.spread)
        return np.maximum(roots - margin, 0.0) ** 2, np.maximum(roots + margin, 0.0) ** 2

    def with_spread(self, roots, values):
        """The same scaling, its spread measured on forecasts `roots` (N, 12) of `values` (N,)."""
        truth = targets(np.sqrt(values))
        return self._replace(spread=tuple(np.sqrt(np.nanmean((roots - truth) ** 2, axis=0)).tolist()))

    def to_text(self):
        """JSON, for the metadata of a saved model."""
        return json.dumps({"transform": "sqrt", **self._asdict()})

    @classmethod
    def from_text(cls, text):
        """What `to_text` wrote. ValueError when it is something else."""
        try:
            fields = json.loads(text)
            return cls(float(fields["mean"]), float(fields["std"]), tuple(map(float, fields["spread"])))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"metadata 'scaling' does not describe a scaling: {text!r}") from error


def targets(values):
    """Row t, column h - 1: the value of month t + h, NaN past the end. (N,) -> (N, 12)."""
    padded = np.concatenate([values, np.full(HORIZONS, np.nan)])
    return np.lib.stride_tricks.sliding_window_view(padded[1:], HORIZONS)[: len(values)]


def stream_forecast(model, z, progress=None):
    """Feed z (N,) month by month through ``model.stream()``; the raw outputs, (N, 12)."""
    stream = model.stream(batch_size=1)
    steps = np.asarray(z, dtype=np.float32)[:, None, None]  # (N, B=1, I=1)
    outputs = np.empty((len(steps), HORIZONS), dtype=np.float32)
    for t, x_t in enumerate(steps):
        outputs[t] = stream.step(x_t)[0]
        if progress is not None:
            progress.advance()
    return outputs


def forecast(model, scaling, values):
    """The whole series streamed through the model: forecasts of sqrt(x), (N, 12)."""
    z = scaling.forward(values)
    with Progress(len(values), "forecast") as bar:
        return scaling.roots(stream_forecast(model, z, bar), z)


def baselines(values, fit_before):
    """Name -> forecasts (N, 12) of the methods to beat.

    Only the autoregression has anything to fit; it sees months before index `fit_before`.
    """
    n = len(values)
    spread_out = np.ones(HORIZONS)
    year = np.full(n, np.nan)
    year[11:] = np.convolve(values, np.full(12, 1 / 12), mode="valid")
    lagged = np.concatenate([np.full(CYCLE, np.nan), values])
    return {
        f"AR({AR_ORDER})": _autoregression(values, fit_before),  # the hardest to beat
        "persistence": values[:, None] * spread_out,
        "11 years ago": targets(lagged)[:n],
        "12-month mean": year[:, None] * spread_out,
    }


def _autoregression(values, fit_before, order=AR_ORDER):
    # One linear least-squares fit per horizon on the last `order` months: what a statistician
    # would try first, and a far harder mark than the other three.
    out = np.full((len(values), HORIZONS), np.nan)
    if fit_before - order - HORIZONS < order:  # fewer equations than unknowns
        return out
    past = np.lib.stride_tricks.sliding_window_view(values, order)
    design = np.hstack([past, np.ones((len(past), 1))])
    ahead = targets(values)[order - 1 :]
    for h in range(HORIZONS):
        rows = slice(0, fit_before - order - h)
        weights = np.linalg.lstsq(design[rows], ahead[rows, h], rcond=None)[0]
        out[order - 1 :, h] = design @ weights
    return out


class Score(NamedTuple):
    """Errors over the months first <= month < last, in sunspot numbers."""

    rmse: float
    mae: float
    months: int


def score(forecasts, values, horizon, first, last):
    """Compare forecasts (N, 12) made `horizon` months before with values[first:last]."""
    if first < horizon:
        raise ValueError(f"first must be at least the horizon {horizon}, got {first}")
    error = forecasts[first - horizon : last - horizon, horizon - 1] - values[first:last]
    return Score(float(np.sqrt(np.mean(error**2))), float(np.mean(np.abs(error))), len(error))


def skill(model, baseline):
    """Share of a baseline's squared error that the model removes; 0 is no better, 1 is perfect."""
    return 1.0 - (model.rmse / baseline.rmse) ** 2


def score_table(methods, values, first, last, horizons=SHOWN):
    """Text: a line per method (name -> forecasts, the model first), RMSE and MAE per horizon.

    Behind each baseline's errors stands the model's skill against it.
    """
    lines = [("RMSE / MAE".ljust(14) + "".join(map(_ahead, horizons))).rstrip()]
    ours = None
    for name, forecasts in methods.items():
        scores = [score(forecasts, values, h, first, last) for h in horizons]
        ours = ours or scores
        line = name.ljust(14)
        for s, o in zip(scores, ours, strict=True):
            gain = f"({skill(o, s):+.0%})" if s is not o else ""
            line += f"{s.rmse:7.1f} / {s.mae:4.1f} {gain:>6}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def _ahead(horizon):
    # Ends where the errors end, left of the column of skills.
    return f"{horizon} month{'s' if horizon > 1 else ''} ahead".rjust(14) + " " * 7


def sample_table(months, values, methods, first, horizon=6, every=60):
    """Text: what was forecast `horizon` months before the last month, `every` months earlier, ...

    Back to index `first`; behind each forecast by how much it missed.
    """
    lines = ["month".ljust(14) + f"{'truth':>7}" + "".join(f"{name:>18}" for name in methods)]
    for t in reversed(range(len(values) - 1, first - 1, -every)):
        made = (forecasts[t - horizon, horizon - 1] for forecasts in methods.values())
        cells = "".join(f"{value:>9.1f} ({value - values[t]:+6.1f})" for value in made)
        lines.append(f"{months[t]}".ljust(14) + f"{values[t]:>7.1f}" + cells)
    return "\n".join(lines)


def write_csv(path, months, values, forecasts):
    """One row per month: truth, then what was forecast for it 1..12 months before (empty: nothing)."""
    file = io.StringIO()
    out = csv.writer(file, lineterminator="\n")
    out.writerow(["month", "truth", *(f"forecast_{h}_months_before" for h in range(1, HORIZONS + 1))])
    for t, month in enumerate(months):
        made = (forecasts[t - h, h - 1] if t >= h else np.nan for h in range(1, HORIZONS + 1))
        out.writerow([month, f"{values[t]:.1f}", *("" if np.isnan(v) else f"{v:.2f}" for v in made)])
    write_whole(path, [file.getvalue().encode()])


# The model and its best rival have a colour each; what is grey is told apart by its dashes, and named at its end.
_OURS, _RIVAL, _TRUTH, _OTHERS = "#14427a", "#d1661f", "#9a9a9a", "#8a8a8a"
_DASHES = ("solid", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))


def best_rival(methods, values, horizon, first):
    """Name of the method, other than the first, with the least RMSE on the months from index `first` on."""
    others = list(methods)[1:]
    return min(others, key=lambda name: score(methods[name], values, horizon, first, len(values)).rmse)


def band_text(months, values, band, first, horizon=6):
    """Where the band comes from, and how many of the months from index `first` on lie in it; three lines."""
    low, high = (edge[first - horizon : len(values) - horizon, horizon - 1] for edge in band)
    inside = np.mean((low <= values[first:]) & (values[first:] <= high))
    return (
        "The 80 % band is 1.28 standard deviations to both sides of the forecast of the number's square root.\n"
        f"They are those of the LSTM's own errors, {horizon} months ahead, before {VALIDATION_FROM}, in the months "
        f"it was trained on.\n{100 * inside:.0f} % of the months {months[first]} to {months[-1]} lie in it."
    )


def notes(months, values, band, first, horizon=6):
    """`band_text`, and what AR is."""
    fitted = f"one linear fit per horizon on the last {AR_ORDER} months, of the months before {HELD_OUT_FROM}"
    return f"{band_text(months, values, band, first, horizon)}\nAR({AR_ORDER}) is an autoregression: {fitted}."


def write_png(path, months, values, methods, band, first, horizon=6):
    """Draw the months from index `first` on: truth, forecast, best rival; their errors; RMSE by horizon.

    methods: name -> forecasts (N, 12), the model first; band: its lower and upper edge (N, 12).
    Needs matplotlib; ImportError says so.
    """
    from matplotlib.figure import Figure  # optional, and slow to import

    figure = Figure(figsize=(11, 8), dpi=150, layout="constrained")
    axes = figure.subplot_mosaic([["series", "series"], ["errors", "rmse"]], width_ratios=[1.7, 1])
    for axis in axes.values():
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#e4e4e4", linewidth=0.8)
        axis.set_axisbelow(True)
    dates = months[first:].astype("datetime64[D]")
    name, rival = next(iter(methods)), best_rival(methods, values, horizon, first)
    made = slice(first - horizon, len(values) - horizon), horizon - 1
    drawn = {name: (methods[name][made], _OURS, 1.8), rival: (methods[rival][made], _RIVAL, 1.1)}
    _draw_series(axes["series"], dates, values[first:], drawn, [edge[made] for edge in band], name)
    _draw_errors(axes["errors"], dates, values[first:], drawn, horizon)
    _draw_rmse(axes["rmse"], values, methods, first, rival)
    title = f"Monthly sunspot number, forecast {horizon} months ahead by a streaming {name} and by {rival}"
    figure.suptitle(title, fontsize=14, x=0.01, ha="left")
    told = notes(months, values, band, first, horizon)
    figure.supxlabel(told, fontsize=8.5, x=0.01, ha="left", color="#444444")
    write_figure(path, figure, "png")


def _draw_series(axis, dates, truth, drawn, band, name):
    axis.fill_between(dates, *band, color=_OURS, alpha=0.16, linewidth=0, label=f"80 % band of the {name}: see below")
    axis.plot(dates, truth, color=_TRUTH, linewidth=1.0, label="truth, monthly mean")
    for method, (made, colour, wide) in reversed(drawn.items()):
        axis.plot(dates, made, color=colour, linewidth=wide, label=f"forecast, {method}")
    axis.set(ylabel="relative sunspot number", xlim=(dates[0], dates[-1]), ylim=(0, None))
    note = "held-out months, seen neither in training nor in selection"
    axis.set_title(note, loc="left", fontsize=10, color="#555555")
    axis.legend(frameon=False, loc="upper right")


def _draw_errors(axis, dates, truth, drawn, horizon):
    for method, (made, colour, wide) in reversed(drawn.items()):
        axis.plot(dates, made - truth, color=colour, linewidth=wide * 0.7, label=method)
    axis.axhline(0, color="#333333", linewidth=0.8)
    low, high = axis.get_ylim()
    axis.set(ylabel="forecast - truth (sunspot number)", xlabel="year", xlim=(dates[0], dates[-1]),
             ylim=(low, high + 0.12 * (high - low)))  # room for the legend
    axis.set_title(f"error, {horizon} months ahead", loc="left", fontsize=11)
    axis.legend(frameon=False, ncols=2, loc="upper right")


def _draw_rmse(axis, values, methods, first, rival):
    ahead, name = range(1, HORIZONS + 1), next(iter(methods))
    dashes = iter(_DASHES)
    for method, forecasts in methods.items():
        rmse = [score(forecasts, values, h, first, len(values)).rmse for h in ahead]
        colour = {name: _OURS, rival: _RIVAL}.get(method, _OTHERS)
        style = "solid" if method in (name, rival) else next(dashes, "solid")
        axis.plot(ahead, rmse, color=colour, linewidth=2.4 if method == name else 1.6, linestyle=style)
        axis.annotate(method, (HORIZONS, rmse[-1]), xytext=(5, 0), textcoords="offset points", va="center",
                      color=colour, fontsize=9, annotation_clip=False)
    axis.set(xlabel="months ahead", ylabel="RMSE (sunspot number)", xticks=SHOWN, ylim=(0, None), xlim=(1, HORIZONS))
    axis.set_title("error by horizon: lower is better", loc="left", fontsize=11)
