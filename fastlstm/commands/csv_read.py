"""Text files of numbers, as spreadsheets and programs write them, read block by block: `Table`.

Nothing is left out in silence: what is no number is an error that names its line, as an editor counts them, and its
column; which line was taken for a header is told.
"""

import codecs
import csv
import io
import re
from typing import NamedTuple

import numpy as np

from .parser import UsageError

_PIECE = 1 << 20  # bytes read at a time
_LONGEST = 1 << 24  # characters of a line
# What stands where a number is missing, in small letters; most of it as pandas knows it.
_MISSING = frozenset((
    "", "#n/a", "#n/a n/a", "#na", "-1.#ind", "-1.#qnan", "-nan", "1.#ind", "1.#qnan", "<na>", "n/a", "na", "nan",
    "nat", "none", "null",
))
_OF_SPREADSHEETS = re.compile(r'"?#(N/A|NA|DIV/0!|REF!|VALUE!|NAME\?|NUM!|NULL!)', re.IGNORECASE)  # are no comments
_NAMES = {";": "';'", "\t": "tabs", ",": "','", "|": "'|'", ":": "':'", None: "blanks"}
_TOLD = re.compile(r'"?sep=(.)"?', re.IGNORECASE)  # Excel's first line
_NO_UTF8 = re.compile("[\udc80-\udcff]")
_GROUPS = re.compile(r"[-+]?\d{1,3}(,\d{3})+(\.\d*)?")  # of three digits, or one with three behind a decimal comma
_DECIMAL_COMMA = re.compile(r"[-+]?[\d.]*\d,\d+([eE][-+]?\d+)?")


class Rows(NamedTuple):
    """Some lines of numbers: values (t, columns) float64; lines: their numbers in the file."""

    values: np.ndarray
    lines: list


# ---- lines ------------------------------------------------------------------------------------------------------


def _encoding(head):
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    return "utf-16" if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


def _texts(file, name):
    """The text of a binary file in pieces, as they come, ends of lines as "\\n". UTF-8, and by their marks UTF-16, -32.

    Bytes that are no UTF-8 stay in comments and names; they are part of no number.
    """
    read = getattr(file, "read1", file.read)
    piece = head = read(_PIECE)
    while piece and len(head) < 4:
        piece = read(_PIECE)
        head += piece
    if head.startswith(b"\x93NUMPY"):
        raise UsageError(f"cannot read {name}: it is an array of NumPy (.npy): --input-format npy reads it")
    encoding = _encoding(head)
    errors = "surrogateescape" if encoding == "utf-8-sig" else "strict"
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(encoding)(errors), translate=True)
    while head:
        yield decoder.decode(head)
        head = read(_PIECE)
    yield decoder.decode(b"", final=True)


def _lines(file, name):
    """(number of the first, lines) again and again."""
    rest, number = "", 1
    for text in _texts(file, name):
        if "\0" in text:
            words = "it holds NUL characters (UTF-16 without its mark, or binary data)"
            raise UsageError(f"cannot read {name}: no text in UTF-8, {words}")
        lines = (rest + text).split("\n")
        rest = lines.pop()
        if len(rest) > _LONGEST:
            raise UsageError(f"cannot read {name}: line {number + len(lines)} has more than {_LONGEST:,} characters")
        if lines:
            yield number, lines
            number += len(lines)
    if rest:
        yield number, [rest]


# ---- cells ------------------------------------------------------------------------------------------------------


def _number(cell):
    """A cell as a float; None for what is none."""
    try:
        return float(cell) if cell.isascii() and "_" not in cell else None
    except ValueError:
        return None


def _readable(text):
    """A text with a mark in place of every byte that was no UTF-8."""
    return _NO_UTF8.sub("\ufffd", text)


def _is_missing(cell):
    return cell.lower() in _MISSING


def _is_text(cell):
    return _number(cell) is None and not _is_missing(cell)


def _separator(rows):
    """What stands between the cells of the first rows; None for blanks."""
    bare = [re.sub(r'"[^"]*"', "x", row) for row in rows]
    for looked_at in (bare, bare[:1]):  # a header may have others inside its names
        for separator in (";", "\t", ","):
            if all(separator in row for row in looked_at):
                return separator
    return None if all(len(row.split()) > 1 for row in bare) else ","


def parse_columns(given):
    """The entries of --columns, which may be repeated and holds several with commas between, quoted where need be."""
    lists = [next(csv.reader([text], skipinitialspace=True), []) for text in given or ()]
    found = [entry.strip() for entries in lists for entry in entries]
    if given and not all(found):
        raise UsageError(f"--columns takes names or numbers of columns, from 1, got {', '.join(given)!r}")
    return found


class Table:
    """A text file of numbers, a row for each step.

    file: open for reading bytes. name: of the file, for errors. columns: entries of --columns, names or numbers from 1,
    none for all. header: whether the first line holds names; None: if some of its cells are neither numbers nor
    missing. missing: whether missing values pass, as NaN.

    names: of all columns, None without a header. width: how many are chosen.
    """

    def __init__(self, file, name, columns=(), header=None, missing=False):
        self._name, self._passes, self._separator = name, missing, ","
        self._is_told = False  # the separator, by the first line
        self._source, self._notes, self.names = self._rows(file), [], None
        self._left_out, self._comment = (0, 0), None  # lines with #: how many and the first; the last before the rows
        self._kept = self._first_rows()
        numbers, rows = self._kept
        if not self._is_told:
            self._separator = _separator(rows[:2])
        self._start, cells = numbers[0], self._cells(rows[0], numbers[0])
        self._columns, self._first = len(cells), cells
        if self._separator != ",":
            self._notes.append(f"cells are separated by {_NAMES[self._separator]}")
        by_number = all(re.fullmatch(r"\d+", entry) for entry in columns)
        if header is None:
            header = not by_number or self._looks_like_a_header(cells, columns)
        if header:
            self.names = cells
            listed = ", ".join(cell[:40] for cell in cells[:12]) + (", ..." if len(cells) > 12 else "")
            end = " (the text is not UTF-8)" if _NO_UTF8.search(rows[0]) else ""
            self._notes.append(f"line {self._start} is taken as the header: {_readable(listed)}{end}")
            del numbers[0], rows[0]
        self._chosen = [self._column(entry) for entry in columns] or list(range(self._columns))
        if columns:
            self._notes.append(f"columns: {', '.join(self.column(k) for k in range(len(self._chosen)))}")

    @property
    def width(self):
        """How many columns are fed."""
        return len(self._chosen)

    @property
    def is_split(self):
        """Whether what separates cells was recognised."""
        return self._columns > 1 or self._is_told

    @property
    def notes(self):
        """Sentences for the user about what has been read so far."""
        count, first = self._left_out
        if not count:
            return self._notes
        words = f"{count} lines start with # and are left out, the first is line {first}"
        return [*self._notes, words if count > 1 else f"line {first} starts with # and is left out"]

    # ---- header and columns ----------------------------------------------------------------------------------

    def _first_rows(self):
        """Numbers and texts of the first rows: as many as it takes to know what separates cells."""
        numbers, rows = [], []
        for more, found in self._source:
            numbers, rows = numbers + more, rows + found
            candidates = sum(separator in rows[0] for separator in ";\t,")
            if len(rows) > 1 or self._is_told or candidates == 1 or len(rows[0].split()) == 1:
                break
        if not rows:
            raise UsageError(f"{self._name} holds no rows")
        return numbers, rows

    def _looks_like_a_header(self, cells, columns):
        """Whether the cells that are to be fed are names. Refuses what may be both."""
        if columns:
            cells = [cells[int(entry) - 1] for entry in columns if 0 < int(entry) <= len(cells)]
        texts = [cell for cell in cells if _is_text(cell)]
        if texts and any(_number(cell) is not None for cell in cells):
            words = f"line {self._start}: {texts[0][:60]!r} is not a number, other cells of the line are"
            hint = "--header takes it as names; --columns chooses the columns to feed"
            raise UsageError(f"cannot read {self._name}: {words}. {hint}")
        return bool(texts)

    def _column(self, entry):
        """The place, from 0, of a column by name or number."""
        count = (self.names or []).count(entry)
        if count == 1:
            return self.names.index(entry)
        if count:
            raise UsageError(f"{self._name} has {count} columns called {entry!r}: choose by number, from 1")
        if entry.isdigit() and 1 <= int(entry) <= self._columns:
            return int(entry) - 1
        listed = f": {', '.join(repr(_readable(name)) for name in self.names[:20])}" if self.names else ""
        if self.names and _NO_UTF8.search("".join(self.names)):
            listed += "; the text is not UTF-8: choose by number, from 1"
        if not self.names and entry in self._first:
            listed += f"; line {self._start} holds it: --header takes the line as names"
        if self._comment:
            number, text = self._comment
            listed += f"; line {number}, which starts with #, is left out: {text.strip()[:60]!r}"
        raise UsageError(f"{self._name} has no column {entry!r}; there are {self._columns}{listed}")

    def column(self, place):
        """How a chosen column is called in words."""
        number = self._chosen[place] + 1
        return f"{_readable(self.names[number - 1][:60])!r} ({number})" if self.names else str(number)

    def place(self, line, column):
        """Words for a cell: the number of its line and the column it is in."""
        return f"line {line}, column {self.column(column)}"

    # ---- rows ------------------------------------------------------------------------------------------------

    def _rows(self, file):
        """(numbers of lines, lines that hold cells) again and again. Refuses a blank line between others."""
        blank, started = None, False
        for first, lines in _lines(file, self._name):
            numbers, rows = [], []
            for number, line in enumerate(lines, first):
                if line.startswith("#") and not _OF_SPREADSHEETS.match(line):
                    count, start = self._left_out
                    self._left_out = count + 1, start or number
                    self._comment = self._comment if started else (number, line)
                    continue
                if number == 1 and (told := _TOLD.fullmatch(line)):
                    self._take_separator(line, told[1])
                    continue
                if not line.strip(" " if self._separator == "\t" else None):
                    blank = blank or (number if started else None)
                    continue
                if blank:
                    words = "is blank, and no step is left out in silence: remove it, or fill it"
                    raise UsageError(f"cannot read {self._name}: line {blank} {words}")
                started = True
                numbers.append(number)
                rows.append(line)
            if rows:
                yield numbers, rows

    def _take_separator(self, line, told):
        separator = None if told == " " else told
        if separator not in _NAMES:
            words = f"line 1, {_readable(line)!r}: cells are separated by one of ; , | : tabs, blanks"
            raise UsageError(f"cannot read {self._name}: {words}")
        self._separator, self._is_told = separator, True

    def _cells(self, row, number):
        if self._separator is None:
            return [cell[1:-1] if re.fullmatch(r'"[^"]*"', cell) else cell for cell in row.split()]
        if '"' not in row:
            return [cell.strip() for cell in row.split(self._separator)]
        try:
            [cells] = csv.reader([row], delimiter=self._separator, skipinitialspace=True, strict=True)
        except csv.Error as error:
            hint = "" if "expected after" in str(error) else "; quoted cells over several lines are not read"
            raise UsageError(f"cannot read {self._name}: line {number}: {error}{hint}") from None
        return [cell.strip() for cell in cells]

    def blocks(self):
        """`Rows` again and again, as many as have come."""
        numbers, rows = self._kept
        self._kept = None
        found = False
        while numbers is not None:
            if rows:
                found = True
                yield Rows(self._values(numbers, rows), numbers)
            numbers, rows = next(self._source, (None, None))
        if not found:
            raise UsageError(f"{self._name} holds no rows of numbers")

    def _values(self, numbers, rows):
        """(rows, chosen columns) float64."""
        even = not any('"' in row for row in rows)  # NumPy joins what stands behind the end of a quoted cell to it
        if self._chosen == list(range(self._columns)):
            chosen = None
        else:  # NumPy looks no further than the last column it is to read
            chosen, commas = self._chosen, self._columns - 1
            even = even and self._separator and all(row.count(self._separator) == commas for row in rows)
        if even:
            try:
                values = np.loadtxt(rows, delimiter=self._separator, ndmin=2, comments=None, usecols=chosen)
                if values.shape == (len(rows), self.width):
                    return values
            except ValueError:  # the words of which speak of another numbering of lines
                pass
        return np.array([self._row(number, row) for number, row in zip(numbers, rows, strict=True)], np.float64)

    def _row(self, number, row):
        cells = self._cells(row, number)
        if len(cells) != self._columns:
            found = f"cannot read {self._name}: line {number} has {len(cells)} column{'' if len(cells) == 1 else 's'}"
            words = f"line {self._start} has {self._columns}, separated by {_NAMES[self._separator]}"
            raise UsageError(f"{found}, {words}")
        return [self._value(number, place, cells[column]) for place, column in enumerate(self._chosen)]

    def _value(self, number, place, cell):
        value = _number(cell)
        if value is not None:
            return value
        where = f"cannot read {self._name}: {self.place(number, place)}"
        if not _is_missing(cell):
            hint = "--columns chooses the columns to feed"
            if _NO_UTF8.search(cell):
                hint = "the text is not UTF-8"
            elif _GROUPS.fullmatch(cell):
                hint = "a comma inside a number is not read (decimal or thousands)"
            elif _DECIMAL_COMMA.fullmatch(cell):
                hint = "a decimal comma is not read, write a point"
            raise UsageError(f"{where}: {_readable(cell[:60])!r} is not a number; {hint}")
        if not self._passes:
            hint = "--allow-nan passes it on as NaN"
            hint += ", --header takes the line as names" if number == self._start else ""
            raise UsageError(f"{where}: the number is missing ({cell!r}); {hint}")
        return np.nan
