"""What every module promises about its names: ``__all__`` is there, true, and documented."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path
from types import ModuleType

import pytest

import futurechain

MODULES = [
    "futurechain",
    *sorted(
        module.name
        for module in pkgutil.walk_packages(futurechain.__path__, "futurechain.")
        if not module.name.endswith("__main__")
    ),
]
TESTS = sorted(Path(__file__).parent.glob("test_*.py"))


@pytest.fixture(params=MODULES)
def module(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(request.param)


def test_all_is_true(module: ModuleType) -> None:
    """``__all__`` names things that exist, each once."""
    names = module.__all__

    assert [name for name in names if not hasattr(module, name)] == []
    assert len(names) == len(set(names))


def test_modules_use_what_others_export(module: ModuleType) -> None:
    """What a module imports from another one of the package is in that one's ``__all__``, or is a module itself."""
    imports = [
        (node.module, alias.name)
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "futurechain"
        for alias in node.names
    ]

    assert [
        (source, name)
        for source, name in imports
        if name not in importlib.import_module(source).__all__ and f"{source}.{name}" not in MODULES
    ] == []


def test_modules_say_what_they_are_for(module: ModuleType) -> None:
    """Every module has a docstring."""
    assert module.__doc__


def test_public_names_are_documented(module: ModuleType) -> None:
    """Every class and function in an ``__all__`` has a docstring, and so has every public method of the classes."""
    public = [getattr(module, name) for name in module.__all__]
    documented = [thing for thing in public if inspect.isclass(thing) or inspect.isroutine(thing)]
    methods = [
        member
        for thing in documented
        if inspect.isclass(thing) and thing.__module__.startswith("futurechain")
        for name, member in vars(thing).items()
        if not name.startswith("_") and inspect.isfunction(member)
    ]

    assert [thing for thing in documented + methods if not inspect.getdoc(thing)] == []


def test_import_star_gives_what_all_says() -> None:
    """``from futurechain import *`` gives the names in ``__all__`` and nothing else."""
    namespace: dict[str, object] = {}
    exec("from futurechain import *", namespace)

    assert sorted(set(namespace) - {"__builtins__"}) == sorted(futurechain.__all__)


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_every_test_says_its_rule(path: Path) -> None:
    """Each test function has a docstring: the rule that it checks."""
    tree = ast.parse(path.read_text("utf-8"))
    tests = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]

    assert [test.name for test in tests if not ast.get_docstring(test)] == []
