"""Compiled kernels: Python functions over int64 operands that Numba turns into C functions, cached on disk.

A kernel is compiled when its address is first asked for, so a block format that no model uses costs nothing.
"""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from types import FunctionType
from typing import Any

import numba
import platformdirs
from numba import config, types
from numba.core.caching import FunctionCache
from numba.core.ccallback import CFunc

from .isa import active
from .simd import load_operands

OPERANDS = 16  # of an instruction, that go to a kernel as arguments; where there are more, the address of all goes
_OPTIONS = {"nopython": True, "error_model": "numpy", "boundscheck": False, "_nrt": False}
_listener: Callable[[str], None] | None = None


class Kernel:
    """A C function of int64 operands. `operands` are their names, after those that the runner itself supplies."""

    def __init__(self, function: Callable[..., Any], result: Any, supplied: int) -> None:
        self.name = function.__name__
        parameters = list(inspect.signature(function).parameters)
        self.operands = tuple(parameters[supplied:])
        self.in_memory = len(self.operands) > OPERANDS  # it takes the address of its operands
        self.function = _taking_address(function, len(self.operands)) if self.in_memory else function
        self._signature = ((types.int64,) * (supplied + 1 if self.in_memory else len(parameters)), result)

    @cached_property
    def compiled(self) -> CFunc:
        native = _AnnouncedCFunc(self.function, self._signature, locals={}, options=dict(_OPTIONS))
        with _cache_at(cache_directory()) as usable:
            if usable:
                native.enable_caching()
        native.compile()
        return native

    @property
    def address(self) -> int:
        address = self.compiled.address
        assert address is not None  # compile() has set it
        return address

    @cached_property
    def call(self) -> Callable[..., int]:
        """The kernel as a Python callable; it runs without the GIL."""
        return self.compiled.ctypes

    def __repr__(self) -> str:
        return f"<kernel {self.name}({', '.join(self.operands)})>"


def kernel(function: Callable[..., None]) -> Kernel:
    """An instruction of a program: function(work, thread, threads, *operands), the first three from the team."""
    return Kernel(function, types.void, supplied=3)


def native(function: Callable[..., Any]) -> Kernel:
    """A function of int64 that Python calls and that returns an int64."""
    return Kernel(function, types.int64, supplied=0)


class _Hole:
    """The value of a hole before `bind` fills it."""


def hole() -> Any:
    """Declares a name that templates of a module use and `bind` fills in: `load = hole()`, at module level."""
    return _Hole()


@dataclass(frozen=True)
class Template:
    """A function with holes. `bind` fills them and so makes a function that can be compiled."""

    function: Callable[..., Any]
    holes: frozenset[str]


def template(function: Callable[..., Any]) -> Template:
    """Decorates a function with holes. Raises TypeError if it uses none that its module declares."""
    used = {name for name in function.__code__.co_names if isinstance(function.__globals__.get(name), _Hole)}
    if not used:
        raise TypeError(f"{function.__name__}() uses no hole of its module: it is not a template")
    return Template(function, frozenset(used))


def bind(template: Template, name: str, **fillings: Any) -> Callable[..., Any]:
    """The template's function with its holes filled, called `name`. Raises TypeError unless exactly these are given.

    This is how one template serves many block formats. Numba resolves globals when it compiles, and caches by qualified
    name: so this is a copy of the function with other globals and a name of its own. Numba can cache neither closures
    nor functions that are passed as arguments.
    """
    function = template.function
    if fillings.keys() != template.holes:
        raise TypeError(f"{name}: the holes of {function.__name__}() are {', '.join(sorted(template.holes))}; "
                        f"given were {', '.join(sorted(fillings)) or 'none'}")
    copy = FunctionType(function.__code__, {**function.__globals__, **fillings}, name)
    copy.__qualname__ = name
    return copy


_DEVICE_OPTIONS = {k: v for k, v in _OPTIONS.items() if k != "nopython"}
device = numba.njit(**_DEVICE_OPTIONS)  # a function that kernels call
inlined = numba.njit(forceinline=True, **_DEVICE_OPTIONS)  # part of a tile: a call would send vectors through memory


function = operand_count = hole()


@template
def _with_operands(work, thread, threads, operands):
    function(work, thread, threads, *load_operands(operands, operand_count))


def _taking_address(function: Callable[..., Any], count: int) -> Callable[..., Any]:
    """The same kernel, but with the address of its `count` operands in the place of them."""
    taking = bind(_with_operands, function.__qualname__, function=device(function), operand_count=count)
    # Numba caches by file and name: those of the kernel.
    taking.__code__ = taking.__code__.replace(co_filename=function.__code__.co_filename)
    taking.__module__ = function.__module__
    return taking


class _KernelCache(FunctionCache):
    def load_overload(self, sig: Any, target_context: Any) -> Any:
        # Numba's own fills its registries first, which takes half a second and only compiling needs.
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)


class _AnnouncedCFunc(CFunc):
    def enable_caching(self) -> None:
        self._cache = _KernelCache(self.__wrapped__)

    def _compile_uncached(self) -> Any:
        if _listener:
            _listener(self.__name__)
        return super()._compile_uncached()  # type: ignore[misc]  # Numba's stubs leave it out


@contextmanager
def announcing(listener: Callable[[str], None] | None) -> Iterator[None]:
    """Within, listener(name) is called before a kernel is compiled for lack of a cached one."""
    global _listener
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before


@cache
def cache_directory() -> Path:
    """Where compiled kernels are kept: one folder for each state of the sources, Numba version and instruction set.

    Numba itself does not notice when a function that a kernel calls has changed; the folder's name does.
    """
    root = os.environ.get("LCPU_CACHE_DIR") or platformdirs.user_cache_dir("lcpu", appauthor=False)
    digest = hashlib.sha256(f"{numba.__version__} {config.CPU_NAME} {config.CPU_FEATURES}".encode())
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    return Path(root) / f"kernels-{active().name}-{digest.hexdigest()[:16]}"


@contextmanager
def _cache_at(directory: Path) -> Iterator[bool]:
    """Point Numba at our cache directory; False where it cannot be written, and then kernels compile at each start."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        usable = os.access(directory, os.W_OK | os.X_OK)
    except OSError:
        usable = False
    before, config.CACHE_DIR = config.CACHE_DIR, str(directory)
    try:
        yield usable
    finally:
        config.CACHE_DIR = before


def address_of(array: Any) -> int:
    """The address of a NumPy array's first element."""
    return array.ctypes.data
