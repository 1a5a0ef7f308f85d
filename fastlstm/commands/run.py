"""``fastlstm run MODEL INPUT``: an input through a model, block by block where the model can stream."""

import collections
import contextlib
import os
import sys
import time

from .._terminal import Unwritable, shown
from .common import check_other_file, check_output, load, model_options, not_written, s
from .parser import UsageError
from .run_bundled import run_bundled

_OF_INPUT = (
    "name", "key", "nonlinearity", "batch_first", "array", "columns", "axes", "input_format", "output_format", "header",
    "allow_nan", "last",
)


def run_command(arguments):
    """Run a model on an input, or without both the bundled example."""
    if arguments.model is not None and arguments.input is not None:
        _run_model(arguments)
    elif arguments.model is not None or any(getattr(arguments, name) for name in _OF_INPUT):
        raise UsageError("run takes a MODEL and an INPUT, or neither")
    else:
        run_bundled(arguments.output)


def _run_model(arguments):
    from . import feed, inputs, outputs

    path, out = arguments.input, outputs.plain_name(arguments.output)
    kind = inputs.kind_of(path, arguments.input_format)
    out_kind = _check_output(out, arguments, outputs)
    model = load(arguments.model, arguments.name, **model_options(arguments))
    with inputs.opened(path, kind, arguments.array, arguments.columns, arguments.header, arguments.allow_nan) as source:
        job = _Job(model, feed.Feed(model, source, arguments.axes, arguments.allow_nan), source, arguments)
        job.check_output(out_kind, out)
        failure = None
        try:
            if out_kind is None:
                for _ in job.outputs():
                    pass
            else:
                outputs.write(out, job.pieces(outputs, out_kind, _folder(out)))
        except (OSError, Unwritable) as error:
            if isinstance(error, BrokenPipeError) and out == "-":
                raise
            if not job.steps and isinstance(error, OSError):
                raise not_written(out, error) from error
            failure = error
    with contextlib.redirect_stdout(sys.stderr if out and outputs.is_standard_output(out) else sys.stdout):
        for line in job.report():
            print(line)
        if out and failure is None:
            print(f"wrote {'standard output' if out == '-' else shown(out)}")
    if failure is not None:
        raise failure if isinstance(failure, Unwritable) else not_written(out, failure)


def _check_output(out, arguments, outputs):
    """The format of the output, None without one. Refuses what cannot be written, before any work is done."""
    for path in filter(None, {out, "-"}):  # standard output gets the report at least
        check_other_file(path, arguments.model, "the model")
        check_other_file(path, arguments.input, "the input")
    if out is None:
        if arguments.output_format:
            raise UsageError("--output-format is for an output: -o OUT")
        return None
    kind = outputs.kind_of(out, arguments.output_format)
    if out == "-":
        if not hasattr(sys.stdout, "buffer"):
            raise Unwritable("cannot write to standard output: it is closed")
        if kind != "csv" and sys.stdout.isatty():
            raise UsageError(f"cannot write to standard output: a terminal takes no .{kind}; name a file or a pipe")
        return kind
    check_output(out)
    if outputs.is_standard_output(out) and os.path.isfile(out):
        raise UsageError(f"cannot write {out}: standard output goes there, too; -o - writes the result to it")
    return kind


def _folder(out):
    """Where a temporary file for an output lies best: on the same disk."""
    if out == "-" or (os.path.exists(out) and not os.path.isfile(out)):
        return None
    return os.path.dirname(os.path.realpath(out))


class _Job:
    """One run: y of every block, and what there is to tell afterwards."""

    def __init__(self, model, feed, source, arguments):
        from ..last import Last
        from ..wrappers import Bidirectional, Reverse

        members, everything = _members(model), list(_everything(model))
        self.model, self._feed, self._source, self._name = model, feed, source, arguments.model
        self._ask_last = arguments.last
        self.whole = any(
            isinstance(one, (Bidirectional, Reverse)) or getattr(one, "bidirectional", False) for one in everything
        )
        self._last = any(isinstance(one, Last) for one in members)
        self._pair = isinstance(members[-1], Bidirectional) and members[-1].merge is None
        self.steps, self.seconds, self._gives, self._odd = 0, 0.0, None, None

    @property
    def _one_per_row(self):
        """Whether there is one row of output for a sequence, not one for each step."""
        return self._ask_last or (self.whole and self._last)

    def check_output(self, kind, out):
        """Refuse a format that cannot hold what will come."""
        if kind in ("csv", "npy") and self._pair:
            raise UsageError(f"the model gives a pair of arrays, which a .{kind} cannot hold; use .npz for {out}")
        if kind == "csv" and self._feed.batch > 1 and not self._one_per_row:
            raise UsageError(f"a .csv holds the steps of one sequence, not of {self._feed.batch}; use .npy for {out}")

    def pieces(self, outputs, kind, folder):
        """The bytes of the output file."""
        if self._one_per_row or self._pair:
            return self._late_pieces(outputs, kind)
        return outputs.pieces_of(kind, self.outputs(), self._feed, folder)

    def _late_pieces(self, outputs, kind):
        [y] = collections.deque(self.outputs(), maxlen=1)
        names = ("y_forward", "y_backward") if self._pair else ("y",)
        arrays = [self._as_input(one) for one in (y if self._pair else [y])]
        yield from outputs.pieces_of_arrays(kind, dict(zip(names, arrays, strict=True)))

    def _as_input(self, y):
        """y in the layout of the input: (T, B, O), or (B, O) of one row for each sequence."""
        if not self._feed.batched:
            return y[:, 0] if y.ndim == 3 else y[0]
        return y.swapaxes(0, 1) if y.ndim == 3 and self._feed.axis else y

    def outputs(self):
        """y (t, B, O) again and again; of a whole call once, and (B, O) or a pair where the model gives that."""
        import numpy as np

        try:
            for y in self._run_whole() if self.whole else self._run_blocks():
                found = y if isinstance(y, tuple) else (y,)
                if self._odd is None and not all(np.isfinite(one).all() for one in found):
                    self._odd = self.steps
                if self._ask_last:
                    found = tuple(one[-1] if one.ndim == 3 else one for one in found)
                    self._gives = [one.shape for one in found]
                yield found if self._pair else found[0]
        except (IndexError, TypeError, ValueError, NotImplementedError) as error:
            raise UsageError(f"{self._name} cannot run {self._source.name}: {error}") from error

    def _blocks(self, bar_name):
        """The blocks of x, a bar beside them."""
        from .._progress import Progress

        wide = 0
        for one in _members(self.model):
            wide = max(wide, getattr(one, "out_features", 0) or 0, getattr(getattr(one, "_spec", None), "outputs", 0))
        blocks = self._feed.blocks(wide)
        with contextlib.ExitStack() as stack:
            bar = None
            for x in blocks:
                yield x
                if self._source.total:
                    bar = bar or stack.enter_context(Progress(self._source.total, bar_name))
                    bar.advance(self._source.done() - bar.done)

    def _run_blocks(self):
        stream = self.model.stream(batch_size=self._feed.batch)
        for x in self._blocks("run"):
            start = time.perf_counter()
            y = stream.process(x)
            self.seconds += time.perf_counter() - start
            self.steps, self._gives = self.steps + len(x), [y.shape[2:]]
            yield y

    def _run_whole(self):
        import numpy as np

        found = list(self._blocks("read"))
        x = found[0] if len(found) == 1 else np.concatenate(found)
        del found
        first = bool(getattr(self.model, "batch_first", False))
        start = time.perf_counter()
        y = self.model.forward(x.swapaxes(0, 1) if first else x)[0]
        self.seconds, self.steps = time.perf_counter() - start, len(x)
        pair = y if isinstance(y, tuple) else (y,)
        pair = tuple(one.swapaxes(0, 1) if first and one.ndim == 3 else one for one in pair)
        self._gives = [one.shape if one.ndim == 2 else one.shape[2:] for one in pair]
        yield pair if self._pair else np.ascontiguousarray(pair[0])

    def report(self):
        """Lines about what was done."""
        steps, feed = self.steps, self._feed
        lead = feed.lead(steps)
        batch = f" of {feed.batch} sequences" if feed.batch > 1 else ""
        if self._gives is not None:
            found = ((one if feed.batched else one[1:]) if len(one) == 2 else (*lead, *one) for one in self._gives)
            gives = " and ".join(map(str, found))
            yield f"{steps} step{s(steps)}{batch}: input {feed.told(steps)} -> output {gives}; axes: {feed.words()}"
        yield from (f"{shown(self._source.name)}: {shown(note)}" for note in self._source.notes)
        if feed.columns_are_sequences:
            words = f"each of the {feed.batch} columns is a sequence of its own: {shown(self._source.names())}"
            yield f"{shown(self._source.name)}: {words}"
        if self.whole:
            yield "run in one call, not streamed: a direction that starts at the sequence's end needs all of it"
        elif self._last and not self._ask_last:
            yield "one output for every step; that of the whole sequence is the last one (--last)"
        if feed.odd:
            yield f"{feed.odd} number{s(feed.odd)} of the input {'is' if feed.odd == 1 else 'are'} NaN or infinite"
        if self._odd is not None:
            yield f"the output has NaN or infinity{'' if self.whole else f' within the first {self._odd} steps'}"
        if self.seconds:
            yield f"{self.seconds * 1e3:.1f} ms, {steps / self.seconds:,.0f} steps per second"


def _members(model):
    """The members of a chain, those of chains inside among them; what they hold is left inside."""
    from ..sequential import Sequential

    return [leaf for one in model for leaf in _members(one)] if isinstance(model, Sequential) else [model]


def _everything(model):
    """A module and all that it is made of."""
    yield model
    for part in getattr(model, "_parts", {}).values():
        yield from _everything(part)
