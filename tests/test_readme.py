"""The README is true: its examples run and print what it says, and its commands and links lead somewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

import futurechain
from futurechain import Future, defer, errors, testing

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = [line for language, code in BLOCKS if language == "sh" for line in code.splitlines() if line]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]


def examples() -> Iterator[tuple[str, str]]:
    """Each Python block, with the text block that follows it: what it prints."""
    for (language, code), (next_language, text) in pairwise([*BLOCKS, ("", "")]):
        if language == "python":
            yield code, text if next_language == "text" else ""


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, with warnings as errors."""
    command = [sys.executable, "-W", "error", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=cwd, env=environment, check=False)


@pytest.mark.parametrize(("code", "expected"), list(examples()))
def test_examples_run(code: str, expected: str, tmp_path: Path) -> None:
    """Each Python block is a program that prints the text block after it, and nothing without one."""
    program = tmp_path / "example.py"
    program.write_text(code, "utf-8")

    done = run(str(program), cwd=tmp_path)

    assert (done.stdout, done.stderr, done.returncode) == (expected, "", 0)


CLIENTS = {
    "fastapi": """
import asyncio
import httpx

async def ask():
    async with lifespan(app), httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://it") as client:
        return await client.get("/words", params={"text": "how public like a frog"})

if __name__ == "__main__":
    print(asyncio.run(ask()).json())
""",
    "django": """
import asyncio
from django.conf import settings
from django.test import RequestFactory

settings.configure()
request = RequestFactory().get("/")
print(asyncio.run(weather(request, "Oslo")).content.decode(), weather_without_async(request, "Rome").content.decode())
""",
}
"""By the framework: what serves the block of the README that uses it, and asks for something."""
SERVED = {"fastapi": "5\n", "django": '{"report": "rain in Oslo"} {"report": "rain in Rome"}\n'}


@pytest.mark.parametrize("framework", CLIENTS)
def test_examples_of_frameworks_run(framework: str, tmp_path: Path) -> None:
    """The block of the framework, marked ``py``, serves a client of that."""
    pytest.importorskip(framework)
    pytest.importorskip("httpx")
    (code,) = [code for language, code in BLOCKS if language == "py" and f"from {framework}" in code]
    program = tmp_path / "example.py"
    program.write_text(code + CLIENTS[framework], "utf-8")

    done = run(str(program), cwd=tmp_path)

    assert (done.stdout, done.stderr, done.returncode) == (SERVED[framework], "", 0)


@pytest.mark.parametrize("subcommand", sorted(set(re.findall(r"-m futurechain (\w+)", TEXT))))
def test_subcommands_exist(subcommand: str) -> None:
    """Each ``python -m futurechain NAME`` in the text is a program that can explain itself."""
    done = run("-m", "futurechain", subcommand, "--help")

    assert (done.stderr, done.returncode) == ("", 0)
    assert subcommand in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_name_what_exists(command: str) -> None:
    """Modules that our own Python runs, files and extras in a shell command exist."""
    modules = re.findall(r"python -m ([\w.]+)", command)
    files = re.findall(r"(?<=\s)(?:\.ci|tests|benchmarks|examples)/[\w./-]+", command)
    extras = [name for names in re.findall(r"\[([\w,]+)\]", command) for name in names.split(",")]

    assert [module for module in modules if importlib.util.find_spec(module) is None] == []
    assert [file for file in files if not (ROOT / file).exists()] == []
    assert [extra for extra in extras if extra not in EXTRAS] == []


def test_links_lead_somewhere() -> None:
    """Each relative link, images included, is a file of this project or a heading of this page."""
    titles = re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    headings = [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles]
    links = [link for link in re.findall(r"\]\(([^)\s]+)", TEXT) if "://" not in link]

    assert [link for link in links if link[0] != "#" and not (ROOT / link).exists()] == []
    assert [link for link in links if link[0] == "#" and link[1:] not in headings] == []


@pytest.mark.parametrize("module", [futurechain, defer, errors, testing], ids=lambda module: module.__name__)
def test_the_reference_is_complete(module: ModuleType) -> None:
    """It has a line for each public name, and for each public method of `Future`."""
    reference = TEXT.partition("## Reference")[2].partition("## Costs")[0]
    told = {word for code in re.findall(r"`([^`]+)`", reference) for word in re.findall(r"\w+", code)}
    methods = [name for name in vars(Future) if not name.startswith("_")] if module is futurechain else []

    assert [name for name in [*module.__all__, *methods] if name not in told] == []


TASKS = [
    "Chain tasks", "Handle errors", "Pass arguments to a step", "Limit, and limit the rate", "Show progress",
    "Stream many items", "Time out and stop", "Retry", "Use it under asyncio", "Use it in FastAPI",
    "Use it in Django", "Ctrl-C and shutdown", "Silence or see failure reports", "Context variables",
]  # fmt: skip
"""What users come for."""


@pytest.mark.parametrize("task", sorted({*TASKS, *re.findall(r"^### (.*)$", TEXT, re.MULTILINE)}))
def test_each_task_has_code(task: str) -> None:
    """It has a section, with a program in it that the tests above run."""
    section = re.search(rf"^### {re.escape(task)}\n(.*?)^##", TEXT, re.MULTILINE | re.DOTALL)

    assert section is not None
    assert re.search(r"^```py(?:thon)?$", section[1], re.MULTILINE)


@pytest.mark.parametrize("start", ["Twisted", "promises", "more-executors", "joblib", "concurrent.futures by hand"])
def test_each_origin_has_a_table(start: str) -> None:
    """Who comes from elsewhere finds the names side by side."""
    section = re.search(rf"^## Coming from {re.escape(start)}\n(.*?)^## ", TEXT, re.MULTILINE | re.DOTALL)

    assert section is not None
    assert len(re.findall(r"^\| .* \| .* \|$", section[1], re.MULTILINE)) >= 10


@pytest.mark.parametrize("program", ["-m futurechain poetry", "-m pytest"])
def test_a_fresh_machine_needs_one_command(program: str) -> None:
    """The main job and the tests each have exactly one command that sets up all they need."""
    found = [command for command in COMMANDS if command.startswith("python3 -m venv") and program in command]

    assert len(found) == 1


@pytest.mark.parametrize(
    "wish", ["a deadline for a whole chain", "OpenTelemetry spans", "resource scopes", "progress from inside a worker"]
)
def test_the_limits_say_what_comes_later(wish: str) -> None:
    """What users have asked for and will not find yet."""
    limits = TEXT.partition("## Limits")[2].partition("\n## ")[0]

    assert wish in " ".join(limits.partition("* Later:")[2].split())
