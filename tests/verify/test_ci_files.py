"""The files in examples/ci/ do what they are for, as far as that goes without their servers."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from kerasfold.cli import main

ROOT = Path(__file__).parents[2]
CI = ROOT / "examples" / "ci"


@pytest.fixture
def models(files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a model and its fold, in `models/`."""
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("model.keras", "model.folded.keras"):
        shutil.copy(files["linear.keras"], folder / name)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def hook() -> dict[str, Any]:
    (repo,) = yaml.safe_load((CI / ".pre-commit-config.yaml").read_text())["repos"]
    (hook,) = repo["hooks"]
    return hook


@pytest.fixture
def script(hook: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module that the hook runs, its command in this process."""
    python, path = shlex.split(hook["entry"])
    assert python == "python"
    spec = importlib.util.spec_from_file_location("verify_pairs", CI / Path(path).name)
    assert spec is not None is not spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "verify", lambda a, b: main(["verify", str(a), str(b)]))
    return module


def test_the_job_passes_and_keeps_its_report(models: Path) -> None:
    job = yaml.safe_load((CI / "kerasfold.yml").read_text())["jobs"]["equivalence"]
    install, *commands = [step["run"] for step in job["steps"] if "run" in step]
    assert install == "pip install kerasfold"
    (models.parent / "kerasfold").write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -m kerasfold "$@"\n'
    )
    (models.parent / "kerasfold").chmod(0o755)
    path = f"{models.parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, **job["env"], "PATH": path, "PYTHONPATH": str(ROOT)}
    for command in commands:  # as the servers run them
        shell = ["bash", "--noprofile", "--norc", "-e", "-c", command]
        subprocess.run(shell, env=environment, check=True, capture_output=True)
    (kept,) = [step["with"]["path"] for step in job["steps"] if "upload" in step.get("uses", "")]
    suite = ElementTree.parse(kept).getroot()
    assert suite.find(".//testcase") is not None
    assert suite.find(".//failure") is None


def test_the_hook_is_asked_about_models_alone(hook: dict[str, Any], models: Path) -> None:
    asked = re.compile(hook["files"])
    assert all(asked.search(str(file)) for file in models.iterdir())
    assert not asked.search("models/model.keras.md")


def test_the_hook_knows_folds_by_the_name_that_they_are_given(
    script: Any, models: Path, run: Any
) -> None:
    code, stdout, _ = run("fold", models / "model.keras", "-q")
    written = Path(stdout.split("written to ")[1].strip())
    assert (code, written.exists()) == (0, True)
    (models / "model.folded.keras").unlink()
    for changed in (written, models / "model.keras"):
        assert script.pairs([str(changed)]) == [(models / "model.keras", written)]


@pytest.mark.parametrize("changed", ["model.keras", "model.folded.keras"])
def test_the_hook_lets_pairs_pass_that_are_equivalent(
    changed: str, script: Any, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main([f"models/{changed}", "other/model.keras"]) == 0
    assert re.fullmatch(
        r"models/model.folded.keras: equivalent .*", capsys.readouterr().out, re.DOTALL
    )


def test_the_hook_stops_a_pair_that_differs(models: Path, files: dict[str, str]) -> None:
    shutil.copy(files["other.keras"], models / "other.folded.keras")
    shutil.copy(files["linear.keras"], models / "other.keras")
    command = [sys.executable, str(CI / "verify_pairs.py"), "models/other.keras"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert all(line.startswith("kerasfold: ") for line in done.stderr.splitlines())
    assert done.stdout.startswith("models/other.folded.keras: NOT equivalent")
