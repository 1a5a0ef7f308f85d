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
    run.set_defaults(command="run")


def _inspect(commands):
    inspect = commands.add_parser(
        "inspect", help="layers, tensors, size and plan of a model in a file: fastlstm, torch, ONNX, Keras"
    )
    inspect.add_argument("model", metavar="FILE")
    inspect.add_argument("--key", metavar="KEY", help="which dict of a torch checkpoint, e.g. state_dict")
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
    convert.add_argument("--name", metavar="NAME", help="which of several layers: a prefix of torch, a node of ONNX")
    convert.add_argument("--key", metavar="KEY", help="which dict of a torch checkpoint, e.g. state_dict")
    convert.add_argument("--batch-first", action="store_true", help="a state dict's layer takes (B, T, I)")
    convert.add_argument("--nonlinearity", choices=("tanh", "relu"), help="of a state dict's RNN (default: tanh)")
    convert.set_defaults(command="convert")


def _bench(commands):
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
    bench.set_defaults(command="bench")


def _positive(text):
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive integer, got {text!r}")
    return int(text)


def _threads(text):
    if not (text.isascii() and text.isdigit() and len(text) < 9 and 1 <= int(text) <= 1024):
        raise argparse.ArgumentTypeError(f"must be an integer in 1..1024, got {text!r}")
    return int(text)
