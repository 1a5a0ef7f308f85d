"""What the command prints, without characters that a terminal would obey.

Names of files and texts in files come from strangers. A control character among them moves the cursor or does more; a
bidirectional override shows another name than the one that is there.
"""


def printable(text, kept="\n"):
    """`text` with an escape such as \\x1b for every character that is not printable, those in `kept` excepted."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in kept else repr(c)[1:-1] for c in text)


def shown(name):
    """A name, as of a file, on one line."""
    return printable(str(name), kept="")


class Unwritable(Exception):
    """Standard output takes nothing: it is closed, or the disk behind it is full."""


class PlainOutput:
    """A text stream that prints everything through `printable`; all else is that of the stream inside.

    stream: standard output or standard error, None where that is closed. strict: whether an error of writing is raised
    as `Unwritable`, or a broken pipe as it comes; otherwise errors are left out, as there is no place to tell them.
    """

    encoding = "utf-8"

    def __init__(self, stream, strict=True):
        self._stream, self._strict = stream, strict

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def _call(self, method, *arguments):
        try:
            if self._stream is None:
                raise OSError("it is closed")
            getattr(self._stream, method)(*arguments)
        except (OSError, ValueError) as error:  # ValueError: closed by somebody in this process
            if self._strict and isinstance(error, BrokenPipeError):
                raise
            if self._strict:
                reason = getattr(error, "strerror", None) or error
                raise Unwritable(f"cannot write to standard output: {reason}") from error

    def write(self, text):
        """Print text."""
        self._call("write", printable(text))
        return len(text)

    def write_control(self, text):
        """Print text that moves the cursor: for the package's own, never for names."""
        self._call("write", text)

    def writelines(self, lines):
        """Print lines."""
        for line in lines:
            self.write(line)

    def flush(self):
        """Bring to the system what has been printed."""
        if self._stream is not None:
            self._call("flush")

    def isatty(self):
        """Whether a person is watching."""
        return self._stream is not None and self._stream.isatty()
