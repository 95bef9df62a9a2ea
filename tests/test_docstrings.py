"""The docstrings that users read: each shows an example, and each example does what it says."""

from __future__ import annotations

import asyncio
import concurrent.futures
import doctest
import inspect
import itertools
import os
import pydoc
import re
import sys
import textwrap
import time

import pytest

import futurechain
from futurechain import defer, errors, testing
from futurechain.executors.inline import InlineExecutor
from futurechain.executors.limit import LimitedExecutor
from futurechain.executors.wrapped import WrappedExecutor

MODULES = {
    futurechain: [InlineExecutor, LimitedExecutor, WrappedExecutor],
    defer: [],
    errors: [],
    testing: [],
}
"""The modules that users import from, and classes without a public name, whose objects users hold."""
NAMES = {
    name: getattr(module, name) for module in (testing, errors, futurechain) for name in module.__all__
} | {module.__name__: module for module in (asyncio, concurrent, itertools, os, sys, time)}
"""What every example finds, besides the names of its own module and two pools."""


def documented():
    """Everything of ours that ``help`` explains, once: its name, its docstring, and the module it is found in."""
    found = {}
    for module, hidden in MODULES.items():
        for thing in [getattr(module, name) for name in module.__all__] + hidden:
            if inspect.isroutine(thing):
                found.setdefault(thing, module)
            for cls in inspect.getmro(thing) if inspect.isclass(thing) else ():
                for one in public_parts(cls):
                    found.setdefault(one, module)
    return [(f"{module.__name__}.{name_of(one)}", one.__doc__, module) for one, module in found.items()]


def public_parts(cls):
    """The class, if it is ours and users see its name, and its public methods and properties."""
    if not cls.__module__.startswith("futurechain"):
        return
    if any(cls.__name__ in module.__all__ or cls in hidden for module, hidden in MODULES.items()):
        yield cls
    for name, member in vars(cls).items():
        if not name.startswith("_") and (inspect.isroutine(member) or isinstance(member, property)):
            yield member


def name_of(thing):
    return thing.fget.__qualname__ if isinstance(thing, property) else thing.__qualname__


DOCUMENTED = documented()


@pytest.mark.parametrize(("name", "text", "module"), DOCUMENTED, ids=[name for name, *_ in DOCUMENTED])
def test_examples_are_true(name, text, module, pool, processes, tmp_path, monkeypatch):
    """Every public docstring has an example, which prints what it shows."""
    own = {name: getattr(module, name) for name in module.__all__}
    names = {**NAMES, **own, "pool": pool, "threads": pool, "processes": processes}
    if "tenacity." in text:
        names["tenacity"] = pytest.importorskip("tenacity")
    monkeypatch.chdir(tmp_path)
    told = []

    example = doctest.DocTestParser().get_doctest(inspect.cleandoc(text), names, name, None, 0)
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=told.append)

    assert example.examples
    assert "".join(told) == ""


def test_help_opens_with_what_users_need():
    """`help(futurechain)`: one line, an example, and the names to begin with, which exist; then all the rest."""
    opening = pydoc.plain(pydoc.render_doc(futurechain)).partition("PACKAGE CONTENTS")[0]
    names = re.findall(r"(?<!`)`([\w.]+)`(?!`)", opening)

    assert "futurechain - Chaining for" in opening
    assert opening.index("from futurechain import") < opening.index("What users need first")
    assert {*names} <= {*futurechain.__all__}
    assert {"Future", "ThreadPoolExecutor", "ProcessPoolExecutor", "gather", "limit", "Pipeline"} <= {*names}


def test_the_example_of_the_package_runs(capsys):
    """With two functions and some data."""
    example = textwrap.dedent(re.search(r"::\n\n((?:    .*\n|\n)+)", inspect.getdoc(futurechain))[1])
    data = {"fetch": str.upper, "parse": str.split, "default": str, "url": "a b", "urls": ["c", "d e"]}

    exec(example, data)

    assert capsys.readouterr().out == "['A', 'B']\n('C', 'D E')\n['C']\n['D', 'E']\n"
