"""Text files of numbers for `fastlstm run`: headers, columns, separators, encodings, and what is refused."""

import bz2
import gzip
import io
import lzma
import os

import numpy as np
import pytest
from command_line import fails, fastlstm, save_model, succeeds

import fastlstm as fl
from fastlstm.commands import csv_read
from fastlstm.commands.parser import UsageError


def table(text, encoding="utf-8", **options):
    data = text if isinstance(text, bytes) else text.encode(encoding)
    return csv_read.Table(io.BufferedReader(io.BytesIO(data)), "x.csv", **options)


def values(*args, **options):
    found = list(table(*args, **options).blocks())
    return np.concatenate([rows.values for rows in found]).tolist()


def refused(words, *args, **options):
    with pytest.raises(UsageError) as caught:
        values(*args, **options)
    message = str(caught.value)
    assert words in message and message.removeprefix("cannot read ").startswith("x.csv"), message
    assert "usecols" not in message


# ---- what is read ------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "expected", "note"), [
    ("1,2\n3,4\n", [[1, 2], [3, 4]], None),
    ("1,2\n3,4", [[1, 2], [3, 4]], None),  # no end of the last line
    ("1,2\r\n3,4\r\n", [[1, 2], [3, 4]], None),
    ("1,2\r3,4\r", [[1, 2], [3, 4]], None),
    ("5\n6\n", [[5], [6]], None),
    ("a,b\n1,2\n", [[1, 2]], "line 1 is taken as the header: a, b"),
    ("# x\n\na,b\n1,2\n\n\n", [[1, 2]], "line 3 is taken as the header: a, b"),  # blank lines between no rows
    ("a,,NA\n1,2,3\n", [[1, 2, 3]], "line 1 is taken as the header: a, , NA"),
    ('"a;b","c"\n"1","2"\n', [[1, 2]], "line 1 is taken as the header: a;b, c"),
    ("a;b\n1;2\n", [[1, 2]], "cells are separated by ';'"),
    ("a\tb\n1\t2\n", [[1, 2]], "cells are separated by tabs"),
    (" 1  2\n 3  4 \n", [[1, 2], [3, 4]], "cells are separated by blanks"),
    ("my value\n1\n2\n", [[1], [2]], "line 1 is taken as the header: my value"),
    ("temp;C,x\n1,2\n", [[1, 2]], "line 1 is taken as the header: temp;C, x"),
    ("1e3,-.5,+2.\n", [[1000, -0.5, 2]], None),
    ("1, 2 ,\t3\n# mid\n4,5,6\n", [[1, 2, 3], [4, 5, 6]], "line 2 starts with # and is left out"),
    ("# a\n1\n#2\n3\n#\n", [[1], [3]], "3 lines start with # and are left out, the first is line 1"),
    ('1 2\n"3" 4\n', [[1, 2], [3, 4]], "cells are separated by blanks"),
    ('a,b\n"1", "2"\n3,"4"\n', [[1, 2], [3, 4]], "line 1 is taken as the header: a, b"),
    ("a,a\n1,2\n", [[1, 2]], "line 1 is taken as the header: a, a"),
])
def test_read(text, expected, note):
    assert values(text) == expected
    read = table(text)
    list(read.blocks())
    notes = read.notes
    assert note in notes if note else notes == []


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_encodings_by_their_marks(encoding):
    mark = "\ufeff" if encoding.endswith("e") else ""
    read = table(f"{mark}é,b\n1,2\n", encoding)
    assert read.names == ["é", "b"] and [rows.values.tolist() for rows in read.blocks()] == [[[1, 2]]]
    assert [cut for cut in range(1, 9) if values(f"{mark}1,2\n3,4\n".encode(encoding)) != [[1, 2], [3, 4]]] == []


def test_other_letters_in_names_and_comments():
    """Latin-1, as some programs write it, costs no numbers."""
    assert values("é\n# à\n1\n".encode("latin-1")) == [[1]]


@pytest.mark.parametrize(("text", "name"), [
    ("sep=;\na,1;b\n1;2\n", "';'"), ('"sep=|"\r\n1|2\r\n', "'|'"), ("SEP=\t\n1\t2\n", "tabs"),
    ("sep=,\n1,2\n", None), ("sep= \n1 2\n", "blanks"), ("\ufeffsep=;\n1;2\n", "';'"),
])
def test_the_separator_may_be_told_as_spreadsheets_do(text, name):
    assert values(text) == [[1, 2]]
    assert (f"cells are separated by {name}" in table(text).notes) == bool(name)


def test_a_header_that_is_no_utf8():
    data = "é,b\n1,2\n".encode("latin-1")
    assert table(data).notes == ["line 1 is taken as the header: \ufffd, b (the text is not UTF-8)"]
    refused("there are 2: '\ufffd', 'b'; the text is not UTF-8: choose by number, from 1", data, columns=["é"])
    assert values(data, columns=["\udce9"]) == [[1]]  # as the system gives it where names are not UTF-8, too


def test_blocks_of_any_size_give_the_same(monkeypatch):
    text = "# é\na;b\n" + "".join(f"{n};{n / 3!r}\r\n" for n in range(500)) + "\n\n"
    expected = [[n, n / 3] for n in range(500)]
    for piece in (1, 3, 7, 1000, 1 << 20):
        monkeypatch.setattr(csv_read, "_PIECE", piece)
        for encoding in ("utf-8", "utf-16"):
            read = table(text, encoding)
            found = list(read.blocks())
            assert np.concatenate([rows.values for rows in found]).tolist() == expected
            assert [line for rows in found for line in rows.lines] == list(range(3, 503))
            assert "line 1 starts with # and is left out" in read.notes
            assert read.notes[-2] == "line 2 is taken as the header: a, b"


def test_more_columns_from_some_line_on(monkeypatch):
    monkeypatch.setattr(csv_read, "_PIECE", 8)
    for text in ("1,2\n3,4\n5,6,7\n8,9,1\n", '"1","2"\n"3","4","5"\n'):
        refused("has 3 columns, line 1 has 2", text)


def test_no_more_is_read_than_is_needed():
    """A file larger than memory: what has been handed on is kept nowhere."""
    class Endless(io.RawIOBase):
        read_so_far = 0

        def readable(self):
            return True

        def readinto(self, buffer):
            buffer[:] = (b"1.5,2.5\n" * (len(buffer) // 8 + 1))[: len(buffer)]
            Endless.read_so_far += len(buffer)
            return len(buffer)

    read = csv_read.Table(io.BufferedReader(Endless(), 8), "x.csv").blocks()
    sizes = [len(next(read).values) for _ in range(5)]
    assert max(sizes) <= csv_read._PIECE and Endless.read_so_far < 7 * csv_read._PIECE


# ---- columns -----------------------------------------------------------------------------


def test_columns():
    text = "date,a,b,c\n2020-01,1,2,3\n2020-02,4,5,6\n"
    assert values(text, columns=["c", "a"]) == values(text, columns=["4", "2"]) == [[3, 1], [6, 4]]
    assert "columns: 'c' (4), 'a' (2)" in table(text, columns=["c", "a"]).notes
    assert values("2020-01,1,2\n2020-02,3,4\n", columns=["3", "2"]) == [[2, 1], [4, 3]]  # no header
    assert values("0,1,2\n7,8,9\n", columns=["2", "0"], header=True) == [[9, 7]]  # names before numbers
    assert values('"a,b",c\n1,2\n', columns=csv_read.parse_columns(['"a,b"', "c"])) == [[1, 2]]
    assert csv_read.parse_columns(["a, b", "3"]) == ["a", "b", "3"] and csv_read.parse_columns(None) == []
    refused("no column 'x'; there are 4: 'date', 'a', 'b', 'c'", text, columns=["x"])
    refused("no column '5'; there are 4", text, columns=["5"])
    refused("no column '0'", text, columns=["0"])
    years = "2019,2020\n1,2\n"
    refused("no column '2020'; there are 2; line 1 holds it: --header takes the line as names", years, columns=["2020"])
    refused("; line 1, which starts with #, is left out: '#id,a,b,c'", "#id,a,b,c\n1,2,3,4\n", columns=["a"])
    refused("2 columns called 'a': choose by number, from 1", "a,a\n1,2\n", columns=["a"])
    refused("line 3 has 5 columns, line 1 has 4", "d,a,b,c\nx,1,2,3\nx,1,2,3,4\n", columns=["2"])
    refused("line 2 has 3 columns, line 1 has 4", "d,a,b,c\nx,1,2\n", columns=["a"])
    refused("line 2, column 'date' (1): '2020-01' is not a number; --columns chooses", text)
    with pytest.raises(UsageError, match="names or numbers of columns, from 1, got 'a,,b'"):
        csv_read.parse_columns(["a,,b"])


# ---- headers that may be rows ------------------------------------------------------------


def test_headers():
    refused("line 1, column 1: the number is missing ('NA'); --allow-nan", "NA,NA\n1,2\n")
    refused("--header takes the line as names", ",0\n0,1\n")
    assert values(",0\n0,1\n", header=True) == [[0, 1]]
    assert values("1,2\n3,4\n", header=True) == [[3, 4]]
    refused("line 1: '2020-01' is not a number, other cells of the line are. --header takes", "2020-01,5\n2020-02,6\n")
    refused("line 1: 'x1' is not a number", "x1,2\n3,4\n")
    refused("line 1, column 1: 'a' is not a number", "a,b\n1,2\n", header=False)
    for text in ("", "\n\n", "# only\n", "a,b\n", "\ufeff"):
        refused("holds no rows", text)


# ---- what is refused ---------------------------------------------------------------------


@pytest.mark.parametrize(("text", "words"), [
    ("# c\na,b\n1,2\n3,x\n", "line 4, column 'b' (2): 'x' is not a number"),
    ("1,2\n3,\n", "line 2, column 2: the number is missing ('')"),
    ("1,2\n3,NULL\n", "line 2, column 2: the number is missing ('NULL')"),
    ("1,2\n#N/A,4\n", "line 2, column 1: the number is missing ('#N/A')"),  # no comment
    ("1,2\n#DIV/0!,4\n", "line 2, column 1: '#DIV/0!' is not a number"),
    ("1,2\n3\n", "line 2 has 1 column, line 1 has 2, separated by ','"),
    ("1,2\n3;4\n", "line 2 has 1 column"),
    ("1,2\n3,4,5\n", "line 2 has 3 columns"),
    ("1,2\n\n3,4\n", "line 2 is blank, and no step is left out in silence"),
    ("1\n\n \n3\n", "line 2 is blank"),
    ("a;b\n1,5;2,5\n", "'1,5' is not a number; a decimal comma is not read, write a point"),
    ("1\t2\n1.234,5\t3\n", "a decimal comma"),
    ('1,"2\n3",4\n', "quoted cells over several lines are not read"),
    ('a,b,c\n"1"2,5,6\n', "line 2: ',' expected after '\"'"),
    ('"1"2,5,6\n3,4,5\n', "line 1: ',' expected after '\"'"),
    ('1,2\n3,4"5"\n', "line 2, column 2: '4\"5\"' is not a number"),
    ('1,2\n3,"4""5"\n', "line 2, column 2: '4\"5' is not a number"),
    ('1 2\n3 "4"5\n', "line 2, column 2: '\"4\"5' is not a number"),
    ('1 2\n3 "4 5"\n', "line 2 has 3 columns"),
    ('a,b\n"1,000",2\n', "a comma inside a number is not read (decimal or thousands)"),
    ("a;b\n-12,345,678;2\n", "a comma inside a number is not read (decimal or thousands)"),
    ("a;b\n1,234.5;2\n", "a comma inside a number is not read (decimal or thousands)"),
    ("a;b\n1,2345;2\n", "a decimal comma is not read, write a point"),
    ("1_000,2\n", "line 1"),
    ("1,2\n١,2\n", "line 2, column 1: '١' is not a number"),
    ("1,2\n0x10,2\n", "is not a number"),
    ("1,2\n" + "1" * 70 + "x,2\n", "'" + "1" * 60 + "' is not"),
    (b"1\0,\0" + b"2\0\n\0", "NUL characters"),
    (b"1,2\n\xff,3\n", "line 2, column 1: '\ufffd' is not a number; the text is not UTF-8"),
    (b"\x93NUMPY\1\0v\0{", "it is an array of NumPy (.npy): --input-format npy reads it"),
    ("sep=x\n1x2\n", "line 1, 'sep=x': cells are separated by one of ; , | : tabs, blanks"),
    ("9" * (1 << 24) + "9", "line 1 has more than 16,777,216 characters"),
])
def test_refused(text, words):
    refused(words, text)


def test_missing_values_pass_when_asked():
    found = values("a,b\nNA,1\n,nan\n-1.#IND,<NA>\n4,None\n", missing=True)
    np.testing.assert_array_equal(found, [[np.nan, 1], [np.nan] * 2, [np.nan] * 2, [4, np.nan]])
    assert np.isnan(values("NA,NA\n1,2\n", missing=True)[0]).all()
    refused("'x' is not a number", "1,2\nx,4\n", missing=True)


# ---- the command -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("csv"))


def test_the_header_is_told_and_columns_are_chosen(tmp_path, model):
    (tmp_path / "x.csv").write_text("date,a,b,c\n2020,1,2,3\n2021,4,5,6\n")
    line = fails("run", model[0], "x.csv", cwd=tmp_path)
    assert "3 features per step; x.csv has 4 columns: 'date' (1), 'a' (2)" in line
    text = succeeds("run", model[0], "x.csv", "--columns", "c,a", "--columns", "b", "-o", "y.npy", cwd=tmp_path)
    assert "x.csv: line 1 is taken as the header: date, a, b, c\nx.csv: columns: 'c' (4), 'a' (2), 'b' (3)\n" in text
    expected = model[1](np.array([[[3, 1, 2]], [[6, 4, 5]]], np.float32))[0][:, 0]
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), expected)
    np.save(tmp_path / "x.npy", np.zeros((2, 3)))
    assert "--columns is for .csv files" in fails("run", model[0], tmp_path / "x.npy", "--columns", "a")
    assert "--header is for .csv files" in fails("run", model[0], tmp_path / "x.npy", "--no-header")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed(tmp_path, model, pack):
    data = pack(b"1,2,3\n4,5,6\n")
    (tmp_path / "x.csv.gz").write_bytes(data)
    assert "2 steps: input (2, 3)" in succeeds("run", model[0], tmp_path / "x.csv.gz")
    (tmp_path / "cut.csv").write_bytes(data[:-5])
    assert "cannot read" in fails("run", model[0], tmp_path / "cut.csv")


def test_separators_that_are_not_recognised(tmp_path, model):
    (tmp_path / "x.csv").write_text("1|2|3\n4|5|6\n")
    line = fails("run", model[0], tmp_path / "x.csv")
    words = "1 column: '1|2|3' (1). No separator was recognised; those are commas, semicolons, tabs, blanks, or told"
    assert words in line and "as 'sep=|' in the first line" in line
    fl.GRU(1, 2, rng=0).save(tmp_path / "one")
    (tmp_path / "x.csv").write_text("1,2\n")
    assert "takes 1 feature per step; " in fails("run", tmp_path / "one", tmp_path / "x.csv")


def test_arrays_that_are_read_as_text(tmp_path, model):
    np.save(tmp_path / "a.npy", np.zeros((4, 3)))
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 3)))
    for kind in ("npy", "npz"):
        data = (tmp_path / f"a.{kind}").read_bytes()
        for packed in (data, gzip.compress(data)) if kind == "npy" else (data,):
            (tmp_path / "x.csv").write_bytes(packed)
            assert f"--input-format {kind} reads it" in fails("run", model[0], tmp_path / "x.csv")
        assert "4 steps" in succeeds("run", model[0], tmp_path / f"a.{kind}", "--input-format", kind)


def test_packed_otherwise(tmp_path, model):
    for data, words in ((b"PK\3\4xxx", "a zip archive (.xlsx is one, too); unpack it"), (b"\x28\xb5\x2f\xfd", "zstd")):
        (tmp_path / "x.csv").write_bytes(data)
        assert words in fails("run", model[0], tmp_path / "x.csv")


@pytest.mark.parametrize(("cell", "words"), [
    ("nan", "is nan; --allow-nan"), ("inf", "is inf"), ("-Infinity", "is -inf"), ("1e400", "is inf"),
    ("1e39", "is 1e+39, too large for float32"), ("NA", "the number is missing ('NA')"),
])
def test_what_is_not_finite_is_named(tmp_path, model, cell, words):
    path = tmp_path / "x.csv"
    path.write_text(f"a,b,c\n1,2,3\n# note\n4,{cell},6\n")
    line = fails("run", model[0], path)
    assert "line 4, column 'b' (2)" in line and words in line
    text = succeeds("run", model[0], path, "--allow-nan")
    assert "1 number of the input is NaN or infinite\n" in text


def test_a_mistake_leaves_no_output(tmp_path, model):
    """Far behind the first block."""
    (tmp_path / "x.csv").write_text("1,2,3\n" * 30_000 + "1,2,x\n")
    for name in ("y.csv", "y.npy", "y.npz"):
        result = fastlstm("run", model[0], "x.csv", "-o", name, cwd=tmp_path)
        assert "line 30001, column 3: 'x'" in result.stderr and result.returncode == 2 and result.stdout == ""
        assert os.listdir(tmp_path) == ["x.csv"]
