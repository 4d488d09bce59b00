"""The JSON files of a checkpoint, read with care: they come from anyone."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..kernels.errors import LcpuError


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises LcpuError if it cannot be read or is not an object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LcpuError(f"{path}: no such file: this is not a Hugging Face model, or not all of it") from None
    except OSError as error:
        raise LcpuError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise LcpuError(f"{path}: is not JSON ({error}): download it again") from None
    if not isinstance(content, dict):
        raise LcpuError(f"{path}: holds {type(content).__name__}, not an object: download it again")
    return content


def read_json_if_there(path: Path) -> dict[str, Any]:
    """The object in a JSON file that a checkpoint may lack: empty then."""
    return read_json(path) if path.exists() else {}


_WAY_OUT = "download the checkpoint again, or take another"


@dataclass(frozen=True)
class Config:
    """A config.json: a null is as good as nothing. Methods raise LcpuError for a value of the wrong kind."""

    path: Path
    values: Mapping[str, Any]

    def error(self, name: str, cause: str) -> LcpuError:
        return LcpuError(f"{self.path}: {name} {cause}")

    def get(self, name: str) -> Any:
        return self.values.get(name)

    def section(self, name: str) -> Config:
        """An object inside: an empty one if there is none."""
        value = self.get(name)
        if value is not None and not isinstance(value, dict):
            raise self.error(name, f"is {type(value).__name__}, not an object: {_WAY_OUT}")
        return Config(self.path, value or {})

    def count(self, name: str, default: int | None = None, *, most: int = 2**31 - 1) -> int:
        """A whole number from 1 to `most`. Without a default it must be there."""
        value = default if self.get(name) is None else self.get(name)
        if value is None:
            raise self.error(name, f"is missing: {_WAY_OUT}")
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise self.error(name, f"is {value!r:.80}, not a whole number from 1 to {most}: {_WAY_OUT}")
        return value

    def real(self, name: str, default: float | None = None) -> float:
        """A positive number. Without a default it must be there."""
        value = default if self.get(name) is None else self.get(name)
        if value is None:
            raise self.error(name, f"is missing: {_WAY_OUT}")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not (0 < value < math.inf):
            raise self.error(name, f"is {value!r:.80}, not a positive number: {_WAY_OUT}")
        return float(value)

    def layer_kinds(self, kinds: Mapping[str, bool]) -> list[bool] | None:
        """What "layer_types" says of each layer, by a table of what there may be; None if it is not there."""
        layers, found = self.count("num_hidden_layers"), self.get("layer_types")
        if found is None:
            return None
        if isinstance(found, list) and len(found) == layers and all(kind in kinds for kind in found):
            return [kinds[kind] for kind in found]
        raise self.error("layer_types", f"is {str(found)[:80]}; lcpu converts a list of {layers} layers, each "
                         f"{' or '.join(kinds)}")

    def flag(self, name: str, default: bool = False) -> bool:
        value = default if self.get(name) is None else self.get(name)
        if not isinstance(value, bool):
            raise self.error(name, f"is {value!r:.80}, not true or false: {_WAY_OUT}")
        return value
