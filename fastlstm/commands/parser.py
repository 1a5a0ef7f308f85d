"""The arguments of the command ``fastlstm``. Little else is imported, so that --help is quick."""

import argparse

from .._version import __version__

STATUS = (
    "exit status: 0 all is done; 1 no memory or disk is left, or standard output cannot be written; 2 arguments or a "
    "file that cannot be used as they are; 130 Ctrl-C; 141 whoever was to read standard output has ended"
)


class UsageError(Exception):
    """Something the user can put right; its text is the one line they get to see."""


class Failure(Exception):
    """Something that the user did not do; its text is the one line they get to see."""


class _Parser(argparse.ArgumentParser):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.color = False  # Python 3.14 would print what `_terminal` takes out

    def error(self, message):
        # argparse would print its usage first; one line is what scripts and eyes can take.
        raise UsageError(f"{message} (try: {self.prog} --help)")


def make():
    """The parser; the `command` of what it gives is a key of `commands.COMMANDS`."""
    parser = _Parser(prog="fastlstm", description="Recurrent networks on the CPU.", epilog=STATUS)
    parser.add_argument("--version", action="version", version=f"fastlstm {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    _info(commands)
    _run(commands)
    _inspect(commands)
    _convert(commands)
    _bench(commands)
    return parser


def _info(commands):
    info = commands.add_parser("info", help="version, instruction set, threads, constants of the machine, build")
    info.set_defaults(command="info")


def _run(commands):
    run = commands.add_parser(
        "run",
        help="an input through a model, as a stream where the model can",
        description="Feed INPUT to MODEL, a block of time steps after the other, so that an input may be larger than "
        "memory; in one call where a direction of MODEL starts at the sequence's end. Without both: forecast "
        "the bundled sunspot series with the bundled model.",
        epilog="INPUT: .npy (T, I), or a batch (T, B, I), (B, T, I) of a model that is batch_first, as those of Keras; "
        ".npz, the array 'x' or its only one; .csv, .tsv, .txt in UTF-8 or UTF-16, a row per time step, a column per "
        "feature, cells separated by commas, semicolons, tabs or blanks, or as a first line such as sep=; says, lines "
        "starting with # left out; compressed by gzip, bz2 or xz, too. The first line of a .csv is a header if "
        "none of its cells is a number. A model that starts with an embedding takes integers, (T,) or a batch. "
        "OUT: .npy, .npz (array 'y'; 'y_forward' and 'y_backward' of a model that gives a pair) or .csv.",
    )
    run.add_argument("model", nargs="?", metavar="MODEL", help="a model of any format that inspect reads")
    run.add_argument("input", nargs="?", metavar="INPUT", help="what to feed it: .npy, .npz or .csv; -: standard input")
    run.add_argument(
        "-o", "--output", metavar="OUT", help="where to write the result: .npy, .npz or .csv; -: standard output"
    )
    _of_model(run)
    run.add_argument("--array", metavar="NAME", help="which array of an .npz to feed (default: x)")
    run.add_argument(
        "--columns", action="append", metavar="LIST", help="which columns of a .csv to feed, in this order: names or "
        "numbers from 1, with commas between (may be repeated)"
    )
    run.add_argument(
        "--header", action=argparse.BooleanOptionalAction, help="the first line of a .csv holds names, whatever they "
        "look like; or numbers"
    )
    run.add_argument(
        "--axes", type=str.upper, choices=("TBI", "BTI", "TB", "BT"), help="the order of a batch's axes: time, batch, "
        "features; without I of integers (default: as the model has them)"
    )
    run.add_argument(
        "--last", action="store_true", help="write the output of the last step alone, a row for each sequence"
    )
    run.add_argument("--allow-nan", action="store_true", help="let NaN, infinity and missing values pass")
    run.add_argument("--input-format", choices=("csv", "npy", "npz"), help="whatever the name (default of -: csv)")
    run.add_argument("--output-format", choices=("csv", "npy", "npz"), help="whatever the name (default of -: csv)")
    run.set_defaults(command="run")


def _inspect(commands):
    inspect = commands.add_parser(
        "inspect", help="layers, tensors and size of the models in a file: fastlstm, torch, ONNX, Keras"
    )
    inspect.add_argument("model", metavar="FILE")
    inspect.add_argument("--key", metavar="KEY", help="which dict of a torch checkpoint, e.g. state_dict")
    inspect.add_argument("--plan", action="store_true", help="also how calls of some sizes will run, and why")
    inspect.add_argument("--json", action="store_true", help="the same for programs")
    inspect.set_defaults(command="inspect")


def _convert(commands):
    convert = commands.add_parser(
        "convert",
        help="read a model of any format, write it in another",
        description="Read the recurrent layer or model in SRC: fastlstm (.safetensors), a state dict of torch (.pt, "
        ".pth, .safetensors), ONNX (.onnx) or Keras (.keras, .h5). Write it to DST: .safetensors, .onnx (needs onnx) "
        "or .pt (needs torch). `fastlstm inspect SRC` lists what is in a file.",
    )
    convert.add_argument("source", metavar="SRC")
    convert.add_argument("target", metavar="DST", help=".safetensors, .onnx, .pt or .pth")
    _of_model(convert)
    convert.set_defaults(command="convert")


def _of_model(command):
    """Options about the file of a model."""
    command.add_argument("--name", metavar="NAME", help="which of several layers: a prefix of torch, a node of ONNX")
    command.add_argument("--key", metavar="KEY", help="which dict of a torch checkpoint, e.g. state_dict")
    command.add_argument("--batch-first", action="store_true", help="a state dict's layer takes (B, T, I)")
    command.add_argument("--nonlinearity", choices=("tanh", "relu"), help="of a state dict's RNN (default: tanh)")


def _bench(commands):
    bench = commands.add_parser(
        "bench",
        help="time this machine over a grid of sizes, alone or beside other systems",
        description="Time fastlstm over a grid of sizes and compare it with the ceilings of this machine, and with "
        "other systems that are installed. Or: bench compare BEFORE.json AFTER.json. Or: bench report [RESULTS ...], "
        "which makes tables in Markdown out of files written by --json, or of all those in a folder (default: "
        "bench/results).",
    )
    bench.add_argument(
        "what", nargs="*", metavar="compare BEFORE AFTER | report [RESULTS ...]", help="about files written by --json"
    )
    bench.add_argument("--group", action="append", metavar="NAMES", help="only these groups (a,b; may be repeated)")
    bench.add_argument(
        "--peers", action="append", metavar="NAMES", help="torch, onnxruntime, openvino, numpy, or none (default)"
    )
    bench.add_argument("--threads", type=_threads, metavar="N", help="at most so many (default: as info says)")
    bench.add_argument("--dtype", choices=("float32", "float64"), help="every case in this precision")
    bench.add_argument("--isa", metavar="NAME", help="run on this instruction set (default: the best)")
    bench.add_argument("--quick", action="store_true", help="a few small cases of each group, in few rounds")
    bench.add_argument(
        "--short", action="store_true", help="the whole comparison in under five minutes: the smallest, a middle and "
        "the largest cases of each group, in fewer rounds (default: 5); between --quick and a whole run"
    )
    bench.add_argument("--rounds", type=_positive, metavar="N", help="slots of each contestant (default: 9)")
    bench.add_argument("--scaling", action="store_true", help="time one thread beside all of them")
    bench.add_argument(
        "--json", metavar="FILE", help="also write the results there; in a folder, to a file named after the processor"
    )
    bench.add_argument("--plot", metavar="FILE", help="also draw them there: .png, .pdf or .svg (needs matplotlib)")
    bench.add_argument(
        "--docs", metavar="FILE", help="report: replace the tables in this page, between two marker comments "
        "(default: print them)"
    )
    bench.add_argument(
        "--plot-dir", metavar="DIR", help="report: also draw a picture for each result there (needs matplotlib)"
    )
    bench.set_defaults(command="bench")


def _positive(text):
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive integer, got {text!r}")
    return int(text)


def _threads(text):
    if not (text.isascii() and text.isdigit() and len(text) < 9 and 1 <= int(text) <= 1024):
        raise argparse.ArgumentTypeError(f"must be an integer in 1..1024, got {text!r}")
    return int(text)
