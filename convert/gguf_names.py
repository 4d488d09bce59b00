"""What the names of GGUF files tell: which of them are models, of which type, and which belong together."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

# Which type is taken where none is asked for: the first of these that a repository has and lcpu runs. Q4_K_M is
# llama.cpp's default; then what is about as large, then what is larger and what is smaller.
ORDER = tuple("""
    Q4_K_M Q4_K_S Q4_K_L Q4_K_XL Q4_K Q4_0 Q4_1 IQ4_NL IQ4_XS MXFP4 NVFP4 Q5_K_M Q5_K_S Q5_K_L Q5_K_XL Q5_K Q5_0 Q5_1
    Q6_K Q6_K_L Q6_K_XL Q8_0 Q3_K_L Q3_K_M Q3_K_XL Q3_K_S Q3_K IQ3_M IQ3_S IQ3_XS IQ3_XXS Q2_K Q2_K_L Q2_K_XL Q2_K_S
    IQ2_M IQ2_S IQ2_XS IQ2_XXS IQ1_M IQ1_S Q2_0 Q1_0 I2_S TQ2_0 TQ1_0 BF16 F16 F32
""".split())

_TYPE = re.compile(
    r"(?<![A-Za-z0-9])((?:UD-)?(?:(?:I?Q|TQ)[1-8](?:_(?:K|NL|X{0,2}[SML]|[0-9]))+"
    r"|I2_S|(?:MX|NV)FP4|B?F16|FP16|F32|FP32))"
    r"(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_SPLIT = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE)
_NO_MODEL = re.compile(r"mmproj|imatrix|(?:^|[-_.])(?:lora|adapter|vocab|control[-_]?vector)(?:[-_.]|$)", re.IGNORECASE)
_DYNAMIC = "UD-"  # Unsloth's mixtures


@dataclass(frozen=True)
class NamedModel:
    """A model in a folder or a repository: a GGUF file, or the files of a split one in order."""

    files: tuple[str, ...]
    nbytes: int

    @property
    def type(self) -> str | None:
        """Such as "Q4_K_M", by the name of the file or else of its folder."""
        folder, _, file = self.files[0].rpartition("/")
        found = _TYPE.findall(_SPLIT.sub(r"\1", file)) or _TYPE.findall(folder)
        name = found[-1].upper() if found else None
        return {"FP16": "F16", "FP32": "F32"}.get(name, name) if name else None

    @property
    def plain_type(self) -> str | None:
        """The type without what names the way it was made: Q4_K_XL for UD-Q4_K_XL."""
        return None if self.type is None else self.type.removeprefix(_DYNAMIC)


def models_among(sizes: Mapping[str, int]) -> list[NamedModel]:
    """The models among files, which are given with their sizes. Of a split model, all files must be there."""
    models = []
    for name in sorted(sizes):
        if not name.lower().endswith(".gguf") or _NO_MODEL.search(name.rpartition("/")[2]):
            continue
        files = files_with(name, sizes)
        if files and files[0] == name:
            models.append(NamedModel(files, sum(sizes[file] for file in files)))
    return models


def files_with(name: str, names: Collection[str]) -> tuple[str, ...]:
    """All files of the model that a file belongs to, the first one first; none if one of them is not there."""
    split = _SPLIT.fullmatch(name)
    if split is None:
        return (name,)
    ending = name[-5:]
    files = tuple(f"{split[1]}-{number + 1:05}-of-{split[3]}{ending}" for number in range(int(split[3])))
    return files if all(file in names for file in files) else ()


def base_type(type_name: str) -> str:
    """The type of most matrices: Q4_K for Q4_K_M."""
    return re.sub(r"_K_\w+$", "_K", type_name.removeprefix(_DYNAMIC))
