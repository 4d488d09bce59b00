"""The shape of the house: what is packaged, who may import whom, how long a file may be, how light `lcpu` starts."""

from __future__ import annotations

import ast
import importlib.metadata
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it to these Pythons

import lcpu

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS = ("cli", "convert", "engine", "kernels", "models")
MODULES = [ROOT / "__init__.py", ROOT / "__main__.py", *sorted(p for f in FOLDERS for p in (ROOT / f).rglob("*.py"))]
MAX_LINES = 400
DATA = "models/recipe/plots_"  # texts for training, not code
UNPACKAGED = {"lcpu.models.recipe"}  # it stays in the repository: who only runs lcpu does not need it

# Folder -> the folders that it must not import.
FORBIDDEN = {
    "kernels": {"cli", "convert", "engine", "models"},
    "engine": {"cli", "convert"},
    "convert": {"cli"},
    "models": {"cli"},
}


def package_of(path: Path) -> list[str]:
    """The package that relative imports of a module start from: ["lcpu", "engine"] for engine/llm.py."""
    return ["lcpu", *path.relative_to(ROOT).parent.parts]


def imported(path: Path) -> Iterator[str]:
    """The full names of all that a module imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = package_of(path)
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def test_packages_are_those_of_the_tree():
    folders = {path.parent for path in MODULES}
    for folder in folders:
        assert (folder / "__init__.py").exists(), f"{folder} has modules and no __init__.py"
    names = {".".join(["lcpu", *folder.relative_to(ROOT).parts]) for folder in folders}
    assert sorted(PYPROJECT["tool"]["setuptools"]["packages"]) == sorted(names - UNPACKAGED)


def test_no_other_python_folder_at_the_root():
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert folders == set(FOLDERS)


def test_no_other_python_file_at_the_root():
    assert {path.name for path in ROOT.glob("*.py")} == {"__init__.py", "__main__.py"}


def test_one_version():
    assert PYPROJECT["project"]["version"] == lcpu.__version__


def test_the_script_is_installed():
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="lcpu")
    assert script.value == PYPROJECT["project"]["scripts"]["lcpu"]


def test_the_reader_of_imports_sees_every_kind(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "engine" / "tokenizer").mkdir(parents=True)
    module = tmp_path / "engine" / "tokenizer" / "spm.py"
    module.write_text(
        "import os.path\nfrom . import a\nfrom .b import c\nfrom ...kernels.team import Team\n"
        "def f():\n    from ... import cli\n    from lcpu.convert import g\n"
    )
    assert set(imported(module)) == {
        "os.path",
        "lcpu.engine.tokenizer.a",
        "lcpu.engine.tokenizer.b.c",
        "lcpu.kernels.team.Team",
        "lcpu.cli",
        "lcpu.convert.g",
    }


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_imports_go_one_way(folder):
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in MODULES
        if path.relative_to(ROOT).parts[0] == folder
        for name in imported(path)
        if name.startswith("lcpu.") and name.split(".")[1] in FORBIDDEN[folder]
    ]
    assert wrong == []


def test_packages_do_not_import_what_is_not_packaged():
    recipe = ROOT / "models" / "recipe"
    wrong = [f"{path.relative_to(ROOT)} imports {name}" for path in MODULES if not path.is_relative_to(recipe)
             for name in imported(path) if name.startswith(tuple(UNPACKAGED))]
    assert wrong == []


@pytest.mark.parametrize("name", [path.relative_to(ROOT).as_posix() for path in MODULES])
def test_files_stay_readable(name):
    lines = len((ROOT / name).read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES or name.startswith(DATA)


@pytest.mark.parametrize(
    "code", ["import lcpu", "import lcpu.cli.main", "from lcpu.cli.main import exit_code as e; e(['run', '-h'])"]
)
def test_starts_light(code, tmp_path):
    script = f"{code}\nimport sys; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    loaded = done.stderr.split()
    assert "lcpu" in loaded
    heavy = tuple("numba numpy llvmlite rich jinja2 tokenizers huggingface_hub lcpu.engine lcpu.convert".split())
    assert [name for name in loaded if name.startswith(heavy)] == []


def test_public_names():
    from lcpu import LLM, LcpuError
    from lcpu.engine.llm import LLM as engine_llm
    from lcpu.kernels.errors import LcpuError as kernels_error

    assert LLM is engine_llm
    assert LcpuError is kernels_error
    assert set(lcpu.__all__) == {"LLM", "LcpuError", "__version__"}
    with pytest.raises(AttributeError, match="'lcpu' has no attribute 'nothing'"):
        _ = lcpu.nothing
