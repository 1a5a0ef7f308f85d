"""A file's contents and binary file objects wherever a path is taken: the same models, the same reasons for refusal."""

import codecs
import gzip
import io
import os
import zipfile
from contextlib import suppress

import damage
import numpy as np
import onnx_bytes as ob
import pytest
import sources
import torch_bytes
from grids import interrupted
from sources import CONTENTS, FILES, READERS, STREAMS, same

import fastlstm as fl
from fastlstm import read_files
from fastlstm.convert import formats
from fastlstm.files import FileFormatError

pytest.importorskip("h5py")  # which writes the samples of Keras


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Reader -> (bytes, function, what it gives for the path)."""
    folder, found = tmp_path_factory.mktemp("samples"), {}
    for number, (name, (write, read, ending)) in enumerate(READERS.items()):
        path, data = folder / f"{number}{ending}", write(5)
        path.write_bytes(data)
        found[name] = data, read, read(path)
    return found


# ---- every reader, every kind ------------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", CONTENTS)
def test_contents(kind, reader, samples, tmp_path):
    data, read, expected = samples[reader]
    given = CONTENTS[kind](tmp_path, data)
    assert same(read(given), expected)
    assert bytes(given) == data
    if isinstance(given, bytearray):
        given.append(0)  # nobody holds it any more


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", FILES)
def test_file_objects(kind, reader, samples, tmp_path):
    """It is left open, at its end."""
    data, read, expected = samples[reader]
    with FILES[kind](tmp_path, data) as file:
        end = file.tell() + len(data)
        assert same(read(file), expected)
        assert not file.closed
        assert file.tell() == end
        assert file.read(1) == b""
        file.seek(end - len(data))
        assert file.read(9) == data[:9]  # and nothing of it has moved
        if kind.startswith("BytesIO"):
            file.seek(0, os.SEEK_END)
            file.write(b"more")  # a buffer that somebody still holds refuses that


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", STREAMS)
def test_streams(kind, reader, samples, tmp_path):
    """What cannot go back, and has no size until its end."""
    data, read, expected = samples[reader]
    file = STREAMS[kind](tmp_path, data)
    assert same(read(file), expected)
    assert not file.read(1)
    if hasattr(file, "close"):
        assert not file.closed
        file.close()


@pytest.mark.parametrize("reader", READERS)
def test_files_of_fsspec(reader, samples, tmp_path):
    pytest.importorskip("fsspec")
    data, read, expected = samples[reader]
    with sources.of_fsspec(tmp_path, data) as file:
        assert same(read(file), expected)
        assert file.tell() == len(data)


def test_items_wider_than_bytes():
    data = sources.saved(fl.LSTM(3, 4, dtype="float64", rng=0))
    model = fl.LSTM(3, 4, dtype="float64", rng=0)
    for length in range(16):
        model.metadata = {"note": " " * length}
        data = sources.saved(model)
        if len(data) % 16 == 0:
            break
    assert same(fl.load(sources.wide(data)), model)


@pytest.mark.parametrize("kind", [kind for kind in [*CONTENTS, *FILES] if kind != "mmap"])
def test_an_empty_one(kind, tmp_path):
    for _, read, _ in READERS.values():
        given = (CONTENTS | FILES)[kind](tmp_path, b"")
        with pytest.raises(FileFormatError, match=": nothing to read: (it has no bytes|the file object is at its end)"):
            read(given)


@pytest.mark.parametrize("reader", READERS)
def test_a_file_object_at_its_end(reader, tmp_path):
    """As after writing it, without seek(0)."""
    write, read, ending = READERS[reader]
    data = write(5)
    path = tmp_path / f"a{ending}"
    path.write_bytes(data)
    given = io.BytesIO(data)
    given.seek(0, os.SEEK_END)
    with open(path, "rb") as file:
        file.seek(0, os.SEEK_END)
        for one in (given, file):
            with pytest.raises(FileFormatError, match=r"nothing to read: the file object is at its end; seek\(0\)"):
                read(one)


def test_file_objects_that_cannot_be_read(tmp_path):
    with open(tmp_path / "a", "wb") as file:
        for name, (_, read, _) in READERS.items():
            argument = "source" if name.startswith("from_torch") else "path"
            with pytest.raises(TypeError, match=f"^{argument} is a file object that is not open for reading .*a"):
                read(file)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["bytes", "BytesIO", "open"])
def test_layers_of_512_units(kind, reader, tmp_path):
    write, read, ending = READERS[reader]
    data = write(512)
    path = tmp_path / f"large{ending}"
    path.write_bytes(data)
    assert same(read((CONTENTS | FILES)[kind](tmp_path, data)), read(path))


# ---- what the producers write ------------------------------------------------------------------------------------


def test_a_state_dict_of_torch():
    torch = pytest.importorskip("torch")
    module, file = torch.nn.LSTM(40, 512, 2), io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    expected = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    for found in (fl.from_torch(file), fl.from_torch(file.getvalue()), formats.only_model(file.getbuffer())):
        assert same(found.state_dict(), expected)
    assert same(fl.read_torch(file.getvalue()), expected)
    file.write(b"more")


def test_an_onnx_file_and_onnx_runtime():
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    model, file = fl.LSTM(40, 512, rng=0), io.BytesIO()
    fl.to_onnx(model, file)
    x = np.random.default_rng(0).standard_normal((7, 2, 40)).astype("f4")
    [y] = runtime.InferenceSession(file.getvalue()).run(None, {"x": x})
    np.testing.assert_allclose(y, model(x)[0], rtol=0, atol=1e-5)
    file.seek(0)
    assert same(fl.from_onnx(file), {"l0": model})
    file.seek(0)
    np.testing.assert_allclose(sources.prepare(file).run([x])[0], model(x)[0], rtol=0, atol=1e-6)


# ---- prepare -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*CONTENTS, *FILES, *STREAMS])
def test_prepare(kind, tmp_path):
    pytest.importorskip("onnx")
    model = fl.GRU(3, 4, rng=0)
    data = sources.saved(model, fl.to_onnx)
    x = np.ones((5, 2, 3), "f4")
    given = (CONTENTS | FILES | STREAMS)[kind](tmp_path, data)
    np.testing.assert_array_equal(sources.prepare(given).run([x])[0], model(x)[0])
    if hasattr(given, "read"):
        assert not given.read(1)


def test_prepare_tells_the_name_of_what_is_no_model(tmp_path):
    onnx = pytest.importorskip("onnx")
    file = io.BytesIO(b"no model \xff")
    with pytest.raises(onnx.checker.ValidationError, match="^<BytesIO>: "):
        sources.prepare(file)
    with pytest.raises(TypeError, match=r"model is a file object in text mode \(<StringIO>\)"):
        sources.prepare(io.StringIO("text"))


@pytest.mark.parametrize("where", ["initializer", "constant", "branch", "function"])
def test_prepare_reads_no_other_files_without_a_path(where, tmp_path, monkeypatch):
    """Not even those of the current folder."""
    onnx = pytest.importorskip("onnx")
    from onnx import helper

    weight = onnx.numpy_helper.from_array(np.ones((3, 4), "f4"), "w")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="w.bin")
    weight.ClearField("raw_data")
    (tmp_path / "w.bin").write_bytes(np.ones((3, 4), "f4").tobytes())
    ends = [helper.make_tensor_value_info(n, 1, [None, width]) for n, width in (("x", 3), ("y", 4))]
    constant = helper.make_node("Constant", [], ["w"], value=weight)
    nodes, functions = [helper.make_node("MatMul", ["x", "w"], ["y"])], []
    if where == "constant":
        nodes.insert(0, constant)
    elif where == "branch":
        inner = helper.make_graph([constant], "inner", [], [helper.make_tensor_value_info("w", 1, [3, 4])])
        true = helper.make_node("Constant", [], ["true"], value=helper.make_tensor("t", 9, [], [True]))
        nodes[:0] = [true, helper.make_node("If", ["true"], ["w"], then_branch=inner, else_branch=inner)]
    elif where == "function":
        opsets = [helper.make_opsetid("", 17)]
        functions.append(helper.make_function("own", "weight", [], ["w"], [constant], opsets))
        nodes.insert(0, helper.make_node("weight", [], ["w"], domain="own"))
    graph = helper.make_graph(nodes, "g", [ends[0]], [ends[1]], [weight] if where == "initializer" else [])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=9)
    monkeypatch.chdir(tmp_path)
    data = model.SerializeToString()
    for given in (data, io.BytesIO(data), model):
        with pytest.raises(ValueError, match=r"^model: '.*' is in another file, 'w.bin': give the path of the model"):
            sources.prepare(given)


def test_from_onnx_reads_no_other_files_without_a_path(tmp_path, monkeypatch):
    arrays = ob.weights("LSTM", 3, 5)
    data, tensors = b"", []
    for name, array in arrays.items():
        tensors.append(ob.tensor(name, array, {"location": "a.data", "offset": len(data), "length": array.nbytes}))
        data += array.tobytes()
    model = ob.model(ob.graph([ob.node("LSTM", ["x", "W", "R", "B"], ["y"], "rnn")], tensors))
    (tmp_path / "a.data").write_bytes(data)
    (tmp_path / "a.onnx").write_bytes(model)
    assert list(fl.from_onnx(tmp_path / "a.onnx")) == ["rnn"]
    monkeypatch.chdir(tmp_path)
    with open(tmp_path / "a.onnx", "rb") as file:
        for given in (model, io.BytesIO(model), file):
            with pytest.raises(FileFormatError, match="'a.data': give the path of the model, next to which it lies"):
                fl.from_onnx(given)


# ---- refusals ----------------------------------------------------------------------------------------------------


def reason(read, given, name):
    """The words of a refusal without the name of the file; None where it is read."""
    try:
        with np.errstate(all="ignore"):
            read(given)
    except FileFormatError as error:
        assert str(error).startswith(f"{name}: "), str(error)
        return str(error).removeprefix(f"{name}: ")
    return None


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::UserWarning")
@pytest.mark.parametrize("reader", [name for name in READERS if not name.startswith("contents")])
def test_damage_has_the_same_reasons(reader, samples, tmp_path):
    data, read, _ = samples[reader]
    rng, path, refused = np.random.default_rng(1), tmp_path / f"damaged{READERS[reader][2]}", 0
    wounds = [data[:length] for length in range(1, len(data), len(data) // 40)]
    for wounded in [*wounds, *(damage.damaged(data, rng) for _ in range(80))]:
        path.write_bytes(b"before" + wounded)
        with open(path, "rb") as file:
            file.seek(6)
            found = [reason(read, wounded, "<bytes>"), reason(read, file, path)]
        found.append(reason(read, io.BytesIO(wounded), "<BytesIO>"))
        path.write_bytes(wounded)
        expected = reason(read, path, path)
        if found[0] and "neither a zip archive" in found[0]:  # which the path's ending told
            assert expected
        else:
            assert found == [expected] * 3
        refused += expected is not None
    assert refused > 60


def test_names_in_messages(tmp_path):
    path, junk = tmp_path / "junk.bin", b"junk" * 9
    path.write_bytes(junk)
    with zipfile.ZipFile(tmp_path / "z", "w") as archive:
        archive.writestr("inner/m", junk)
    with zipfile.ZipFile(tmp_path / "z") as archive, archive.open("inner/m") as member, open(path, "rb") as file:
        descriptor = os.open(path, os.O_RDONLY)
        with open(descriptor, "rb") as numbered:
            given = {
                "<bytes>": junk, "<bytearray>": bytearray(junk), "<memoryview>": memoryview(junk), str(path): file,
                "<BytesIO>": io.BytesIO(junk), "inner/m": member, "<Trickle>": sources.Trickle(junk),
                "<BufferedReader>": numbered,
            }
            for name, one in given.items():
                with pytest.raises(FileFormatError) as caught:
                    fl.load(one)
                assert str(caught.value).startswith(f"{name}: not a safetensors file"), name


def test_a_megabyte_of_junk_makes_a_short_message():
    for _, read, _ in READERS.values():
        with pytest.raises(FileFormatError) as caught:
            read(os.urandom(1 << 20))
        assert len(str(caught.value)) < 200


def test_warnings_name_it():
    model = fl.LSTM(3, 4, rng=0)
    model._update({name: np.full_like(w, np.nan) for name, w in model.state_dict().items()})
    file = io.BytesIO()
    with pytest.warns(RuntimeWarning, match="^<BytesIO>: NaN or infinity") as caught:
        model.save(file)
    assert caught[0].filename == __file__
    with pytest.warns(RuntimeWarning, match="^<bytes>: NaN or infinity"):
        fl.load(file.getvalue())


class Odd:
    """A class whose `read` gives anything."""

    def __init__(self, *gives):
        self.gives = list(gives)

    def read(self, size):
        found = self.gives.pop(0)
        if isinstance(found, BaseException):
            raise found
        return found


@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_source(reader, tmp_path):
    _, read, _ = READERS[reader]
    name = "source" if reader.startswith("from_torch") else "path"
    (tmp_path / "text").write_text("text")
    with zipfile.ZipFile(tmp_path / "z", "w") as archive:
        archive.writestr("m", b"")
    with open(tmp_path / "text") as text, zipfile.ZipFile(tmp_path / "z") as archive:
        for given in (io.StringIO("text"), text):
            with pytest.raises(TypeError, match=f"^{name} is a file object in text mode .*open"):
                read(given)
        with pytest.raises(TypeError, match=f"^{name} must be a binary file object.*in text mode"):
            read(codecs.getreader("utf-8")(io.BytesIO(b"text")))
        if name == "source":
            return  # the rest may be modules of torch
        for given, words in (
            (3, "got int"), (None, "got NoneType"), (np.zeros(3), "got ndarray"), (io.BytesIO, "got BytesIO, a class"),
            (zipfile.Path(archive, "m"), "got Path; its open.'rb'. gives one"), ([b""], "got list"),
        ):
            with pytest.raises(TypeError, match=f"^{name} must be a path, .* or a binary file object, {words}$"):
                read(given)
    with pytest.raises(TypeError, match=rf"^{name} must be .* gives bytes; its read\(\) gave int \(<Odd>\)"):
        read(Odd(3))
    with pytest.raises(BlockingIOError, match="no data yet"):
        read(Odd(b"some", None))


def test_from_torch_takes_nothing_else():
    pytest.importorskip("torch")
    for given in (3, None, io.BytesIO, [b""]):
        with pytest.raises(TypeError, match="^from_torch: source must be a torch.nn.Module, a state dict, a path, "):
            fl.from_torch(given)


def test_modules_and_dicts_with_a_method_read_are_no_files():
    torch = pytest.importorskip("torch")

    class Memory(torch.nn.Sequential):
        def read(self, size):
            raise AssertionError

    class Named(dict):
        read = Memory.read

    module, layer = Memory(torch.nn.LSTM(3, 4)), fl.LSTM(3, 4, rng=0)
    assert same(fl.from_torch(module, "0"), fl.from_torch(module[0]))
    assert same(fl.from_torch(Named(layer.state_dict())), layer)


def test_a_path_object_with_a_method_read_is_a_path(tmp_path):
    class Local:
        def __init__(self, path):
            self._path = path

        def __fspath__(self):
            return os.fsencode(self._path)

        def read(self, mode="r"):
            raise AssertionError

    model = fl.LSTM(3, 4, rng=0)
    model.save(Local(tmp_path / "a"))
    assert same(fl.load(Local(tmp_path / "a")), model)


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="no such device here")
@pytest.mark.parametrize("buffering", [-1, 0])
def test_devices_without_an_end_are_refused(buffering):
    for _, read, _ in READERS.values():
        with open("/dev/zero", "rb", buffering) as file, pytest.raises(FileFormatError, match="not a regular file"):
            read(file)


# ---- errors that are no damage -----------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", READERS)
def test_what_read_raises_comes_as_it_is(reader, samples):
    data, read, _ = samples[reader]
    for error in (OSError(5, "lost"), OSError(22, "odd"), ValueError("no"), EOFError("end"), TypeError("odd"),
                  KeyError("k"), RuntimeError("late"), zipfile.BadZipFile("no"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught:
            read(Odd(data[:100], error))
        assert caught.value is error


def test_files_that_are_closed(tmp_path):
    (tmp_path / "a").write_bytes(b"some")
    for _, read, _ in READERS.values():
        with open(tmp_path / "a", "rb") as file:
            pass
        with pytest.raises(ValueError, match="closed file") as caught:
            read(file)
        assert not isinstance(caught.value, FileFormatError)


@pytest.mark.parametrize("reader", ["load", "from_torch", "from_onnx", "from_keras h5"])
def test_interruptions_leave_the_buffer_free(reader, samples):
    """Wherever they come, the owner of a BytesIO may write to it again."""
    data, read, _ = samples[reader]
    file, at, reached = io.BytesIO(data), 1, True
    while reached:
        file.seek(0)
        with suppress(KeyboardInterrupt):  # it was reached, then
            reached = interrupted(lambda: read(file), KeyboardInterrupt(), at)
        file.truncate(len(data) - 1)  # refused while somebody holds its buffer
        file.seek(0)
        file.write(data)
        at += 1 + at // 4


# ---- files that change -------------------------------------------------------------------------------------------


def test_a_file_on_the_disk_that_changes(tmp_path):
    path = tmp_path / "a"
    fl.LSTM(3, 4, rng=0).save(path)
    with open(path, "rb") as mine:
        source = read_files.as_source(mine)
        with pytest.raises(FileFormatError, match="a: changed while it was read"), read_files.steady(source):
            path.write_bytes(path.read_bytes()[:-1] + b"\xff")


def test_contents_that_change_are_read_as_they_were():
    model = fl.LSTM(3, 4, rng=0)
    data = bytearray(sources.saved(model))
    for given in (data, memoryview(data)):
        source, before = read_files.as_source(given), bytes(data)
        data[:] = bytes(len(data))
        with read_files.steady(source) as file:
            assert file.read() == before
        data[:] = before


def test_what_is_on_the_disk_is_not_read_into_memory(tmp_path):
    """Of a file that the caller opened no more is read than of the path."""
    model = fl.Sequential(fl.Linear(1000, 1000, rng=0), fl.LSTM(1000, 4, rng=0))
    path = tmp_path / "a.safetensors"
    path.write_bytes(sources.saved(model))
    with open(path, "rb") as file:
        grown = memory(lambda: fl.from_torch(file, "1."))
    assert grown < path.stat().st_size / 4


def memory(function):
    """The most memory that Python and NumPy took for a call."""
    import tracemalloc

    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_of_contents(tmp_path):
    """bytes and what a BytesIO holds are not copied, a stream is kept once."""
    data = sources.saved(fl.Linear(1000, 1000, rng=0))
    assert memory(lambda: fl.load(data)) < 1.3 * len(data)
    file = io.BytesIO(data)
    assert memory(lambda: fl.load(file)) < 1.3 * len(data)
    assert memory(lambda: fl.load(sources.Trickle(data, 1 << 20))) < 2.6 * len(data)
    assert memory(lambda: fl.load(gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(data, 1))))) < 2.6 * len(data)
    assert memory(lambda: fl.load(bytearray(data))) < 3.3 * len(data)  # with the copy that is made before the call


# ---- formats told by content -------------------------------------------------------------------------------------


def test_formats_without_a_name(samples):
    kinds = {"load": "safetensors", "from_torch": "torch", "from_onnx": "ONNX", "from_keras": "Keras"}
    for name, (data, _, _) in samples.items():
        if name in kinds:
            assert formats.kind_of(data) == formats.kind_of(io.BytesIO(data)) == kinds[name]
    assert formats.kind_of(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.") == "torch"  # before torch 1.6, which says so
    assert formats.kind_of(ob.varied()) == "ONNX"


def test_onnx_by_its_first_fields(tmp_path):
    content = ob.graph([])
    told = [
        ob.model(content), ob.model(content, opset=None), ob.field(7, content) + ob.field(1, 8),
        ob.field(8, b"") + ob.field(6, "notes" * 100) + ob.field(1, 3) + ob.field(7, b"\xff" * 300),
        ob.model(content)[:-20], ob.field(1, 8) + b"\x3a\xff\xff\x03cut",
    ]
    for number, data in enumerate(told):
        assert formats.kind_of(data) == "ONNX", number
        (tmp_path / "model").write_bytes(data)
        assert formats.kind_of(tmp_path / "model") == "ONNX"
    others = [
        b"\x08", b"\x08\x08", b"text, a long one", b":text", b"1,2\n3,4\n", ob.field(1, 8) + b"junk",
        b"\x93NUMPY\x01\0v", ob.field(9, b"") + ob.model(content), ob.field(1, b"") + ob.model(content),
        b"\xff" * 50, ob.field(7, content) * 2000 + ob.field(1, 8), b"\x08\xff" * 30,
    ]
    for data in others:
        with pytest.raises(FileFormatError, match="<bytes>: neither safetensors nor a checkpoint of torch"):
            formats.kind_of(data)


def test_options_and_names(samples):
    data, _, _ = samples["from_torch"]
    found = formats.contents(data, batch_first=True)
    assert found.models[""].batch_first
    with pytest.raises(FileFormatError, match="^<BytesIO>: batch_first: for state dicts of torch alone"):
        formats.contents(io.BytesIO(samples["load"][0]), batch_first=True)
    with pytest.raises(FileFormatError, match="^<bytes>: no recurrent layer is called 'other'"):
        formats.only_model(data, "other")
    both = {f"{name}.{key}": w for name in "ab" for key, w in fl.LSTM(3, 4, rng=0).state_dict().items()}
    assert type(formats.only_model(io.BytesIO(torch_bytes.state_dict(both)), "b")) is fl.LSTM
