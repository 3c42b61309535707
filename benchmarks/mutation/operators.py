"""The mutants of a module, found by parsing its source.

Text inside f-strings, docstrings, annotations and decorators is not changed.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
_OPPOSITES = {"min": "max", "max": "min", "all": "any", "any": "all"}
_LEAVES = (ast.Return, ast.Raise, ast.Continue, ast.Break)
_BARE = (ast.Constant, ast.Name, ast.Attribute, ast.Subscript, ast.GeneratorExp)
"""Expressions that need no parentheses anywhere, or have their own."""
_WORD = re.compile(r"[a-z_]+")


@dataclass(frozen=True)
class Mutant:
    """One small change of a module.

    Attributes:
        function: Qualified name of the function or class that is changed; empty at module level.
        line: First line of the replaced text, from 1.
        mutation: The replaced text, an arrow and its replacement; numbered where it repeats.
        source: The module's source with the change.
    """

    function: str
    line: int
    mutation: str
    source: str


def mutants(source: str) -> list[Mutant]:
    """Return every mutant of a module, in the order of its syntax tree."""
    seen: Counter[tuple[str, str]] = Counter()
    found = []
    for function, node in _places(ast.parse(source), ""):
        for replacement in _replacements(node):
            old = ast.get_source_segment(source, node) or ""
            mutation = f"{_one_line(old)} -> {_one_line(replacement)}"
            seen[function, mutation] += 1
            if (times := seen[function, mutation]) > 1:
                mutation += f" (number {times})"
            changed = _replaced(source, node, replacement)
            found.append(Mutant(function, node.lineno, mutation, changed))
    return found


def _places(node: ast.AST, function: str) -> Iterator[tuple[str, ast.expr | ast.stmt]]:
    """Yield the nodes that may be replaced, each with the name of the function around it."""
    if isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom) or _is_docstring(node):
        return
    if isinstance(node, ast.expr | ast.stmt):
        yield function, node
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        function = f"{function}.{node.name}" if function else node.name
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _places(child, function)


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _replacements(node: ast.expr | ast.stmt) -> Iterator[str]:
    match node:
        case ast.If(body=[*_, last], orelse=[]) if isinstance(last, _LEAVES):
            yield "pass"
        case ast.Return(value=ast.expr() as value) if ast.unparse(value) != "None":
            yield "return None"
        case ast.Expr() | ast.AugAssign() | ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "pass"
        case ast.expr():
            for expression in _expressions(node):
                text = ast.unparse(expression)
                yield text if isinstance(expression, _BARE) else f"({text})"


def _expressions(node: ast.expr) -> Iterator[ast.expr]:
    match node:
        case ast.Compare():
            yield from _comparisons(node)
        case ast.BoolOp():
            yield from _connectives(node)
        case ast.BinOp():
            yield from _arithmetic(node)
        case ast.Constant():
            yield from _constants(node)
        case ast.Name() | ast.Attribute():
            yield from _opposites(node)
        case ast.Subscript(slice=ast.Slice()):
            yield from _slices(node)
        case ast.GeneratorExp() | ast.ListComp() | ast.DictComp() | ast.SetComp():
            yield from _unfiltered(node)
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield operand
        case ast.IfExp(body=body, orelse=orelse):
            yield from (body, orelse)


def _comparisons(node: ast.Compare) -> Iterator[ast.expr]:
    for place, op in enumerate(node.ops):
        for other in _COMPARISONS[type(op)]:
            ops = [*node.ops[:place], other(), *node.ops[place + 1 :]]
            yield ast.Compare(node.left, ops, node.comparators)


def _connectives(node: ast.BoolOp) -> Iterator[ast.expr]:
    yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    for place in range(len(node.values)):
        kept = node.values[:place] + node.values[place + 1 :]
        yield kept[0] if len(kept) == 1 else ast.BoolOp(node.op, kept)


def _arithmetic(node: ast.BinOp) -> Iterator[ast.expr]:
    text = any(isinstance(part, ast.JoinedStr) or _is_text(part) for part in ast.walk(node))
    if type(node.op) in _ARITHMETIC and not text:
        yield ast.BinOp(node.left, _ARITHMETIC[type(node.op)](), node.right)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _constants(node: ast.Constant) -> Iterator[ast.expr]:
    """Flip truth values, add one to numbers (double small fractions), and misspell words."""
    match node.value:
        case bool(value):
            yield ast.Constant(not value)
        case int(value):
            yield ast.Constant(value + 1)
        case float(value):
            yield ast.Constant(value * 2 if value else 1.0)
        case str(value) if _WORD.fullmatch(value):
            yield ast.Constant(value + "_x")


def _opposites(node: ast.Name | ast.Attribute) -> Iterator[ast.expr]:
    match node:
        case ast.Name(id=name) if name in _OPPOSITES:
            yield ast.Name(_OPPOSITES[name])
        case ast.Attribute(attr=name, value=value) if name in _OPPOSITES:
            yield ast.Attribute(value, _OPPOSITES[name])


def _slices(node: ast.Subscript) -> Iterator[ast.expr]:
    part = node.slice
    assert isinstance(part, ast.Slice)
    if part.lower:
        yield ast.Subscript(node.value, ast.Slice(None, part.upper, part.step))
    if part.upper:
        yield ast.Subscript(node.value, ast.Slice(part.lower, None, part.step))


def _unfiltered(
    node: ast.GeneratorExp | ast.ListComp | ast.DictComp | ast.SetComp,
) -> Iterator[ast.expr]:
    """Drop the conditions of a comprehension."""
    if any(part.ifs for part in node.generators):
        parts = [ast.comprehension(p.target, p.iter, [], p.is_async) for p in node.generators]
        if isinstance(node, ast.DictComp):
            yield ast.DictComp(node.key, node.value, parts)
        else:
            yield type(node)(node.elt, parts)


def _replaced(source: str, node: ast.expr | ast.stmt, replacement: str) -> str:
    """Return the source with `node` replaced; columns count UTF-8 bytes."""
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    lines = source.encode().splitlines(keepends=True)
    before = b"".join(lines[: node.lineno - 1]) + lines[node.lineno - 1][: node.col_offset]
    after = lines[node.end_lineno - 1][node.end_col_offset :] + b"".join(lines[node.end_lineno :])
    return (before + replacement.encode() + after).decode()


def _one_line(text: str) -> str:
    return textwrap.shorten(" ".join(text.split()), 100, placeholder=" ...")
