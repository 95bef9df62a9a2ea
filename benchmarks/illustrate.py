"""``python -m benchmarks.illustrate``: make the pictures that the README shows, from real chains.

The simulator's picture and the chain's are SVG; the timeline is a screenshot of its page, for which Chromium must be
installed. (The chart of growth has a command of its own, `benchmarks.growth`.)
"""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from futurechain import Future, ThreadPoolExecutor, gather, render
from futurechain.demo import simulator
from futurechain.demo.poetry import client

HERE = Path(__file__).parent / "pictures"
PAIRS = "return good fail bad\nfail ugly passthru\npassthru return mended\n"


def parse(text: str) -> int:
    """Stand for some work, which fails for one of the pages."""
    if "2" in text:
        raise ValueError(text)
    return len(text)


def skip(_: ValueError) -> int:
    """Count a bad page as empty."""
    return 0


def publish(sizes: tuple[int, ...]) -> int:
    """Stand for the end of the work."""
    return sum(sizes)


def draw_simulation() -> None:
    """Draw what three pairs of callbacks do."""
    sys.stdin, before = io.StringIO(PAIRS), sys.stdin
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            simulator.main(["--svg", str(HERE / "simulator.svg")])
    finally:
        sys.stdin = before


def draw_chain() -> None:
    """Draw a chain on its way: three pages, one of them bad and one still to come, and what is to become of them."""
    late: Future[str] = Future()
    with ThreadPoolExecutor(2, "pool") as pool:
        pages = [pool.submit(str, number).then(parse) for number in (1, 2)]
        pages[1] = pages[1].catch(ValueError, skip)
        for page in pages:
            page.result()
        report = gather(*pages, late.then(parse, on=pool)).then(publish)
        report.then(print)
        report.catch(skip).finally_(print)
        (HERE / "chain.svg").write_text(render(report, "svg"), encoding="utf-8")
        late.set_result("page 3")


def photograph_timeline() -> None:
    """Record a run of the example program, and take a picture of the page."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("the timeline needs Chromium")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "run.html")
        with contextlib.redirect_stdout(io.StringIO()):
            client.main(["--trouble", "0.25", "--delay", "0.01", "--trace", str(page)])
        command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [f"--user-data-dir={folder}", "--window-size=1100,640", f"--screenshot={HERE / 'timeline.png'}"]
        subprocess.run([*command, page.as_uri()], check=True, capture_output=True)


def main() -> int:
    """Make all of them."""
    HERE.mkdir(exist_ok=True)
    draw_simulation()
    with contextlib.redirect_stdout(io.StringIO()):
        draw_chain()
    photograph_timeline()
    print(*sorted(path.name for path in HERE.iterdir()), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
