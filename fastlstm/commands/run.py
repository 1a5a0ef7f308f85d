"""``fastlstm run MODEL INPUT``: an input streamed through a model."""

import time
from pathlib import Path

from .._terminal import shown
from .common import check_output, load, s, write
from .parser import UsageError
from .run_bundled import run_bundled

STEPS_PER_UPDATE = 256  # of the progress bar; rarer than steps, so that it costs nothing


def run_command(arguments):
    """Run a model on an input, or without both the bundled example."""
    if arguments.model is None:
        run_bundled(arguments.output)
    elif arguments.input is None:
        raise UsageError("run takes a MODEL and an INPUT, or neither")
    else:
        _run_model(arguments)


def _run_model(arguments):
    from . import arrays

    if arguments.output:
        check_output(arguments.output)
    model = load(arguments.model, arguments.name)
    try:
        x = arrays.as_steps(model, arrays.read_input(arguments.input, arguments.key), arguments.input)
    except arrays.BadInput as error:
        raise UsageError(error) from error
    if x.shape[1] > 1 and Path(arguments.output or "").suffix.lower() == ".csv":
        raise UsageError(f"a .csv holds one row per step, not {x.shape[1]}; use .npy for {arguments.output}")
    try:
        stream = model.stream(batch_size=x.shape[1])
        y, seconds = _stream(stream, x)
    except (IndexError, TypeError, ValueError, NotImplementedError) as error:
        raise UsageError(f"{arguments.model} cannot run {arguments.input}: {error}") from error
    if arguments.output:
        write(arguments.output, arrays.write_output, y)
    rows = f" of {x.shape[1]} rows" if x.shape[1] > 1 else ""
    print(f"{len(x)} step{s(len(x))}{rows}: input {x.shape} -> output {y.shape}")
    print(f"{seconds * 1e3:.1f} ms, {x.shape[0] / seconds:,.0f} steps per second")
    if arguments.output:
        print(f"wrote {shown(arguments.output)}")


def _stream(stream, x):
    """Feed x (T, B, ...) step by step. Returns y (T, B, O) and the seconds it took."""
    import numpy as np

    from .._progress import Progress

    start = time.perf_counter()
    first = stream.step(x[0])
    y = np.empty((len(x), *first.shape), first.dtype)
    y[0] = first
    with Progress(len(x), "run") as bar:
        for t in range(1, len(x)):
            y[t] = stream.step(x[t])
            if t % STEPS_PER_UPDATE == 0:
                bar.advance(STEPS_PER_UPDATE)
    return y, time.perf_counter() - start
