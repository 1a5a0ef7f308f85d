"""Files written whole or not at all: what may stand at the target, what is kept of it, what a killed process leaves."""

import errno
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from command_line import fails, save_model
from grids import at_once

import fastlstm as fl
from fastlstm import commands
from fastlstm.files import write_whole

ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
posix = pytest.mark.skipif(os.name != "posix", reason="files of POSIX systems")
as_root = pytest.mark.skipif(not ROOT, reason="needs the rights of root")


def model():
    return fl.Linear(3, 2, rng=0)


@pytest.fixture
def expected(tmp_path_factory):
    """The bytes of the model's file."""
    path = tmp_path_factory.mktemp("expected") / "a"
    model().save(path)
    return path.read_bytes()


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


# ---- what is no regular file ------------------------------------------------------------------------------------


def node(path, minor):
    """A character device of one's own: 3 null, 7 full."""
    try:
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, minor))
        os.close(os.open(path, os.O_WRONLY))
    except OSError as error:
        pytest.skip(f"no devices can be made here: {error}")
    return path


def read_in_background(path):
    found = []
    thread = threading.Thread(target=lambda: found.append(Path(path).read_bytes()), daemon=True)
    thread.start()
    return thread, found


@posix
@pytest.mark.parametrize("link", [False, True])
def test_a_pipe_is_written_into(tmp_path, expected, link):
    os.mkfifo(tmp_path / "pipe")
    os.symlink("pipe", tmp_path / "link")
    thread, found = read_in_background(tmp_path / "pipe")
    model().save(tmp_path / ("link" if link else "pipe"))
    thread.join(20)
    assert found == [expected] and sorted(os.listdir(tmp_path)) == ["link", "pipe"]
    assert stat.S_ISFIFO(os.stat(tmp_path / "pipe").st_mode) and (tmp_path / "link").is_symlink()


@posix
def test_a_pipe_without_a_reader_any_more(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with open(os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)) as reader:
        def pieces():
            yield b"x"
            reader.close()
            yield b"x" * 10**6
        with pytest.raises(BrokenPipeError):
            write_whole(tmp_path / "pipe", pieces())


@as_root
@pytest.mark.parametrize("link", [False, True])
def test_a_device_is_written_into(tmp_path, link):
    device = node(tmp_path / "null", 3)
    os.symlink("null", tmp_path / "link")
    model().save(tmp_path / ("link" if link else "null"))
    assert stat.S_ISCHR(os.stat(device).st_mode) and sorted(os.listdir(tmp_path)) == ["link", "null"]


@as_root
def test_a_device_that_is_full(tmp_path):
    device = node(tmp_path / "full", 7)
    with pytest.raises(OSError, match="No space left"):
        model().save(device)
    assert stat.S_ISCHR(os.stat(device).st_mode)


@posix
def test_a_socket_and_a_directory_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("socket")
        os.symlink("socket", "link")
        for name in ("socket", "link"):
            with pytest.raises(OSError, match="it is a socket"):
                model().save(name)
        assert stat.S_ISSOCK(os.stat("socket").st_mode)
    os.mkdir("folder")
    for name in ("folder", "folder/", "none/", ".", "/"):
        with pytest.raises(IsADirectoryError, match="it is a directory"):
            model().save(name)
    with pytest.raises(NotADirectoryError):
        model().save("socket/a")
    with pytest.raises(FileNotFoundError):
        model().save("")
    assert sorted(os.listdir(tmp_path)) == ["folder", "link", "socket"]


@posix
def test_links(tmp_path, expected):
    os.mkdir(tmp_path / "far")
    (tmp_path / "far" / "a").write_bytes(b"before")
    os.symlink("far/a", tmp_path / "one")
    os.symlink("one", tmp_path / "two")
    os.symlink("far/new", tmp_path / "dangling")
    for name, target in (("two", "far/a"), ("dangling", "far/new")):
        model().save(tmp_path / name)
        assert (tmp_path / name).is_symlink() and (tmp_path / target).read_bytes() == expected
    os.symlink("loop", tmp_path / "loop")
    with pytest.raises(OSError) as caught:
        model().save(tmp_path / "loop")
    assert caught.value.errno == errno.ELOOP
    assert sorted(os.listdir(tmp_path)) == ["dangling", "far", "loop", "one", "two"]


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="no /proc here")
def test_an_open_file_without_a_name(tmp_path, expected):
    with open(tmp_path / "a", "w+b") as file:
        file.write(b"x" * 10**5)
        file.flush()
        os.unlink(tmp_path / "a")
        model().save(f"/proc/self/fd/{file.fileno()}")
        file.seek(0)
        assert file.read() == expected
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="no /proc here")
def test_what_is_open_to_append_to_is_not_replaced(tmp_path, expected):
    """Nor what standard output is; both are written into where they stand."""
    with open(tmp_path / "a", "ab", buffering=0) as file:
        file.write(b"old")
        model().save(f"/proc/self/fd/{file.fileno()}")
        file.write(b"new")
    assert (tmp_path / "a").read_bytes() == b"old" + expected + b"new"
    program = "import fastlstm as f; print('old', flush=True); f.Linear(3, 2, rng=0).save('/dev/stdout'); print('new')"
    with open(tmp_path / "b", "wb") as file:
        subprocess.run([sys.executable, "-c", program], stdout=file, check=True)
    assert (tmp_path / "b").read_bytes() == b"old\n" + expected + b"new\n"
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


# ---- names, modes, owners ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a" * 255, "é" * 127 + "a", "a" * 243])
def test_names_that_open_takes(tmp_path, expected, name):
    for _ in range(2):
        model().save(tmp_path / name)
    assert (tmp_path / name).read_bytes() == expected and os.listdir(tmp_path) == [name]


def test_names_that_open_refuses(tmp_path):
    with pytest.raises(OSError) as caught:
        model().save(tmp_path / ("a" * 256))
    assert caught.value.errno == errno.ENAMETOOLONG and os.listdir(tmp_path) == []
    with pytest.raises(ValueError, match="null"):
        model().save(f"{tmp_path}/a\0b")


@posix
@pytest.mark.parametrize("before", [0o600, 0o640, 0o755, None])
def test_nobody_reads_meanwhile_what_is_private(tmp_path, before):
    path, seen = tmp_path / "a", []
    if before is not None:
        path.write_bytes(b"before")
        path.chmod(before)

    def pieces():
        yield b"x" * 10**6
        seen.extend(mode(tmp_path / name) for name in os.listdir(tmp_path) if name != "a")
        yield b"y"

    write_whole(path, pieces())
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    assert seen == [mode(plain) if before is None else 0o600]
    assert mode(path) == (mode(plain) if before is None else before)


@as_root
def test_owner_and_group_stay(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"before")
    os.chown(path, 1234, 2345)
    path.chmod(0o640)
    model().save(path)
    found = os.stat(path)
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 2345, 0o640)


@pytest.mark.skipif(not hasattr(os, "setxattr"), reason="no extended attributes here")
def test_extended_attributes_stay(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"before")
    try:
        os.setxattr(path, "user.note", b"mine")
    except OSError as error:
        pytest.skip(str(error))
    model().save(path)
    assert os.getxattr(path, "user.note") == b"mine"


@posix
def test_a_system_without_modes_and_owners(tmp_path, expected, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"before")

    def refused(*_, **__):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    for name in ("chmod", "fchmod", "chown", "fchown", "setxattr"):
        monkeypatch.setattr(os, name, refused, raising=False)
    model().save(path)
    assert path.read_bytes() == expected


@posix
def test_another_group_gets_no_more_than_everybody(tmp_path, monkeypatch):
    """Where the group cannot be kept, the saver's own one does not inherit what it might do."""
    path, chown = tmp_path / "a", getattr(os, "fchown", None)

    def refused(fd, user, group):
        if group != -1:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        chown(fd, user, group)

    monkeypatch.setattr(os, "fchown", refused)
    for before, after in ((0o660, 0o600), (0o664, 0o644), (0o666, 0o666)):
        path.write_bytes(b"before")
        path.chmod(before)
        model().save(path)
        assert mode(path) == after


AS_NOBODY = """
import os, sys
import fastlstm as fl
model = fl.Linear(3, 2, rng=0)
model.save(sys.argv[2])  # whatever is imported late
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    model.save(sys.argv[1])
except OSError as error:
    sys.exit(f"{type(error).__name__} {error.filename}")
"""


@pytest.fixture
def open_folder():
    """A folder that every user of the machine may reach."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


def save_as_nobody(path, spare):
    command = [sys.executable, "-c", AS_NOBODY, path, spare]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr.strip()


@posix
def test_a_file_that_may_not_be_written_is_not_replaced(open_folder, tmp_path):
    path = open_folder / "a"
    path.write_bytes(b"before")
    if ROOT:
        os.chown(path, 65534, 65534)
    path.chmod(0o444)
    assert save_as_nobody(path, tmp_path / "b") == f"PermissionError {path}"
    assert path.read_bytes() == b"before" and os.listdir(open_folder) == ["a"]


@as_root
def test_a_file_of_another_user(open_folder, tmp_path):
    """It may be written by everybody: the new one has its mode, and the owner that the system permits."""
    path = open_folder / "a"
    path.write_bytes(b"before")
    path.chmod(0o666)
    assert save_as_nobody(path, tmp_path / "b") == ""
    assert path.read_bytes() != b"before" and mode(path) == 0o666 and os.listdir(open_folder) == ["a"]


# ---- killed, interrupted, together ------------------------------------------------------------------------------


WRITER = """
import sys, time
from fastlstm.files import write_whole

def pieces():
    yield b"x" * 10**6
    print("there", flush=True)
    time.sleep(60)

write_whole(sys.argv[1], pieces())
"""


@posix
def test_the_next_save_removes_what_a_killed_one_left(tmp_path, expected):
    path = tmp_path / "a"
    path.write_bytes(b"before")
    command = [sys.executable, "-c", WRITER]
    children = [subprocess.Popen([*command, tmp_path / name], stdout=subprocess.PIPE) for name in "aab"]
    for child in children:
        assert child.stdout.readline() == b"there\n"
    (tmp_path / ".mine.tmp").write_bytes(b"mine")
    children[0].kill()
    children[0].wait()
    assert len(os.listdir(tmp_path)) == 5 and path.read_bytes() == b"before"
    fl.GRU(2, 3).save(tmp_path / "other")
    assert len(os.listdir(tmp_path)) == 5  # one gone, `other` there: those of the living stay
    for child in children[1:]:
        child.send_signal(signal.SIGTERM)
        child.wait()
    model().save(path)
    for child in children:
        child.stdout.close()
    assert path.read_bytes() == expected and sorted(os.listdir(tmp_path)) == [".mine.tmp", "a", "other"]


def test_a_file_of_the_temporary_name_that_cannot_be_removed(tmp_path, expected):
    (tmp_path / ".fastlstm-0.tmp").mkdir()
    model().save(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == expected and sorted(os.listdir(tmp_path)) == [".fastlstm-0.tmp", "a"]


@posix
def test_a_link_of_the_temporary_name_is_not_followed(tmp_path, expected):
    (tmp_path / "precious").write_bytes(b"precious")
    for n in range(16):
        os.symlink("precious", tmp_path / f".fastlstm-{n}.tmp")
    model().save(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == expected and (tmp_path / "precious").read_bytes() == b"precious"
    assert len(os.listdir(tmp_path)) == 18


def test_a_save_inside_a_save(tmp_path):
    """What a signal handler may do: it must not wait for the one it has interrupted."""
    def pieces(depth):
        yield b"%d" % depth
        if depth < 20:
            write_whole(tmp_path / "a", pieces(depth + 1))
        yield b"!"

    write_whole(tmp_path / "a", pieces(0))
    assert (tmp_path / "a").read_bytes() == b"0!" and os.listdir(tmp_path) == ["a"]


def test_threads_save_to_one_name(tmp_path):
    path, odd = tmp_path / "a", []
    models = [fl.Linear(40, 50, rng=n) for n in range(4)]
    wholes = set()
    for one in models:
        one.save(path)
        wholes.add(path.read_bytes())

    def work(one):
        for _ in range(8):
            one.save(path)
            if path.read_bytes() not in wholes:
                odd.append("torn")

    at_once([lambda one=one: work(one) for one in models])
    assert not odd and os.listdir(tmp_path) == ["a"]


@posix
def test_the_folder_is_brought_to_the_disk_after_the_name(tmp_path, monkeypatch):
    done, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append(stat.S_ISDIR(os.fstat(fd).st_mode)), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda *a: (done.append("replace"), replace(*a)))
    model().save(tmp_path / "a")
    assert done == [False, "replace", True]


@posix
@pytest.mark.parametrize("number, fails_too", [(errno.EINVAL, False), (errno.EIO, True)])
def test_a_folder_that_cannot_be_brought_to_the_disk(tmp_path, monkeypatch, number, fails_too):
    fsync = os.fsync

    def odd(fd):
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", odd)
    if fails_too:
        with pytest.raises(OSError, match=os.strerror(number)):
            model().save(tmp_path / "a")
    else:
        model().save(tmp_path / "a")
    assert os.listdir(tmp_path) == ["a"]


def test_where_the_system_has_no_locks(tmp_path, expected, monkeypatch):
    """An old temporary file is abandoned, a young one is not."""
    from fastlstm import whole_files

    monkeypatch.setattr(whole_files, "fcntl", None)
    old, young = tmp_path / ".fastlstm-0.tmp", tmp_path / ".fastlstm-1.tmp"
    for path in (old, young):
        path.write_bytes(b"x")
    os.utime(old, (1, 1))
    model().save(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == expected
    assert sorted(os.listdir(tmp_path)) == [young.name, "a"]


# ---- everything that writes -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Arguments of `fastlstm run`, without the output."""
    folder = tmp_path_factory.mktemp("run")
    path, _ = save_model(folder)
    np.save(folder / "x.npy", np.zeros((400, 3), np.float32))
    return ["run", path, folder / "x.npy", "-o"]


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
from fastlstm.commands import main
sys.exit(main(sys.argv[1:]))
"""


@posix
@pytest.mark.parametrize("ending", [".npy", ".npz", ".csv"])
def test_run_writes_all_or_nothing(run, tmp_path, ending):
    """No file may have more than 500 bytes: as if the disk were full."""
    path = tmp_path / f"y{ending}"
    path.write_bytes(b"an earlier result")
    command = [sys.executable, "-c", LIMITED, *map(str, run), str(path)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 1 and "cannot write" in found.stderr and found.stderr.count("\n") == 1
    assert path.read_bytes() == b"an earlier result" and os.listdir(tmp_path) == [path.name]


@posix
@pytest.mark.parametrize("ending", [".npy", ".npz", ".csv"])
def test_what_run_writes_goes_into_a_pipe(run, tmp_path, ending):
    os.mkfifo(tmp_path / f"y{ending}")
    thread, found = read_in_background(tmp_path / f"y{ending}")
    assert commands.main([*map(str, run), str(tmp_path / f"y{ending}")]) == 0
    thread.join(20)
    assert commands.main([*map(str, run), str(tmp_path / f"file{ending}")]) == 0
    assert found[0] == (tmp_path / f"file{ending}").read_bytes()


def test_run_refuses_a_directory(run, tmp_path):
    (tmp_path / "y.npy").mkdir()
    assert "it is a directory" in fails(*run, tmp_path / "y.npy")
    assert os.listdir(tmp_path / "y.npy") == []
