"""`--data` of `verify` and `fold`: files of arrays and folders of images, read in pieces."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasfold
from kerasfold.equivalence import stored
from kerasfold.equivalence.data import Given
from kerasfold.equivalence.stored import dump, read_data
from kerasfold.read.weights import as_dtype
from zoo.commands import assert_fails


def classifier(channels: int = 3, dtype: str = "float32") -> keras.Model:
    i = keras.Input((8, 6, channels), dtype=dtype, name="image")
    x = keras.layers.Rescaling(1 / 255)(i)
    return keras.Model(i, keras.layers.Dense(2)(keras.layers.Flatten()(x)))


def images(folder: Path, size: tuple[int, int] = (8, 6)) -> dict[str, np.ndarray]:
    """Five images in two folders, of four formats, each of one random colour per quarter."""
    kinds = {"cat/a.png": "png", "cat/b.bmp": "png", "dog/a.gif": "png", "dog/b.jpg": "jpeg"}
    rng, made = np.random.default_rng(0), {}
    for name, kind in kinds.items():
        image = np.kron(rng.integers(0, 256, (2, 2, 3)), np.ones((size[0] // 2, size[1] // 2, 1)))
        made[name] = image.astype("uint8")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        encode = {"png": tf.io.encode_png, "jpeg": tf.io.encode_jpeg}[kind]
        (folder / name).write_bytes(encode(made[name]).numpy())
    return made


def read(model: keras.Model, path: Path, *args: Any) -> tuple[Any, np.ndarray | None]:
    given = Given(model, iter(read_data(str(path), model, *args)))
    pairs = [(batch, given.labels()) for batch in given]
    x = keras.tree.map_structure(lambda *parts: np.concatenate(parts), *(x for x, _ in pairs))
    return x, np.concatenate([y[0] for _, y in pairs]) if pairs[0][1] else None


@pytest.mark.parametrize("form", ["npy", "npz", "compressed", "fortran", "labelled", "named"])
def test_arrays_are_read_as_they_were_stored(tmp_path: Path, form: str) -> None:
    x = np.random.default_rng(0).normal(size=(70, 8, 6, 3)).astype("float32")
    y = np.arange(70) % 2
    path = tmp_path / ("x.npy" if form == "npy" else "x.npz")
    {
        "npy": lambda: np.save(path, x),
        "npz": lambda: np.savez(path, x),
        "compressed": lambda: np.savez_compressed(path, anything=x),
        "fortran": lambda: np.savez(path, np.asfortranarray(x)),
        "labelled": lambda: np.savez(path, y=y, image=x),
        "named": lambda: np.savez(path, kinds=y, image=x),
    }[form]()
    read_x, read_y = read(classifier(), path, "kinds" if form == "named" else None)
    np.testing.assert_array_equal(read_x, x)
    if form in ("labelled", "named"):
        np.testing.assert_array_equal(read_y, y)
    else:
        assert read_y is None


def test_what_cannot_be_read_in_pieces_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "x.npz", np.asfortranarray(np.zeros((70, 8, 6, 3))))
    monkeypatch.setattr(stored, "WHOLE", 2**10)
    with pytest.raises(kerasfold.FoldError, match=r"80,640 bytes .*: store np.ascontiguousarray"):
        list(read_data(str(tmp_path / "x.npz"), classifier()))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_memory_does_not_grow_with_the_data(tmp_path: Path, save: Any) -> None:
    save(tmp_path / "x.npz", np.zeros((4000, 8, 6, 3)))  # 4.6 MB
    data = read_data(str(tmp_path / "x.npz"), classifier())
    tracemalloc.start()
    assert sum(len(x) for (x,), _ in data) == 4000
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


def test_a_folder_of_images_has_classes_and_values_to_255(tmp_path: Path) -> None:
    made = images(tmp_path)
    x, y = read(classifier(), tmp_path)
    assert y is not None
    assert y.tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(x[:3], [made[name] for name in sorted(made)[:3]])
    assert np.abs(x[3] - made["dog/b.jpg"]).mean() < 20  # as far as JPEG keeps it


def test_images_are_brought_to_the_models_size_colours_and_dtype(tmp_path: Path) -> None:
    images(tmp_path, (20, 14))
    x, _ = read(classifier(1, "uint8"), tmp_path)
    assert (x.shape, x.dtype) == ((4, 8, 6, 1), "uint8")
    free = keras.Sequential([keras.Input((None, None, 3)), keras.layers.GlobalMaxPooling2D()])
    assert read(free, tmp_path, None, (5, 5, 3))[0].shape == (4, 5, 5, 3)
    with pytest.raises(kerasfold.FoldError, match=r"--input-shape tells a size that is free"):
        read_data(str(tmp_path), free)


def test_images_without_folders_have_no_labels(tmp_path: Path) -> None:
    images(tmp_path)
    x, y = read(classifier(), tmp_path / "cat")
    assert (len(x), y) == (2, None)


def test_channels_first(tmp_path: Path) -> None:
    made = images(tmp_path)
    i = keras.Input((3, 8, 6))
    first = keras.Model(i, keras.layers.GlobalMaxPooling2D(data_format="channels_first")(i))
    x, _ = read(first, tmp_path)
    np.testing.assert_array_equal(x[0], np.moveaxis(made["cat/a.png"], -1, 0))


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    images(tmp_path)
    (tmp_path / "dog" / "a.gif").write_bytes(b"GIF89a")
    with pytest.raises(kerasfold.FoldError, match=r"dog/a\.gif cannot be decoded as an image$"):
        read(classifier(), tmp_path)


def test_a_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(kerasfold.FoldError, match=r"is no folder of images \(.*No images found"):
        read_data(str(tmp_path), classifier())


def test_verify_reads_what_it_is_given(files, run, tmp_path) -> None:
    x = np.random.default_rng(0).normal(size=(5, 8, 8, 3))
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", left=np.ones((6, 4)), right=np.ones((6, 4)), y=np.arange(6) % 2)
    pair = (files["linear.keras"], files["legacy.h5"])
    code, stdout, _ = run("verify", *pair, "--data", tmp_path / "x.npy", "--json")
    assert (code, json.loads(stdout)["inputs"]) == (0, 5)
    code, stdout, _ = run("verify", *[files["two.keras"]] * 2, "--data", tmp_path / "x.npz")
    assert (code, "6 inputs" in stdout) == (0, True)


def test_a_fold_is_compared_on_what_it_is_given(files, run, tmp_path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(5, 8, 8, 3)))
    out = ("-o", tmp_path / "out.keras")
    fold = ("fold", files["linear.keras"], *out)
    code, stdout, _ = run(*fold, "--data", tmp_path / "x.npy", "--json")
    assert (code, json.loads(stdout)["equivalence"]["inputs"]) == (0, 5)
    np.save(tmp_path / "nan.npy", np.full((5, 8, 8, 3), np.nan))
    result = run(*fold, "--data", tmp_path / "nan.npy")
    assert_fails(result, 2, r"data holds no input that can be compared \(left out .* NaN .*")


def test_a_fold_is_compared_at_the_size_it_is_told(run, tmp_path) -> None:
    x = image = keras.Input((None, None, 2))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(2, 3)(x))
    x = keras.layers.Cropping2D(200)(x)
    keras.Model(image, x).save(free := tmp_path / "free.keras")
    code, stdout, _ = run("fold", free, "--input-shape", "404,405,2", "--json")
    assert (code, json.loads(stdout)["equivalence"]["verdict"]) == (0, "equivalent")
    result = run("fold", free, "--input-shape", "404,405,3", "--force")
    assert_fails(result, 2, r"input_shape=\[\(404, 405, 3\)\] does not fit the inputs .*")


@pytest.mark.parametrize("command", ["fold", "verify"])
def test_a_size_beside_arrays_which_have_theirs_is_refused(files, run, tmp_path, command) -> None:
    np.save(tmp_path / "x.npy", np.zeros((5, 8, 8, 3)))
    models = [files["linear.keras"]] * (2 if command == "verify" else 1)
    result = run(command, *models, "--data", tmp_path / "x.npy", "--input-shape", "9,9,3")
    told = r"argument --input-shape: for random inputs and for images, not with the arrays of \S+"
    assert_fails(result, 2, rf"{told} \(see kerasfold {command} --help\)")


@pytest.mark.parametrize("option", [("--data", "x.npy"), ("--input-shape", "8,8,3")])
def test_what_is_not_compared_needs_no_inputs(files, run, option) -> None:
    result = run("fold", files["linear.keras"], "--no-verify", *option)
    told = rf"argument {option[0]}: for comparing, which --no-verify skips \(see kerasfold fold .*"
    assert_fails(result, 2, told)


def test_a_truncated_archive_is_an_error(files, run, tmp_path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, np.zeros((20, 8, 8, 3)))
    path.write_bytes(path.read_bytes().replace(b"(20, 8, 8, 3)", b"(31, 8, 8, 3)"))
    result = run("verify", files["linear.keras"], files["linear.keras"], "--data", path)
    assert_fails(result, 2, r"\S+x\.npz cannot be read \((BadZipFile|EOFError): .*\)")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--labels", "y"], r"argument --labels: only with --data \(see kerasfold verify .*"),
        (["--data", "x.npy", "--labels", "y"], r"argument --labels: names an array of an \.npz .*"),
        (["--data", "x.npz", "--labels", "z"], r"x\.npz holds no array 'z', but \['left', .*\]"),
        (["--data", "x.npy"], r"x\.npy holds one array: pass an \.npz .* \['left', 'right'\]"),
        (["--data", "."], r"\. is a folder of images, for a model of one input .*"),
        (["--data", "none"], "none does not exist"),
    ],
)
def test_data_that_cannot_be_meant(files, run, tmp_path, monkeypatch, args, message) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.ones((2, 4)))
    np.savez("x.npz", left=np.ones((2, 4)), right=np.ones((2, 4)))
    assert_fails(run("verify", files["two.keras"], files["two.keras"], *args), 2, message)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "string"])
def test_what_is_dumped_is_read_back(tmp_path: Path, dtype: str) -> None:
    a, b = keras.Input((3,), dtype=dtype, name="file"), keras.Input((3,), dtype=dtype, name="a.b-c")
    model = keras.Model([a, b], [a, b])
    values = np.array([["x", "yz", ""]] * 2) if dtype == "string" else np.arange(6).reshape(2, 3)
    x = [as_dtype(values, dtype), as_dtype(values[:, ::-1], dtype)]
    dump(dict(zip(("file", "a.b-c"), x, strict=True)), tmp_path / "x.npz")
    for back, array in zip(read(model, tmp_path / "x.npz")[0], x, strict=True):
        assert back.dtype == array.dtype
        np.testing.assert_array_equal(back, array)


def test_data_for_a_model_of_unknown_inputs(files, run, tmp_path) -> None:
    class Own(keras.Model):
        def call(self, x: Any) -> Any:
            return x

    np.save(tmp_path / "x.npy", np.ones((2, 3)))
    with pytest.raises(kerasfold.FoldError, match="'mine' of class Own has no symbolic inputs"):
        read_data(str(tmp_path / "x.npy"), Own(name="mine"))
