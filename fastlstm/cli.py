"""The command ``fastlstm``: info, run, inspect, convert, bench.

A user's mistake ends in one line on standard error and status 2, Ctrl-C in 130, a closed pipe in
silence. Everything but the argument parser is imported by the command that needs it.
"""

import argparse
import contextlib
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
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that the terminal's encoding lacks is no reason to end
            stream.reconfigure(errors="backslashreplace")
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
    except MemoryError as error:
        return _complain(f"not enough memory: {error}" if str(error) else "not enough memory")
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
    run.add_argument("model", nargs="?", metavar="MODEL", help="a model of any format that inspect reads")
    run.add_argument("input", nargs="?", metavar="INPUT", help="what to feed it: .npy, .npz or .csv")
    run.add_argument("-o", "--output", metavar="OUT", help="where to write the result: .npy, .npz or .csv")
    run.add_argument("--key", metavar="NAME", help="which array of an .npz to feed (default: 'x')")
    run.add_argument("--name", metavar="NAME", help="which of several layers of MODEL, as of convert")
    run.set_defaults(command=_run)

    inspect = commands.add_parser(
        "inspect", help="layers, tensors, size and plan of a model in a file: fastlstm, torch, ONNX, Keras"
    )
    inspect.add_argument("model", metavar="FILE")
    inspect.add_argument("--key", metavar="KEY", help="which dict of a torch checkpoint, e.g. state_dict")
    inspect.set_defaults(command=_inspect)

    convert = commands.add_parser(
        "convert",
        help="read a model of any format, write it in another",
        description="Read the recurrent layer or model in SRC: fastlstm (.safetensors), a state dict of torch (.pt, "
        ".pth, .safetensors), ONNX (.onnx) or Keras (.keras, .h5). Write it to DST: .safetensors, .onnx (needs onnx) "
        "or .pt (needs torch). `fastlstm inspect SRC` lists what is in a file.",
    )
    convert.add_argument("source", metavar="SRC")
    convert.add_argument("target", metavar="DST", help=".safetensors, .onnx, .pt or .pth")
    convert.add_argument("--name", metavar="NAME", help="which of several layers: a prefix of torch, a node of ONNX")
    convert.add_argument("--key", metavar="KEY", help="which dict of a torch checkpoint, e.g. state_dict")
    convert.add_argument("--batch-first", action="store_true", help="a state dict's layer takes (B, T, I)")
    convert.add_argument("--nonlinearity", choices=("tanh", "relu"), help="of a state dict's RNN (default: tanh)")
    convert.set_defaults(command=_convert)

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
    bench.add_argument("--threads", type=_threads, metavar="N", help="at most so many (default: as info says)")
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


def _threads(text):
    if not (text.isascii() and text.isdigit() and len(text) < 9 and 1 <= int(text) <= 1024):
        raise argparse.ArgumentTypeError(f"must be an integer in 1..1024, got {text!r}")
    return int(text)


# ---- info, inspect, bench ----------------------------------------------------------------


def _info(_):
    import fastlstm as fl

    fl.show_config()


def _inspect(arguments):
    from .convert import formats, inspection

    options = {} if arguments.key is None else {"key": arguments.key}
    found = _read(arguments.model, formats.contents, **options)
    for line in inspection.lines(found):
        print(line)


def _convert(arguments):
    from .convert import formats

    _check_output(arguments.target, formats.SUFFIXES)
    given = {"key": arguments.key, "nonlinearity": arguments.nonlinearity, "batch_first": arguments.batch_first or None}
    options = {name: value for name, value in given.items() if value is not None}
    model = _read(arguments.source, formats.only_model, name=arguments.name, **options)
    try:
        with _warnings_as_lines():
            _write(arguments.target, lambda path: formats.write(model, path))
    except (ImportError, TypeError, ValueError) as error:
        raise Mistake(f"cannot write {arguments.target}: {error}") from error
    print(f"{arguments.source} -> {arguments.target}")
    print(model)


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
    model = _load(arguments.model, arguments.name)
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
    print(f"\n{fc.notes(months, values, scaling.band(roots), first)}")
    print(f"\n{len(values)} steps in {seconds * 1e3:.1f} ms: {len(values) / seconds:,.0f} steps per second")
    print(wrote)


# ---- files -------------------------------------------------------------------------------


def _load(path, name=None):
    from .convert import formats

    return _read(path, formats.only_model, name=name)


def _read(path, reader, **options):
    """What a reader of convert/formats.py makes of a file; its warnings as lines of their own."""
    try:
        with _warnings_as_lines():
            return reader(path, **options)
    except FileNotFoundError as error:
        raise Mistake(f"no such model: {path}") from error
    except OSError as error:
        raise Mistake(f"cannot load {path}: {error.strerror or error}") from error
    except (ImportError, NotImplementedError, TypeError, ValueError) as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise Mistake(f"cannot load {path}: {reason}") from error


@contextlib.contextmanager
def _warnings_as_lines():
    import warnings

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        print("fastlstm: warning:", " ".join(str(warning.message).split()), file=sys.stderr)


def _check_output(path, suffixes=None):
    if suffixes is None:
        from .arrays import SUFFIXES as suffixes  # noqa: N811 - it is the same thing of another kind of file
    if Path(path).suffix.lower() not in suffixes:
        raise Mistake(f"cannot write {path}: the suffix must be one of {', '.join(suffixes)}")
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
