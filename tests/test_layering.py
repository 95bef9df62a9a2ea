"""The layers of the package: a module imports, at run time, only from the layers below its own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "futurechain"

LAYERS = (
    ("interrupts",),
    ("errors", "failure", "clock"),
    ("core",),
    ("future",),
    ("executors",),
    ("flow", "viewing"),
    ("pipeline",),
    ("defer", "testing", "dask"),
    ("__init__",),
    ("demo",),
    ("cli",),
    ("__main__",),
)
"""The floors, by folder or module: each imports only what is below it, or of its own folder."""
CORE = (
    ("scheduler", "thread_state", "observers", "callback_threads"),
    ("handlers",),
    ("state", "unobserved"),
    ("flatten",),
    ("loop",),
    ("cancel", "stdlib", "attaching"),
    ("delivery", "asked"),
    ("fast", "lost"),
    ("__init__",),
)
"""The floors inside of the core."""
LAYER_OF = {name: number for number, names in enumerate(LAYERS) for name in names}
CORE_LAYER_OF = {name: number for number, names in enumerate(CORE) for name in names}
SOURCES = sorted(PACKAGE.rglob("*.py"))


def part_of(source: Path) -> str:
    """The name in `LAYERS` of a source file: its module, or the subpackage that holds it."""
    return source.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_parts(tree: ast.AST) -> Iterator[str]:
    """The parts of the package that `tree` imports when it is run."""
    for node in run_time_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from parts_named(alias.name)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute, so that the layers can be read"
            yield from parts_imported_from(node)


def run_time_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Everything below `node`, without what only type checkers read."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        yield child
        yield from run_time_nodes(child)


def parts_imported_from(node: ast.ImportFrom) -> Iterator[str]:
    if node.module != PACKAGE.name:
        yield from parts_named(node.module or "")
        return
    for alias in node.names:  # `from futurechain import x`: the module x, or a name of the package itself
        yield alias.name if alias.name in LAYER_OF else "__init__"


def parts_named(module: str) -> Iterator[str]:
    first, *rest = module.split(".")
    if first == PACKAGE.name:
        yield rest[0] if rest else "__init__"


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: str(source.relative_to(PACKAGE)))
def test_imports_go_down(source: Path) -> None:
    """A module has a layer, and every module of the package it imports at run time is in a lower one."""
    part = part_of(source)
    assert part in LAYER_OF, f"give {part} a place in LAYERS"

    sideways_or_up = {
        name
        for name in imported_parts(ast.parse(source.read_text("utf-8")))
        if name != part and LAYER_OF.get(name, len(LAYERS)) >= LAYER_OF[part]
    }

    assert sideways_or_up == set()


@pytest.mark.parametrize("source", sorted((PACKAGE / "core").glob("*.py")), ids=lambda source: source.stem)
def test_imports_go_down_in_the_core(source: Path) -> None:
    """The same holds for the modules of the core."""
    imported = {
        (node.module or "").split(".")[-1]
        for node in run_time_nodes(ast.parse(source.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("futurechain.core.")
    }

    assert {name for name in imported if CORE_LAYER_OF[name] >= CORE_LAYER_OF[source.stem]} == set()


def test_a_name_has_one_layer() -> None:
    """Each name stands in the tables once."""
    assert len(LAYER_OF) == sum(map(len, LAYERS))
    assert len(CORE_LAYER_OF) == sum(map(len, CORE))


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: str(source.relative_to(PACKAGE)))
def test_the_core_alone_touches_the_dependents(source: Path) -> None:
    """Outside of the core nobody reads or changes a list of dependents, or writes an outcome."""
    if part_of(source) == "core":
        return
    touched = [
        f"line {node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(ast.parse(source.read_text("utf-8")))
        if isinstance(node, ast.Attribute)
        and (node.attr == "_dependents" or (node.attr == "_outcome" and isinstance(node.ctx, ast.Store)))
    ]

    assert touched == []


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("import futurechain.core.state", ["core"]),
        ("from futurechain import clock, succeed", ["clock", "__init__"]),
        ("from futurechain.future import Future", ["future"]),
        ("def f():\n    from futurechain.future import Future", ["future"]),
        ("if TYPE_CHECKING:\n    from futurechain.future import Future", []),
        ("import threading", []),
    ],
)
def test_what_counts_as_an_import(statement: str, expected: list[str]) -> None:
    """Late imports count, and imports for type checkers do not."""
    assert list(imported_parts(ast.parse(statement))) == expected
