"""Compiled kernels: Python functions over int64 operands that Numba turns into C functions, cached on disk.

A kernel is compiled when its address is first asked for, so a block format that no model uses costs nothing.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from queue import SimpleQueue
from types import FunctionType
from typing import Any

from .errors import LcpuError

try:
    import numba
except Exception as error:  # it reads settings at once, and does not take every value
    raise LcpuError(f"Numba cannot be imported ({type(error).__name__}: {error}): check the NUMBA_* variables of the "
                    "environment and .numba_config.yaml in the working directory, or install lcpu anew") from error
from numba import config, types
from numba.core.ccallback import CFunc
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

from .isa import active, arm_target, host_features
from .kernel_cache import KernelFile, can_keep
from .simd import load_operands

OPERANDS = 16  # of an instruction, that go to a kernel as arguments; where there are more, the address of all goes
_OPTIONS = {"nopython": True, "error_model": "numpy", "boundscheck": False, "_nrt": False}
_STACK = 16 << 20  # bytes, whatever the system allows a thread by default: LLVM's recursion is deep
_listener: Callable[[str], None] | None = None


if config.CPU_NAME is None and config.CPU_FEATURES is None:  # before Numba asks LLVM
    config.CPU_NAME, config.CPU_FEATURES = arm_target()


class Kernel:
    """A C function of int64 operands. `operands` are their names, after those that the runner itself supplies."""

    def __init__(self, function: Callable[..., Any], result: Any, supplied: int, by_rows: bool = False) -> None:
        """by_rows: as an instruction, its threads work as those of `row_kernel` do."""
        self.name, self.by_rows = function.__name__, by_rows
        parameters = list(inspect.signature(function).parameters)
        self.operands = tuple(parameters[supplied:])
        self.in_memory = len(self.operands) > OPERANDS  # it takes the address of its operands
        self.function = _taking_address(function, len(self.operands)) if self.in_memory else function
        self._signature = ((types.int64,) * (supplied + 1 if self.in_memory else len(parameters)), result)

    @cached_property
    def compiled(self) -> CFunc:
        check_processor()
        native = _Native(self.function, self._signature, locals={}, options=dict(_OPTIONS))
        if not native.is_kept():
            can_keep()  # its warning comes before the long wait
            if _listener:
                _listener(self.name)
        _interruptibly(native.compile)
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


def row_kernel(function: Callable[..., None]) -> Kernel:
    """An instruction whose thread t reads and writes nothing but rows t, t + threads, ... of `count` rows.

    Two of them in a row need no barrier in between: a thread goes on with its own rows.
    """
    return Kernel(function, types.void, supplied=3, by_rows=True)


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


def _decorator(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """numba.njit with some options, which does its work even under NUMBA_DISABLE_JIT."""
    decorate = numba.njit(**{k: v for k, v in _OPTIONS.items() if k != "nopython"}, **options)

    def compiled(function: Callable[..., Any]) -> Any:
        before, config.DISABLE_JIT = config.DISABLE_JIT, 0
        try:
            return decorate(function)
        finally:
            config.DISABLE_JIT = before

    return compiled


device = _decorator()  # a function that kernels call
inlined = _decorator(forceinline=True)  # part of a tile: a call would send vectors through memory
function = operand_count = hole()


@template
def _with_operands(work, thread, threads, operands):
    function(work, thread, threads, *load_operands(operands, operand_count))


def _taking_address(kernel: Callable[..., Any], count: int) -> Callable[..., Any]:
    """The same kernel, but with the address of its `count` operands in the place of them."""
    taking = bind(_with_operands, kernel.__qualname__, function=device(kernel), operand_count=count)
    taking.__code__ = taking.__code__.replace(co_filename=kernel.__code__.co_filename)  # it is cached as the kernel's
    taking.__module__ = kernel.__module__
    return taking


class _Native(CFunc):
    """A CFunc that is kept in our cache, and that Numba compiles as it does by default."""

    _sig: Any  # Numba's, which its stubs leave out

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._cache = KernelFile(self.__wrapped__)

    def is_kept(self) -> bool:
        with global_compiler_lock, _numba_defaults():
            return self._cache.is_whole(self._sig, cpu_target.target_context)

    def compile(self) -> None:
        """Load the kernel from the cache or compile it."""
        with global_compiler_lock, _numba_defaults():
            super().compile()


@contextmanager
def announcing(listener: Callable[[str], None] | None) -> Iterator[None]:
    """Within, listener(name) is called before a kernel is compiled for lack of a cached one."""
    global _listener
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before


@contextmanager
def _numba_defaults() -> Iterator[None]:
    """Within, Numba does not heed what NUMBA_* variables and .numba_config.yaml files say, but for the processor.

    Such settings (no compiling, no optimizing, bounds checks, dumps) are made for other programs.
    """
    defaults, before = _defaults(), _settings()
    vars(config).update(defaults)
    try:
        yield
    finally:
        vars(config).update(before)


@cache
def _defaults() -> dict[str, Any]:
    kept = {"NUMBA_CPU_NAME": config.CPU_NAME, "NUMBA_CPU_FEATURES": config.CPU_FEATURES,
            "NUMBA_NUM_THREADS": config.NUMBA_NUM_THREADS}
    before = _settings()
    config._env_reloader.process_environ({name: value for name, value in kept.items() if value is not None})
    defaults = _settings()
    vars(config).update(before)
    return defaults


def _settings() -> dict[str, Any]:
    return {name: value for name, value in vars(config).items() if name.isupper()}


def _interruptibly(work: Callable[[], None]) -> None:
    """Do some work of LLVM's, for which a Ctrl-C does not have to wait.

    Python answers signals in the main thread only, and drops what a handler raises within a callback from C. So the
    main thread leaves such work to another one. That goes on when the wait is interrupted, and does no harm.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    ended: SimpleQueue[BaseException | None] = SimpleQueue()

    def run() -> None:
        try:
            work()
        except BaseException as error:
            ended.put(error)
        else:
            ended.put(None)

    before = threading.stack_size(_STACK)
    try:
        thread = threading.Thread(target=run, name="kernel-compiler")
        thread.start()
    except RuntimeError:  # no more threads are allowed
        return work()
    finally:
        threading.stack_size(before)
    error = ended.get()
    thread.join()
    if error is not None:
        raise error


@cache
def check_processor() -> None:
    """Raises LcpuError if Numba is told to do without instructions that kernels name: LLVM would end the process."""
    if config.CPU_FEATURES is None:  # then Numba takes what the processor has
        return
    features = set(host_features()) if config.CPU_NAME is None else set()
    for feature in config.CPU_FEATURES.replace(" ", "").split(","):
        (features.discard if feature.startswith("-") else features.add)(feature.lstrip("+-"))
    if not active().runs_on(frozenset(features)):
        raise LcpuError("NUMBA_CPU_NAME or NUMBA_CPU_FEATURES (set in the environment or in .numba_config.yaml) leaves "
                        f"out instructions that the {active().name} kernels need: unset both")


def address_of(array: Any) -> int:
    """The address of a NumPy array's first element."""
    return array.ctypes.data
