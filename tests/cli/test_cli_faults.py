"""Signals, full disks, odd files as input and output, and files that unpack to far too much."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from kerasfold.errors import UnusableError
from kerasfold.files import save
from kerasfold.replacing import replacing
from kerasfold.stopping import raised, said_of
from zoo.commands import assert_fails, conv_bn, predictions

MANY = 90 << 20  # bytes, more than a small file may unpack to
ZOO = Path(__file__).parents[1] / "zoo"


# What ends a process


@pytest.fixture(autouse=True)
def _usual_handlers():
    """What started this process may have ignored signals, as `nohup` does."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    usual |= {signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_kills_leave_whole_files_and_no_litter(tmp_path):
    command = [sys.executable, ZOO / "writers.py", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_is_one_line(files, run, tmp_path, monkeypatch, name):
    number, before = signal.Signals[name], signal.getsignal(signal.Signals[name])

    def stop(*_: object) -> None:  # as Python does; the kernel may find pytest's signal stack small
        signal.getsignal(number)(number, None)

    monkeypatch.setattr("kerasfold.files._check_written", stop)
    (tmp_path / "out.keras").write_text("before")
    result = run("fold", files["linear.keras"], "-o", tmp_path / "out.keras")
    assert_fails(result, 128 + number, f"stopped by {name}")
    assert [path.name for path in tmp_path.iterdir()] == ["out.keras"]
    assert (tmp_path / "out.keras").read_text() == "before"
    assert signal.getsignal(number) is before


def test_an_interrupt_is_one_whoever_takes_it_for_an_error(tmp_path):
    def write() -> None:
        with replacing(tmp_path / "model") as written:
            with contextlib.suppress(KeyboardInterrupt):  # as Keras does
                signal.getsignal(signal.SIGINT)(signal.SIGINT, None)
            written.write_text("x")

    with pytest.raises(KeyboardInterrupt):
        write()
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_while_an_object_is_finalised_is_not_lost(tmp_path):
    class Finalised:
        def __init__(self, number: int) -> None:
            self.number = number

        def __del__(self) -> None:  # Python drops what is raised here
            signal.getsignal(self.number)(self.number, None)

    with pytest.raises(KeyboardInterrupt) as stop, raised():
        Finalised(signal.SIGTERM)
    assert said_of(stop.value) == ("stopped by SIGTERM", 143)
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "model") as written:
        written.write_text(str(Finalised(signal.SIGINT)))
    assert not list(tmp_path.iterdir())


def test_an_interrupt_while_modules_load_is_one_line():
    code = (
        "import os, signal\n"
        "from kerasfold.quiet import quiet\n"
        "from kerasfold.stopping import end_in_one_line\n"
        "end_in_one_line()\n"
        "with quiet():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    except:\n"  # as modules do
        "        pass\n"
    )
    alone = f"import sys; sys.path.insert(0, {str(ZOO)!r}); import writers\n"
    done = subprocess.run([sys.executable, "-c", alone + code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "kerasfold: error: stopped by SIGINT\n")


def test_only_what_the_dead_left_is_swept(tmp_path):
    with replacing(tmp_path / "model") as written:
        written.write_text("x")
        living = written.parent.name
    place, process, start = living.removeprefix(".kerasfold-").split("-")[:3]
    kept = [
        living,
        f".kerasfold-{place}-1-0-0a1b2c3d.d",  # not a name of ours
        f".kerasfold-00000000-999999999-{start}-0a1b2c3d",  # of another machine
        ".kerasfold-notes",
    ]
    left = [
        f".kerasfold-{place}-999999999-{start}-0a1b2c3d",  # no such process
        f".kerasfold-{place}-{process}-{int(start) + 1}-0a1b2c3d",  # another of that number
    ]
    for name in kept + left:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = tmp_path / f".kerasfold-{place}-999999999-{start}-ffffffff"
    link.symlink_to(elsewhere)
    with replacing(tmp_path / "model") as written:
        written.write_text("y")
    found = {path.name for path in tmp_path.iterdir()}
    assert found == {*kept, "model", "elsewhere", link.name}


# Disks


@pytest.fixture(scope="module")
def deep() -> keras.Model:
    """A model of many weights, each of which HDF5 puts in a place of its own."""
    x = y = keras.Input((32,))
    for _ in range(30):
        y = keras.layers.Dense(32)(y)
    return keras.Model(x, y)


def saved_where_little_fits(model: keras.Model, target: Path) -> int:
    """The exit code of a fork of this process that cannot write all of a model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the fork runs none of the threads, and needs none
        process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    signal.alarm(60)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    try:
        save(model, target, {})
    except UnusableError as error:
        said = str(error).startswith(f"cannot write {target} (OSError: [Errno 27] File too large")
        os._exit(0 if said else 1)
    os._exit(2)


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".hdf5"])
def test_a_full_disk_is_one_line(deep, tmp_path, suffix):
    target = tmp_path / f"out{suffix}"
    target.write_text("before")
    assert saved_where_little_fits(deep, target) == 0
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
    assert target.read_text() == "before"


def test_a_folder_that_cannot_be_written_to_is_refused_before_the_fold(
    files, run, tmp_path, monkeypatch
):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    monkeypatch.setattr("kerasfold.commands.fold.load", None)
    result = run("fold", files["linear.keras"], "-o", tmp_path / "out.keras")
    assert_fails(result, 2, rf"output folder {tmp_path} cannot be written to")


# Names and kinds of files


@pytest.fixture
def odd(tmp_path):
    """Files that are none, by what they are; each with the end of a model's name."""
    os.mkfifo(tmp_path / "pipe.keras")
    (tmp_path / "device.keras").symlink_to("/dev/zero")
    (tmp_path / "circle.keras").symlink_to(tmp_path / "circle.keras")
    (tmp_path / "file").write_text("x")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(tmp_path)  # names of sockets are short
        server.bind("socket.keras")
        os.chdir(here)
    return tmp_path


NO_FILE = r"\S+ is a pipe, a socket or a device, not a file"
ODD = [
    ("pipe.keras", NO_FILE, NO_FILE),
    ("socket.keras", NO_FILE, NO_FILE),
    ("device.keras", NO_FILE, NO_FILE),
    ("circle.keras", *2 * [r"\S+ cannot be a file: Too many levels of symbolic links"]),
    (f"{300 * 'x'}.keras", *2 * [r"\S+ cannot be a file: File name too long"]),
    ("null\0.keras", *2 * [r"\S+ cannot be a file: .*null byte"]),
    ("file/a.keras", r"\S+ does not exist", r"folder \S+file does not exist"),
]


@pytest.mark.parametrize(("name", "as_input", "as_output"), ODD, ids=[x[0][:6] for x in ODD])
def test_odd_files_are_neither_read_nor_replaced(files, run, odd, name, as_input, as_output):
    before = {path.name: path.lstat().st_mode for path in odd.iterdir()}
    assert_fails(run("explain", odd / name), 2, as_input)
    result = run("fold", files["linear.keras"], "-o", odd / name)
    assert_fails(result, 2, f"(output )?{as_output}")
    assert {path.name: path.lstat().st_mode for path in odd.iterdir()} == before


def test_a_file_that_may_not_be_read_is_said_to_be_one(run, tmp_path, monkeypatch):
    for suffix in (".keras", ".h5"):
        path = tmp_path / f"model{suffix}"
        conv_bn().save(path)
        with monkeypatch.context() as patch:

            def refuse(name, mode="r", *args, **kwargs):
                raise PermissionError(13, "Permission denied", str(name))

            patch.setattr("builtins.open", refuse)
            result = run("explain", path)
        assert_fails(result, 2, r"\S+ cannot be read \(PermissionError: .*Permission denied.*\)")


def test_the_output_may_be_the_input_by_any_name_where_that_is_asked_for(run, tmp_path):
    path = tmp_path / "model.keras"
    conv_bn().save(path)
    before, expected = path.read_bytes(), predictions(path)
    os.link(path, tmp_path / "same.keras")
    (tmp_path / "link.keras").symlink_to(path)
    for name in ("model.keras", "same.keras", "link.keras"):
        result = run("fold", path, "-o", tmp_path / name)
        assert_fails(result, 2, rf"\S+{name} is the model to fold: --force writes over it")
    assert run("fold", path, "-o", tmp_path / "same.keras", "--force")[0] == 0
    assert path.read_bytes() == before
    assert run("fold", path, "-o", tmp_path / "link.keras", "--force")[0] == 0
    assert (tmp_path / "link.keras").is_symlink()
    assert path.read_bytes() != before
    np.testing.assert_allclose(predictions(path), expected, atol=1e-5)


def test_names_with_lines_and_signs_are_one_line(files, run, tmp_path):
    folder = tmp_path / "50 %s\n{0}"
    folder.mkdir()
    result = run("explain", folder / "no\nmodel %d.keras")
    assert_fails(result, 2, r"\S+50 %s \{0\}/no model %d\.keras does not exist")
    assert run("fold", files["linear.keras"], "-o", folder / "%n\n.keras")[0] == 0
    assert [path.name for path in folder.iterdir()] == ["%n\n.keras"]


# Files that unpack to far more than they take


def rewritten(path: Path, change: Callable[[zipfile.ZipFile], None], *without: str) -> Path:
    """An archive compressed, without some members, and changed."""
    with zipfile.ZipFile(path) as archive:
        contents = {n: archive.read(n) for n in archive.namelist() if n not in without}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
        change(archive)
    return path


def with_datasets(file: h5py.File, how: str) -> None:
    if how == "compressed":
        file.create_dataset("x", data=np.zeros(MANY // 4, "float32"), compression="gzip")
    else:  # declared, and never written
        file.create_dataset("x", (10**12,), "float32")


def bomb(path: Path, how: str) -> None:
    """A model file that unpacks to a lot, in one of the ways there are."""
    if path.suffix == ".h5":
        with h5py.File(path, "a") as file:
            with_datasets(file, how)
        return
    weights = path.with_name("weights")
    if how in ("compressed", "declared"):
        with h5py.File(weights, "w") as file:
            with_datasets(file, how)
    if how == "arrays":
        np.savez_compressed(weights.with_suffix(".npz"), x=np.zeros(MANY, "uint8"))
    changes: dict[str, tuple[Callable[[zipfile.ZipFile], object], str]] = {
        "compressed": (lambda a: a.write(weights, "model.weights.h5"), "model.weights.h5"),
        "declared": (lambda a: a.write(weights, "model.weights.h5"), "model.weights.h5"),
        "arrays": (
            lambda a: a.write(weights.with_suffix(".npz"), "model.weights.npz"),
            "model.weights.h5",
        ),
        "zeros": (lambda a: a.writestr("model.weights.h5", bytes(MANY)), "model.weights.h5"),
        "asset": (lambda a: a.writestr("assets/x", bytes(MANY)), ""),
        "config": (lambda a: a.writestr("config.json", MANY // 4 * b" "), "config.json"),
    }
    change, without = changes[how]
    rewritten(path, lambda archive: change(archive) and None, without)


BOMBS = [
    *[("m.keras", how) for how in ("compressed", "declared", "arrays", "zeros", "asset", "config")],
    *[("m.h5", how) for how in ("compressed", "declared")],
]


@pytest.mark.parametrize(("name", "how"), BOMBS, ids=[f"{n} {how}" for n, how in BOMBS])
def test_what_unpacks_to_far_too_much_is_refused(run, tmp_path, monkeypatch, name, how):
    path = tmp_path / name
    conv_bn().save(path)
    bomb(path, how)
    monkeypatch.setattr(keras.saving, "load_model", None)  # nothing gets that far
    result = run("explain", path)
    assert_fails(result, 2, r"\S+, [\d.]+ MB, would unpack to [\d,]+ MB, which is not tried: .*")


def test_an_archive_that_is_merely_compressed_is_read(run, tmp_path):
    path = tmp_path / "m.keras"
    conv_bn().save(path)
    rewritten(path, lambda archive: None)
    assert run("explain", path)[0] == 0


def test_an_archive_compressed_otherwise_is_refused(run, tmp_path):
    path = tmp_path / "m.keras"
    conv_bn().save(path)
    rewritten(path, lambda archive: archive.writestr("assets/x", b"", zipfile.ZIP_BZIP2))
    assert_fails(run("explain", path), 2, r"\S+ is compressed in a way that Keras and NumPy .*")


@pytest.mark.parametrize("member", ["../x", "/x", "assets/..\\..\\x"])
def test_an_archive_that_unpacks_elsewhere_is_refused(run, tmp_path, member):
    path = tmp_path / "m.keras"
    conv_bn().save(path)
    rewritten(path, lambda archive: archive.writestr(member, b"x"))
    assert_fails(run("explain", path), 2, r"\S+ would unpack outside its folder: .*x'")


def test_pickled_arrays_are_refused(files, run, tmp_path):
    np.savez(tmp_path / "x.npz", image=np.array([print], dtype=object))
    result = run(
        "verify", files["linear.keras"], files["folded.keras"], "--data", tmp_path / "x.npz"
    )
    assert_fails(result, 2, r"\S+ cannot be read .*pickle.*")
