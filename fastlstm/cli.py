"""The command ``fastlstm``: info, run, inspect, bench.

A user's mistake ends in one line on standard error and status 2, Ctrl-C in 130, a closed pipe in
silence. Everything but the argument parser is imported by the command that needs it.
"""

import argparse
import os
import sys
import time
from pathlib import Path

STEPS_PER_UPDATE = 256  # of the progress bar; rarer than steps, so that it costs nothing


class Mistake(Exception):
    """Something the user can put right; its text is the one line they get to see."""


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        # argparse would print its usage first; one line is what scripts and eyes can take.
        raise Mistake(f"{message} (try: {self.prog} --help)")


def main(argv=None):
    """Run the command with `argv` (default: ``sys.argv[1:]``). Returns the exit status."""
    try:
        arguments = _parser().parse_args(argv)
        arguments.command(arguments)
        sys.stdout.flush()
        return 0
    except Mistake as mistake:
        return _complain(mistake)
    except RuntimeError as error:
        if "FASTLSTM_" not in str(error):
            raise
        return _complain(error)  # a variable of the environment that the engine cannot follow
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The interpreter flushes standard output once more on its way out and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # 128 + SIGPIPE, what a shell reports for any program that writes to a closed pipe


def _complain(error):
    print("fastlstm: error:", " ".join(str(error).split()), file=sys.stderr)
    return 2


def _parser():
    parser = _Parser(prog="fastlstm", description="Recurrent networks on the CPU.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    info = commands.add_parser("info", help="version, instruction set, threads, constants of the machine, build")
    info.set_defaults(command=_info)

    run = commands.add_parser(
        "run",
        help="stream an input through a model, step by step",
        description="Stream INPUT through MODEL one time step after the other. Without MODEL and "
        "INPUT: forecast the bundled sunspot series with the bundled model.",
        epilog="INPUT: .npy (T, I) or (T, B, I); .npz, the array 'x' or its only array; .csv, a "
        "row per time step, a column per feature, with or without a header line. A model that "
        "starts with an embedding takes integers, (T,) or (T, B). OUT: .npy, .npz (array 'y') or .csv.",
    )
    run.add_argument("model", nargs="?", metavar="MODEL", help="a model saved by fastlstm")
    run.add_argument("input", nargs="?", metavar="INPUT", help="what to feed it: .npy, .npz or .csv")
    run.add_argument("-o", "--output", metavar="OUT", help="where to write the result: .npy, .npz or .csv")
    run.add_argument("--key", metavar="NAME", help="which array of an .npz to feed (default: 'x')")
    run.set_defaults(command=_run)

    inspect = commands.add_parser("inspect", help="layers, tensors, size and plan of a saved model")
    inspect.add_argument("model", metavar="MODEL")
    inspect.set_defaults(command=_inspect)

    bench = commands.add_parser(
        "bench",
        help="time this machine over a grid of sizes, alone or beside other systems",
        description="Time fastlstm over a grid of sizes and compare it with the ceilings of this machine, and with "
        "other systems that are installed. Or: bench compare BEFORE.json AFTER.json.",
    )
    bench.add_argument("what", nargs="*", metavar="compare BEFORE AFTER", help="compare two files written by --json")
    bench.add_argument("--group", action="append", metavar="NAMES", help="only these groups (a,b; may be repeated)")
    bench.add_argument(
        "--peers", action="append", metavar="NAMES", help="torch, onnxruntime, openvino, numpy, or none (default)"
    )
    bench.add_argument("--threads", type=_positive, metavar="N", help="at most so many (default: all)")
    bench.add_argument("--dtype", choices=("float32", "float64"), help="every case in this precision")
    bench.add_argument("--isa", metavar="NAME", help="run on this instruction set (default: the best)")
    bench.add_argument("--quick", action="store_true", help="a few small cases of each group, in few rounds")
    bench.add_argument("--rounds", type=_positive, metavar="N", help="slots of each contestant (default: 9)")
    bench.add_argument("--scaling", action="store_true", help="time one thread beside all of them")
    bench.add_argument("--json", metavar="FILE", help="also write the results there")
    bench.add_argument("--plot", metavar="FILE", help="also draw them there: .png, .pdf or .svg (needs matplotlib)")
    bench.set_defaults(command=_bench)
    return parser


def _positive(text):
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive integer, got {text!r}")
    return int(text)


# ---- info, inspect, bench ----------------------------------------------------------------


def _info(_):
    import fastlstm as fl

    fl.show_config()


def _inspect(arguments):
    model = _load(arguments.model)
    print(model)
    weights = model.state_dict()
    wide = max(map(len, weights), default=0)
    for name, weight in weights.items():
        print(f"  {name:<{wide}}  {weight.shape!s:<14} {weight.dtype}")
    size = sum(weight.nbytes for weight in weights.values())
    print(f"{sum(w.size for w in weights.values()):,} parameters, {size:,} bytes")
    for key, text in sorted(model.metadata.items()):
        print(f"  {key}: {text}")
    for steps, batch in ((1, 1), (100, 1), (50, 64)):
        print("\nplan")
        for line in _plan_lines(model, steps, batch):
            print(f"  {line}")


def _plan_lines(model, steps, batch):
    """The plan of a layer, or of the members of a chain that carry a state."""
    import fastlstm as fl

    if not isinstance(model, fl.Sequential):
        return str(model.plan(steps, batch)).splitlines()
    lines = []
    for place, part in enumerate(model):
        if part.recurrent:
            first, *rest = _plan_lines(part, steps, batch)
            lines += [f"({place}) {first}", *(f"    {line}" for line in rest)]
    return lines


def _s(count):
    return "" if count == 1 else "s"


def _bench(arguments):
    from .benchmark import command

    for path in filter(None, (arguments.json, arguments.plot)):
        _check_folder(path)
    try:
        command.run(arguments)
    except command.BadRequest as error:
        raise Mistake(error) from error


# ---- run ---------------------------------------------------------------------------------


def _run(arguments):
    if arguments.model is None:
        _run_bundled(arguments.output)
    elif arguments.input is None:
        raise Mistake("run takes a MODEL and an INPUT, or neither")
    else:
        _run_model(arguments)


def _run_model(arguments):
    from . import arrays

    if arguments.output:
        _check_output(arguments.output)
    model = _load(arguments.model)
    try:
        x = arrays.as_steps(model, arrays.read_input(arguments.input, arguments.key), arguments.input)
    except arrays.BadInput as error:
        raise Mistake(error) from error
    if x.shape[1] > 1 and Path(arguments.output or "").suffix.lower() == ".csv":
        raise Mistake(f"a .csv holds one row per step, not {x.shape[1]}; use .npy for {arguments.output}")
    try:
        stream = model.stream(batch_size=x.shape[1])
        y, seconds = _stream(stream, x)
    except (IndexError, TypeError, ValueError, NotImplementedError) as error:
        raise Mistake(f"{arguments.model} cannot run {arguments.input}: {error}") from error
    rows = f" of {x.shape[1]} rows" if x.shape[1] > 1 else ""
    print(f"{len(x)} step{_s(len(x))}{rows}: input {x.shape} -> output {y.shape}")
    print(f"{seconds * 1e3:.1f} ms, {x.shape[0] / seconds:,.0f} steps per second")
    if arguments.output:
        _write(arguments.output, arrays.write_output, y)
        print(f"wrote {arguments.output}")


def _stream(stream, x):
    """Feed x (T, B, ...) step by step. Returns y (T, B, O) and the seconds it took."""
    import numpy as np

    from ._progress import Progress

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


def _run_bundled(output):
    import fastlstm as fl

    from . import forecast as fc

    table = Path(output or "sunspots-forecast.csv")
    if table.suffix.lower() != ".csv":
        raise Mistake(f"the bundled forecast is written as .csv, got {str(table)!r}")
    _check_folder(table)
    months, values = fc.load_series()
    first = fc.month_index(months, fc.HELD_OUT_FROM)
    model = _load(fc.MODEL)
    scaling = fc.Scaling.from_text(model.metadata["scaling"])
    start = time.perf_counter()
    roots = fc.forecast(model, scaling, values)
    seconds = time.perf_counter() - start
    methods = {"LSTM": scaling.numbers(roots), **fc.baselines(values, first)}

    # Files first: whoever pipes the text into `head` gets them all the same.
    _write(table, fc.write_csv, months, values, methods["LSTM"])
    picture = table.with_suffix(".png")
    try:
        _write(picture, fc.write_png, months, values, methods, scaling.band(roots), first)
        wrote = f"wrote {table} and {picture}"
    except ImportError:
        wrote = f"wrote {table} (with matplotlib installed: a picture, {picture}, too)"

    print(f"Monthly sunspot numbers {months[0]} to {months[-1]}, read one month at a time by")
    print(f"{' -> '.join(map(repr, model))} ({fl.isa()});")
    print("at every step it forecasts the next 12 months.\n")
    print(f"Held-out months, {fc.HELD_OUT_FROM} to {months[-1]}: never seen in training or selection.")
    print("In brackets: how much of that method's squared error the LSTM removes.\n")
    print(fc.score_table(methods, values, first, len(values)))
    print("\nForecasts made 6 months before, every five years; in brackets by how much they missed.\n")
    print(fc.sample_table(months, values, {name: methods[name] for name in list(methods)[:3]}, first))
    print(f"\n{len(values)} steps in {seconds * 1e3:.1f} ms: {len(values) / seconds:,.0f} steps per second")
    print(wrote)


# ---- files -------------------------------------------------------------------------------


def _load(path):
    import fastlstm as fl

    try:
        return fl.load(path)
    except FileNotFoundError as error:
        raise Mistake(f"no such model: {path}") from error
    except Exception as error:  # a damaged file fails in as many ways as there are bytes
        reason = str(error).removeprefix(f"{path}: ")
        raise Mistake(f"cannot load {path}: {reason}") from error


def _check_output(path):
    from .arrays import SUFFIXES

    if Path(path).suffix.lower() not in SUFFIXES:
        raise Mistake(f"cannot write {path}: the suffix must be one of {', '.join(SUFFIXES)}")
    _check_folder(path)


def _check_folder(path):
    # Before any work is done: a long run must not end in a mistyped folder.
    folder = Path(path).parent
    if not folder.is_dir():
        raise Mistake(f"cannot write {path}: there is no folder {folder}")


def _write(path, writer, *arguments):
    try:
        writer(path, *arguments)
    except OSError as error:
        raise Mistake(f"cannot write {path}: {error.strerror or error}") from error
