"""The architectures that the engine runs, by GGUF's `general.architecture`. A new one is a file and a line here."""

from collections.abc import Callable

from ...kernels.errors import LcpuError
from ..builder import Builder, Rows
from . import llama

ARCHITECTURES: dict[str, Callable[[Builder], Rows]] = {
    "llama": llama.build,
}


def builder_of(architecture: str, source: object) -> Callable[[Builder], Rows]:
    """Raises LcpuError for an architecture that is not in the table."""
    if architecture not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise LcpuError(f"{source}: architecture '{architecture}' is not supported; lcpu runs {known}")
    return ARCHITECTURES[architecture]
