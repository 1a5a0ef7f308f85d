"""A progress bar of one line: standard error only, and only where a person watches it."""

import sys
import time

from ._terminal import shown

_WIDTH = 24
_FIRST_AFTER = 1.0  # seconds: what ends sooner needs no bar
_REDRAW_EVERY = 0.1


class Progress:
    """Count `total` units of work; draw a bar once it has taken over a second.

    Nothing is drawn unless `stream` (default: standard error) is a terminal, so logs and pipes
    stay clean. Use it in a ``with`` block: the line is wiped on the way out, also on an error.

    >>> with Progress(len(blocks), "forecast") as bar:
    ...     for block in blocks:
    ...         work(block)
    ...         bar.advance()
    """

    def __init__(self, total, label, stream=None):
        self.total = max(int(total), 1)
        self.label = label
        self.done = 0
        self._stream = sys.stderr if stream is None else stream
        self._enabled = self._stream is not None and self._stream.isatty()
        self._start = time.perf_counter()
        self._next = self._start + _FIRST_AFTER
        self._drawn = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.clear()

    def advance(self, units=1, note=""):
        """Say that `units` more are done; `note` is shown behind the bar."""
        self.done += units
        if not self._enabled:
            return
        now = time.perf_counter()
        if now >= self._next:
            self._next = now + _REDRAW_EVERY
            self._draw(now - self._start, note)

    def clear(self):
        """Wipe the line, so that whatever is printed next starts at its left edge."""
        if self._drawn:
            self._write("\r" + " " * self._drawn + "\r")
            self._drawn = 0

    def _draw(self, elapsed, note):
        share = min(self.done / self.total, 1.0)
        bar = ("#" * round(share * _WIDTH)).ljust(_WIDTH, ".")
        left = elapsed / share - elapsed if share else 0.0
        line = shown(f"{self.label} [{bar}] {share:4.0%}  {left:.0f} s left  {note}".rstrip())
        self._write("\r" + line.ljust(self._drawn))
        self._drawn = max(self._drawn, len(line))

    def _write(self, text):
        getattr(self._stream, "write_control", self._stream.write)(text)
        self._stream.flush()
