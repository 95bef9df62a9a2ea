"""What is built from this tree, and what tools find in it."""

from __future__ import annotations

import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

import futurechain

ROOT = Path(__file__).parents[1]
IGNORED = shutil.ignore_patterns(".git", ".venv*", ".*cache*", ".hypothesis", "__pycache__", "dist", "build")


def build(folder):
    """Build both packages from a copy of the tree in `folder`; their files."""
    hatchling = pytest.importorskip("hatchling.build")
    tree, out = folder / "tree", folder / "out"
    shutil.copytree(ROOT, tree, ignore=IGNORED, copy_function=shutil.copyfile)
    out.mkdir()
    before = Path.cwd()
    os.chdir(tree)
    try:
        return [out / name for name in (hatchling.build_sdist(str(out)), hatchling.build_wheel(str(out)))]
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    return build(tmp_path_factory.mktemp("one"))


def test_two_builds_are_the_same(packages, tmp_path):
    """Byte for byte: when and where they were built is not in them."""
    assert [path.read_bytes() for path in build(tmp_path)] == [path.read_bytes() for path in packages]


def test_the_sdist_holds_what_its_tests_need(packages):
    """The tests, what they run, and what they read."""
    with tarfile.open(packages[0]) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {
        str(path.relative_to(ROOT))
        for folder in ("futurechain", "tests", "benchmarks")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert {"README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", ".ci/run"} | wanted <= held


def test_the_wheel_holds_the_package_alone(packages):
    """With its data, and nothing beside it."""
    with zipfile.ZipFile(packages[1]) as archive:
        names = archive.namelist()

    assert {name.split("/")[0].partition("-")[0] for name in names} == {"futurechain"}
    assert {"futurechain/py.typed", "futurechain/viewing/timeline.html"} <= {*names}
    assert any(name.startswith("futurechain/demo/poetry/poems/") for name in names)


def test_jedi_completes_the_names():
    """As IPython and editors do: each public name is offered after ``from futurechain import``."""
    jedi = pytest.importorskip("jedi")
    line = "from futurechain import "
    found = {one.name for one in jedi.Script(line, project=jedi.Project(str(ROOT))).complete(1, len(line))}

    assert {*futurechain.__all__} <= found
