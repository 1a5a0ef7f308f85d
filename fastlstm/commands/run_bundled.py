"""``fastlstm run`` without arguments: the bundled model on the bundled series."""

import time
from pathlib import Path

from .._terminal import shown
from .common import check_output, load, write
from .parser import Failure, UsageError


def run_bundled(output):
    """Forecast the bundled series; output: the .csv to write, None for the one of the default name."""
    import fastlstm as fl

    from .. import forecast as fc

    table = Path(output or "sunspots-forecast.csv")
    if table.suffix.lower() != ".csv":
        raise UsageError(f"the bundled forecast is written as .csv, got {str(table)!r}")
    picture = table.with_suffix(".png")
    for path in (table, picture):
        check_output(str(path))
    months, values = fc.load_series()
    first = fc.month_index(months, fc.HELD_OUT_FROM)
    model = load(fc.MODEL)
    scaling = fc.Scaling.from_text(model.metadata["scaling"])
    start = time.perf_counter()
    roots = fc.forecast(model, scaling, values)
    seconds = time.perf_counter() - start
    methods = {"LSTM": scaling.numbers(roots), **fc.baselines(values, first)}

    # Files first: whoever pipes the text into `head` gets them all the same. And the text where a disk is full.
    wrote, failure = None, None
    try:
        write(table, fc.write_csv, months, values, methods["LSTM"])
        write(picture, fc.write_png, months, values, methods, scaling.band(roots), first)
        wrote = f"wrote {shown(table)} and {shown(picture)}"
    except ImportError:
        wrote = f"wrote {shown(table)} (with matplotlib installed: a picture, {shown(picture)}, too)"
    except (Failure, UsageError) as error:
        failure = error

    print(f"Monthly sunspot numbers {months[0]} to {months[-1]}, read one month at a time by")
    print(f"{' -> '.join(map(repr, model))} ({fl.isa()});")
    print("at every step it forecasts the next 12 months.\n")
    print(f"Held-out months, {fc.HELD_OUT_FROM} to {months[-1]}: never seen in training or selection.")
    print("In brackets: how much of that method's squared error the LSTM removes.\n")
    print(fc.score_table(methods, values, first, len(values)))
    print("\nForecasts made 6 months before, every five years; in brackets by how much they missed.\n")
    print(fc.sample_table(months, values, {name: methods[name] for name in list(methods)[:3]}, first))
    print(f"\n{fc.notes(months, values, scaling.band(roots), first)}")
    print(f"\n{len(values)} steps in {seconds * 1e3:.1f} ms: {len(values) / seconds:,.0f} steps per second")
    if failure is not None:
        raise failure
    print(wrote)
