"""A Jinja environment for templates that come from anyone: it has what `transformers` offers them, and bounds.

Jinja's own sandbox keeps a template away from the rest of the process, but lets it take any time and any memory. Here,
every turn of a loop, every call, and everything that is made is paid from a `Budget`; and what would be far larger than
its parts (a product, a replacement, a padded text) is refused before it is made.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from datetime import datetime
from functools import wraps
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

MAX_SECONDS = 10.0  # of the processor; a real template takes milliseconds
MAX_MADE = 1 << 28  # characters and items that a template may make in all, most of them to forget them again
MAX_SIZE = 1 << 24  # characters and items of one value, and characters of the text
_MAX_REPEATED = 1 << 20  # characters or items of a sequence times a number
_MAX_SLOW = 1 << 12  # characters for a filter whose time grows with their square
_MAX_INT_BITS = 4096
_SLOW_FILTERS = frozenset({"pprint", "striptags", "urlize", "wordwrap", "xmlattr"})
_PADDING = frozenset({"center", "ljust", "rjust", "zfill"})
_WIDE = re.compile(r"\d{5}|\*|:[^}]*\{")  # in a format string: a width of five digits, or one that is computed


class Budget:
    """What a template may still use. `with Budget():` makes it the one that counts."""

    def __init__(self) -> None:
        self._made = 0
        self._end = time.thread_time() + MAX_SECONDS

    def __enter__(self) -> Budget:
        self._token = _budget.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _budget.reset(self._token)

    def spend(self, size: int) -> None:
        """Raises SecurityError when characters and items, or the time, are used up."""
        self._made += size
        if self._made > MAX_MADE:
            raise SecurityError(f"it makes more than {MAX_MADE >> 20} million characters")
        if time.thread_time() > self._end:
            raise SecurityError(f"it runs longer than {MAX_SECONDS:.0f} seconds")


_budget: ContextVar[Budget | None] = ContextVar("_budget", default=None)


def environment() -> ImmutableSandboxedEnvironment:
    """The environment, with the filters and functions of transformers (utils/chat_template_utils.py)."""
    made = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols], finalize=_output)
    made.filters["tojson"] = _to_json
    made.filters |= {name: _bounded_filter(name, function) for name, function in made.filters.items()}
    del made.globals["lipsum"]
    made.globals |= {"namespace": _Namespace, "raise_exception": _raise_exception, "strftime_now": _strftime_now}
    return made


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Counting().visit(super()._parse(source, name, filename))
        return tree

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        _check_operands(operator, left, right)
        return _made(super().call_binop(context, operator, left, right))

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        if __obj in (_step, _made, _concatenated):
            return __obj(*args)
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, (str, bytes, int)):
            _check_method(owner, __obj.__name__, args, kwargs)
        return _made(super().call(__context, __obj, *args, **kwargs))


    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None

        def checked(*args: Any, **kwargs: Any) -> str:
            _check_format(value.__self__, *args, *kwargs.values())
            return wrapped(*args, **kwargs)

        return checked


class _Counting(NodeTransformer):
    """Writes calls into a template's syntax tree: at each turn of a loop or a macro, and around what makes values."""

    def _body(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        size = sum(len(data.data) for each in node.body for data in each.find_all(nodes.TemplateData))
        node.body.insert(0, nodes.ExprStmt(_call(_step, nodes.Const(size))))
        if getattr(node, "test", None) is not None:  # a loop's condition is looked at more often than its body
            node.test = nodes.And(_call(_step, nodes.Const(0)), node.test)
        return node

    visit_For = visit_Macro = visit_CallBlock = visit_Block = _body

    def _value(self, node: nodes.Node) -> nodes.Node:
        self.generic_visit(node)
        is_target = getattr(node, "ctx", "load") != "load"
        return node if is_target else _call(_made, node)

    visit_List = visit_Dict = visit_Tuple = _value

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _call(_concatenated, *node.nodes)


def _call(function: Callable[..., Any], *arguments: nodes.Node) -> nodes.Node:
    name = nodes.ImportedName(f"{__name__}.{function.__name__}")
    return nodes.Call(name, list(arguments), [], None, None)


def _step(size: int) -> bool:
    _spend(1 + size)
    return True


def _spend(size: int) -> None:
    if budget := _budget.get():
        budget.spend(size)


def _output(value: Any) -> Any:
    """What a template writes: counted, since a macro or a block can keep it as a value."""
    _spend(1 + _length(value))
    return value


def _made(value: Any) -> Any:
    """The value, which a template has just made. Raises SecurityError if it is too large, or too much in all."""
    _spend(1 + _length(value))
    if _expanded(value) > MAX_SIZE:
        raise SecurityError(f"it makes a value of more than {MAX_SIZE} characters")
    return value


def _concatenated(*values: Any) -> str:
    return str(_made("".join(str(value) for value in values)))


def _length(value: Any) -> int:
    return len(value) if isinstance(value, (str, bytes, list, tuple, dict)) else 0


def _expanded(value: Any) -> int:
    """The characters and items of a value and of all in it, each counted as often as it is there, up to MAX_SIZE.

    A list that holds another one twice, which holds another one twice ..., is small, and its text without end.
    """
    size, waiting = 0, [value]
    while waiting and size <= MAX_SIZE:
        item = waiting.pop()
        size += 1 + _length(item)
        if isinstance(item, (list, tuple)):
            waiting.extend(item)
        elif isinstance(item, dict):
            waiting.extend(item.keys())
            waiting.extend(item.values())
    return size


def _check_operands(operator: str, left: Any, right: Any) -> None:
    if operator == "**" and (abs(left) > 1 << 16 or abs(right) > 64):
        raise SecurityError("a power is too large")
    if operator == "*":
        for sequence, count in ((left, right), (right, left)):
            if isinstance(sequence, (str, bytes, list, tuple)) and isinstance(count, int):
                _refuse_if(_expanded(sequence) * count > _MAX_REPEATED)
        if isinstance(left, int) and isinstance(right, int):
            _refuse_if(left.bit_length() + right.bit_length() > _MAX_INT_BITS)
    if operator == "+" and isinstance(left, (str, bytes, list, tuple)):
        _refuse_if(_length(left) + _length(right) > MAX_SIZE)
    if operator == "%" and isinstance(left, (str, bytes)):
        _check_format(left, right)


def _check_format(text: str | bytes, *values: Any) -> None:
    """A format string may name each value many times."""
    pattern = text if isinstance(text, str) else text.decode("latin-1")
    fields = pattern.count("%") + pattern.count("{")
    _refuse_if(bool(_WIDE.search(pattern)) or len(text) + fields * _expanded(values) > MAX_SIZE)


def _check_method(owner: Any, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Refuses calls of a text's or a number's method that make far more than they get."""
    values = [*args, *kwargs.values()]
    numbers = [value for value in values if isinstance(value, int)]
    _refuse_if(any(abs(number) > _MAX_REPEATED for number in numbers))
    if name == "replace" and len(args) > 1:
        old, new = args[:2]
        _refuse_if(len(owner) + (len(owner) + 1 if not old else owner.count(old)) * len(new) > MAX_SIZE)
    elif name == "join":
        for value in values:
            _check_joined(owner, value)
    elif name == "expandtabs":
        _refuse_if(len(owner) * max([8, *numbers]) > MAX_SIZE)
    elif name == "translate":
        _refuse_if(len(owner) * sum(map(_expanded, values)) > MAX_SIZE)
    elif name in ("format", "format_map"):
        _check_format(owner, values)


def _check_joined(separator: Any, items: Any) -> None:
    if isinstance(items, (list, tuple, str, bytes, dict)):
        _refuse_if(len(items) * _length(separator) + _expanded(items) > MAX_SIZE)


def _bounded_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The filter, which checks what it gets and counts what it makes."""

    @wraps(function)  # with the marks that tell Jinja what the filter wants to know
    def bounded(*args: Any, **kwargs: Any) -> Any:
        skipped = 1 if hasattr(function, "jinja_pass_arg") else 0  # such a filter gets the context first
        before, value, rest = args[:skipped], args[skipped], args[skipped + 1 :]
        if isinstance(value, Iterator):
            value = _taken(value)
        _check_filter(name, value, [*rest, *kwargs.values()])
        return _made(function(*before, value, *rest, **kwargs))

    return bounded


def _taken(items: Iterable[Any]) -> list[Any]:
    taken = []
    for item in items:
        _step(0)
        taken.append(item)
    return taken


def _check_filter(name: str, value: Any, arguments: list[Any]) -> None:
    numbers = [argument for argument in arguments if isinstance(argument, int)]
    _refuse_if(any(abs(number) > _MAX_REPEATED for number in numbers))
    _spend(1 + _length(value))
    if name in _SLOW_FILTERS:
        _refuse_if(sum(map(_expanded, [value, *arguments])) > _MAX_SLOW)
    elif name == "replace" and len(arguments) > 1:
        _check_method(str(value), "replace", (str(arguments[0]), str(arguments[1])), {})
    elif name == "indent":
        widest = max([4, *numbers, *map(_length, arguments)])
        _refuse_if((str(value).count("\n") + 1) * widest > MAX_SIZE)
    elif name == "join":
        for separator in [*arguments[:1], ""]:
            _check_joined(separator, value)
    elif name == "format":
        _check_format(str(value), arguments)
    elif name == "sum" and isinstance(value, (list, tuple)):
        _spend(len(value) * sum(map(_length, [*value, *arguments])))  # a sum of lists copies the first again and again


def _refuse_if(too_large: bool) -> None:
    if too_large:
        raise SecurityError("a repeated value is too long")


class _Namespace(Namespace):
    """Jinja's, whose text is not all that it holds: that could hold each other."""

    def __repr__(self) -> str:
        return "namespace"


class _Generation(Extension):
    """The block `{% generation %}`, which marks what a model is trained on. Here, it is just its content."""

    tags = {"generation"}  # noqa: RUF012  (as Jinja declares it)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON: Jinja's own filter writes it for HTML."""
    encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    pieces = []
    for piece in encoder.iterencode(value):  # with an indent, it may write far more than the value holds
        _spend(1 + len(piece))
        pieces.append(piece)
    return "".join(pieces)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)
