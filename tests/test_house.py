"""Where everything lives: the floors of the package, who touches Keras's insides, and sizes."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import kerasfold

ROOT = Path(__file__).parents[1] / "kerasfold"  # not what is installed
MODULES = {
    ".".join((*path.parent.relative_to(ROOT).parts, path.stem)): path
    for path in sorted(ROOT.rglob("*.py"))
    if path.stem != "__init__"
}

# From the top: a module imports from its own row, of its own room, and from rows below it.
FLOORS = (
    ("__main__",),
    ("cli", "callbacks", "pytest_plugin"),
    ("commands",),
    ("pipeline",),
    ("target",),
    ("golden", "keeping", "report", "testing", "junit"),
    ("reports",),
    ("plots",),
    ("equivalence",),
    ("measure",),
    ("plan",),
    ("emit",),
    ("compose",),
    ("forms",),
    ("cost",),
    ("rooflines",),
    ("inverse",),
    ("lift",),
    ("files",),
    ("replacing", "unpacking"),
    ("paths",),
    ("layers",),
    ("read",),
    ("algebra",),
    ("options", "bar", "quiet"),
    ("backend", "errors", "startup"),
    ("stopping", "choices", "stages", "reasons", "legible", "wide"),
)

# Private attributes of Keras, by the file that reads or sets them.
INTERNALS = {
    "backend": {"keras.src"},
    "read.copies": {"_auto_config", "_output_shape"},
    "read.graph": {"_inputs", "_inputs_struct", "_outputs_struct"},
    "read.inside": {
        "_inbound_nodes",
        "_inputs",
        "_non_trainable_variables",
        "_outputs",
        "_trainable_variables",
    },
    "read.model": {
        "keras.src",
        "_call_has_training_arg",
        "_flatten_layers",
        "_functional",
        "_inbound_nodes",
        "_inputs_struct",
        "_keras_history",
        "_keras_mask",
        "_nodes_by_depth",
    },
    "read.nodes": {"_inbound_nodes", "_keras_history"},
    "read.weights": {
        "_autocast",
        "_flatten_layers",
        "_kernel",
        "_non_trainable_variables",
        "_shape",
        "_trainable_variables",
    },
    "wide": {"keras.src"},
}


def floor_of(module: str) -> int:
    room = module.split(".")[0]
    return next(i for i, rooms in enumerate(FLOORS) if room in rooms)


def named(path: Path) -> Iterator[str]:
    """What a file imports, by full names, at any place but for types alone."""
    tree = ast.parse(path.read_text())
    typed = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for node in ast.walk(block)
    }
    own = path.parent.relative_to(ROOT.parent).parts
    for node in ast.walk(tree):
        if id(node) in typed:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            base = own[: len(own) - node.level + 1] if node.level else ()
            source = ".".join((*base, *([node.module] if node.module else [])))
            yield from (f"{source}.{alias.name}" for alias in node.names)


def imports(path: Path) -> set[str]:
    """The modules of kerasfold that a file imports."""
    wanted = [name.removeprefix("kerasfold.") for name in named(path) if "kerasfold." in name]
    return {w if w in MODULES else w.rpartition(".")[0] for w in wanted} & MODULES.keys()


def private(path: Path) -> set[str]:
    """Private attributes of what is neither `self` nor `cls`, and `keras.src`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr"):
            name = getattr(node.args[1], "value", "")
            found |= {name} if re.match("_[^_]", str(name)) else set()
        if not isinstance(node, ast.Attribute):
            continue
        own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
        if node.attr.startswith("_") and not node.attr.startswith("__") and not own:
            found.add(node.attr)
        if node.attr == "src" and isinstance(node.value, ast.Name) and node.value.id == "keras":
            found.add("keras.src")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_from_the_floors_below_it(module: str) -> None:
    for other in imports(MODULES[module]):
        same_room = other.split(".")[0] == module.split(".")[0] and "." in module
        assert floor_of(other) > floor_of(module) or same_room, f"{module} imports {other}"


def test_there_is_no_circle() -> None:
    graph = {module: imports(path) for module, path in MODULES.items()}
    while leaves := {module for module, below in graph.items() if not below}:
        graph = {module: below - leaves for module, below in graph.items() if module not in leaves}
    assert not graph, f"in a circle, or above one: {sorted(graph)}"


def test_the_floors_can_tell() -> None:
    assert "pipeline" in imports(MODULES["commands.fold"])
    assert floor_of("plan.search") < floor_of("forms.kept") < floor_of("read.graph")


def test_the_pipeline_draws_the_floors_in_their_order() -> None:
    text = ast.get_docstring(ast.parse((ROOT / "pipeline.py").read_text())) or ""
    picture = re.findall(r"^ {4}(\S.*)$", text, re.MULTILINE)
    drawn = []
    for line in picture:
        names, room = line[:39], re.match(r"(\w+)/", line)
        drawn += re.findall(r"(\w+)(?:/|\.py)", names)
        for module in names.split()[1:] if room else ():
            assert module == "..." or f"{room[1]}.{module}" in MODULES, line
    assert drawn == [room for rooms in FLOORS for room in rooms if room != "__main__"]


def test_keras_internals_are_touched_in_two_rooms_alone() -> None:
    # Of a Signal, by what makes one of several; of a named tuple; of the module os.
    ours = {"_then", "_replace", "_exit"}
    found = {module: private(path) - ours for module, path in MODULES.items()}
    assert {module: names for module, names in found.items() if names} == INTERNALS


def test_no_file_is_several_rooms() -> None:
    long = {m: n for m, p in MODULES.items() if (n := len(p.read_text().splitlines())) > 450}
    assert not long


def test_no_public_function_shares_its_name_with_a_module() -> None:
    for name in kerasfold.__all__:
        assert not isinstance(getattr(kerasfold, name), types.ModuleType)
        assert name not in MODULES, f"kerasfold.{name} is a function and a module"
        assert not (ROOT / name).is_dir(), f"kerasfold.{name} is a function and a package"


def test_type_checkers_see_the_names_that_are_loaded() -> None:
    (typed,) = (
        x
        for x in ast.parse((ROOT / "__init__.py").read_text()).body
        if isinstance(x, ast.If) and x.orelse == [] and ast.unparse(x.test) == "TYPE_CHECKING"
    )
    seen = {
        alias.name: node.module.removeprefix("kerasfold.")
        for node in typed.body
        for alias in node.names
        if alias.name != "callbacks"
    }
    assert seen == kerasfold._HOMES
    assert sorted(seen) == sorted(kerasfold.__all__)


def test_what_needs_no_keras_imports_none() -> None:
    """Forms and the algebra are about numbers: what Keras can say is handed to them."""
    for module, path in MODULES.items():
        if module.split(".")[0] in ("algebra", "forms", "plan", "cost", "compose"):
            packages = {name.split(".")[0] for name in named(path)}
            assert not packages & {"keras", "tensorflow"}, module


def test_the_algebra_needs_numpy_alone() -> None:
    program = (
        "import importlib.util, sys\n"
        "for name in ('keras', 'tensorflow', 'scipy', 'kerasfold'):\n"
        "    sys.modules[name] = None\n"
        f"path = {str(ROOT / 'algebra' / '__init__.py')!r}\n"
        "spec = importlib.util.spec_from_file_location('algebra', path)\n"
        "module = sys.modules['algebra'] = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "first, second = (module.Geometry((module.Axis(n, 3),), (2, 2)) for n in (11, 9))\n"
        "print((second @ first).taps)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout.strip() == "(5,)", result.stderr


def test_every_module_is_imported_from_a_wheel(tmp_path: Path) -> None:
    """The list of packages in pyproject.toml must find what is below the top."""
    source = tmp_path / "source"  # without what earlier builds left
    shutil.copytree(ROOT, source / "kerasfold", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT.parent / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", tmp_path, source]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "wheel")
    assert (tmp_path / "wheel" / "kerasfold" / "py.typed").exists()
    program = "\n".join(
        [
            "import importlib, sys",
            f"sys.path.insert(0, {str(tmp_path / 'wheel')!r})",
            f"for name in {sorted(MODULES)!r}:",
            "    if name != '__main__':",
            "        found = importlib.import_module(f'kerasfold.{name}').__file__",
            f"        assert found.startswith({str(tmp_path / 'wheel')!r}), found",
        ]
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
