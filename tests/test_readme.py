"""Every block of the README runs, and says the truth."""

import re
import shlex
from pathlib import Path

import keras
import numpy as np
import pytest

import kerasfold
from kerasfold import cli
from kerasfold.lift.rules import RULES

L = keras.layers
ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def test_every_block_is_of_a_kind_that_runs():
    assert {kind for kind, _ in BLOCKS} == {"python", "sh"}


def test_the_two_setup_commands_stand_on_lines_of_their_own():
    commands = [line for line in README.splitlines() if line.startswith("pip install")]
    assert commands == [
        "pip install . && kerasfold fold examples/digits.keras -o folded.keras",
        'pip install ".[test]" && pytest -n 2 --dist worksteal',
    ]


@pytest.mark.filterwarnings("ignore:In the future:FutureWarning")  # tf2onnx asks NumPy for more
def test_python_blocks_run_one_after_another(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    known = set(RULES)
    names: dict = {"__name__": "readme"}
    try:
        for kind, source in BLOCKS:
            if kind == "python":
                exec(compile(source, "README.md", "exec"), names)
    finally:
        for kind in set(RULES) - known:
            del RULES[kind]
    assert "block" in capsys.readouterr().out


def test_the_picture_is_that_of_the_first_fold(capsys):
    keras.utils.clear_session()
    names: dict = {"__name__": "readme"}
    first = next(source for kind, source in BLOCKS if kind == "python")
    exec(compile(first, "README.md", "exec"), names)
    (drawn,) = re.findall(r"!\[.*?\]\((.*?)\)", README)
    labels = re.compile(r"<text.*?</text>")
    picture = names["folded"].fold_report.svg()
    assert labels.findall((ROOT / drawn).read_text()) == labels.findall(picture)


def test_shell_blocks_run(tmp_path, monkeypatch, capsys):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    lines = [line for kind, source in BLOCKS if kind == "sh" for line in source.splitlines()]
    runs = [line.split("&&")[-1].strip() for line in lines if "kerasfold" in line]
    assert len(runs) == 5
    for line in runs:
        words = shlex.split(line.replace("--deployments 6", "--deployments 1"))  # in less time
        assert cli.main(words[1:]) == 0, line
    assert (tmp_path / "folded.keras").exists()


def rows() -> list[tuple[str, str, str]]:
    """Of each entry of the list of layers: which, what is exact, what is refused."""
    entries = [" ".join(entry.split()) for entry in (kerasfold.lift.__doc__ or "").split("\n\n")]
    found = [re.fullmatch(r"(.*?) exact: (.*?)(?: refused: (.*))?", entry) for entry in entries]
    return [(entry[1], entry[2], entry[3] or "") for entry in found if entry is not None]


def names(cell: str) -> list[str]:
    """'Conv1D/2D, Dense' as Conv1D, Conv2D, Dense."""
    found = []
    for word in cell.split(", "):
        stem, ranks, end = re.fullmatch(r"(\w*?)((?:\dD/)*(?:\dD)?)(\w*)", word).groups()
        found += [stem + rank + end for rank in ranks.split("/")]
    return found


def test_the_table_has_every_rule_once_and_nothing_else():
    *layer_rows, (ops, *_) = rows()
    in_table = [name for cells in layer_rows for name in names(cells[0])]
    rules = {kind.__name__ for kind in RULES if isinstance(kind, type)}
    assert sorted(in_table) == sorted(rules)
    in_table = ops.removeprefix("`keras.ops`: ").removesuffix(", and the operators").split(", ")
    rules = {kind.__name__ for kind in RULES if not isinstance(kind, type)}
    assert sorted(in_table) == sorted(rules)


def conv(x, **settings):
    return L.Conv2D(4, 3, **settings)(x)


IMAGE, FREE = (12, 13, 3), (None, None, 3)
REFUSED = {
    "merging a strided 'same' layer with more than pointwise ones at an unknown image size": (
        FREE,
        lambda x: conv(conv(x, strides=2, padding="same")),
        "padding='same' depends on the image size",
    ),
    "merging it with a stride before it that shares a divisor with its own": (
        IMAGE,
        lambda x: L.Conv2DTranspose(2, 3, strides=2)(conv(x, strides=2)),
        "a stride of 2 meets an upsampling by 2",
    ),
    "other interpolations": (
        IMAGE,
        lambda x: L.UpSampling2D(2, interpolation="bicubic")(conv(x)),
        "its interpolation 'bicubic'",
    ),
    "merging it with a stride before it that shares a divisor with its factor": (
        IMAGE,
        lambda x: L.UpSampling2D(4)(conv(x, strides=2)),
        "a stride of 2 meets an upsampling by 4",
    ),
    "a CenterCrop of smaller images": (
        IMAGE,
        lambda x: L.CenterCrop(16, 16)(conv(x)),
        "it resizes images that are smaller than what it crops",
    ),
    "other sizes": (
        IMAGE,
        lambda x: L.Resizing(18, 20)(conv(x)),
        "are no whole number of times smaller than (18, 20)",
    ),
    "smoothing, or keeping the aspect ratio": (
        IMAGE,
        lambda x: L.Resizing(20, 22, antialias=True)(conv(x)),
        "it smooths, crops or pads what it resizes",
    ),
    "maxima of several samples": (
        IMAGE,
        lambda x: conv(L.MaxPooling2D(2)(x)),
        "a maximum of several samples is not linear",
    ),
    "images that it does not divide": (
        IMAGE,
        lambda x: L.AdaptiveAveragePooling2D(5)(conv(x)),
        "do not divide into",
    ),
    "images of unknown size": (
        FREE,
        lambda x: L.Dense(2)(L.GlobalAveragePooling2D()(conv(x))),
        "at an unknown image size",
    ),
    "windows along what is no axis before": (
        IMAGE,
        lambda x: conv(L.Reshape((10, 44, 1))(conv(x))),
        "windows along what is no axis before a rearrangement",
    ),
    "another axis": (
        IMAGE,
        lambda x: L.Concatenate(axis=1)([L.ReLU()(x), x]),
        "it works along axis",
    ),
    "values that are not finite": (
        IMAGE,
        lambda x: L.Rescaling(float("inf"))(x),
        "is not finite",
    ),
    "sums that broadcast": (
        IMAGE,
        lambda x: L.Add()([conv(x), L.Dense(4)(L.GlobalAveragePooling2D(keepdims=True)(x))]),
        "a sum that broadcasts",
    ),
    "merging groups of channels that read several parts": (
        IMAGE,
        lambda x: L.Conv2D(4, 1, groups=2)(
            L.Concatenate()([L.Conv2D(2, 3)(L.ReLU()(x)), L.Conv2D(4, 3)(x)])
        ),
        "a concatenation whose parts share groups of channels",
    ),
    "activations other than linear": (
        IMAGE,
        lambda x: L.Activation("tanh")(conv(x)),
        "its activation 'tanh' is not linear",
    ),
    "a crop to sizes other than the image's": (
        IMAGE,
        lambda x: L.ReLU()(L.RandomCrop(8, 8)(x)),
        "it declares images of 8 x 8",
    ),
    "merging what first subtracts numbers more than 256 times as large as what is left (years, of "
    "which weights would lose digits)": (
        (5,),
        lambda x: L.Dense(3)(L.Normalization(mean=[2015.0] * 5, variance=[16.0] * 5)(x)),
        "large numbers are added or subtracted first",
    ),
    "products and quotients of tensors": (
        IMAGE,
        lambda x: x * L.ReLU()(x),
        "a product of two tensors is not linear",
    ),
    "rearrangements of the batch": (
        IMAGE,
        lambda x: keras.ops.transpose(conv(x), (1, 0, 2, 3)),
        "it moves the batch",
    ),
    "constants that broadcast an image": (
        (12, 1, 3),
        lambda x: x + np.ones((13, 3), "float32"),
        "a constant of shape (1, 13, 3) on images of (12, 1, 3)",
    ),
    "padding with other values": (
        IMAGE,
        lambda x: keras.ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=2.0),
        "it pads with other than zeros",
    ),
    "indices other than slices and numbers": (
        IMAGE,
        lambda x: x[:, None],
        "it indexes with other than slices and numbers",
    ),
    "other equations": (
        (5, 4),
        lambda x: L.ReLU()(L.EinsumDense("btc,tcd->btd", (5, 3))(x)),
        "'btc,tcd->btd' is no matrix on axes of the image",
    ),
    "activations in a Pipeline": (
        IMAGE,
        lambda x: L.Pipeline([L.Dense(3, activation="relu")])(x),
        "the activation of Dense in it is not linear",
    ),
    "an unknown number of steps of images": (
        (None, 12, 13, 3),
        lambda x: L.TimeDistributed(L.Conv2D(4, 3))(x),
        "it (TimeDistributed) is called on an unknown number of steps",
    ),
    "flips and lists along other axes": (
        IMAGE,
        lambda x: keras.ops.flip(conv(x), axis=1),
        "it works along axis 1, which is not the channels",
    ),
    "other products of tensors and constants": (
        IMAGE,
        lambda x: keras.ops.einsum("bhwc,hcd->bhwd", x, np.ones((12, 3, 3), "float32")),
        "is no matrix on axes of the image",
    ),
}


def test_the_table_has_every_refusal():
    in_table = {phrase for *_, cell in rows() for phrase in cell.split("; ") if phrase}
    assert in_table == set(REFUSED)


@pytest.mark.parametrize(("shape", "block", "reason"), REFUSED.values(), ids=REFUSED)
def test_refused_as_the_table_says(shape, block, reason):
    inputs = keras.Input(shape)
    report = kerasfold.explain(keras.Model(inputs, block(inputs)), objective="layers")
    reasons = [row.reason for row in (*report.kept, *report.apart)]
    assert any(reason in told for told in reasons), reasons
