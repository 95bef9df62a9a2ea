"""What type checkers are to know of pipelines; checked by mypy and pyright, never run."""

from __future__ import annotations

import concurrent.futures as cf
from collections.abc import AsyncIterator
from typing import assert_type

from futurechain import Future, Pipeline, Stream, limit
from futurechain.executors.limit import LimitedExecutor


class Page:
    """What is fetched."""


def fetch(url: str) -> Page:
    return Page()


def parse(page: Page) -> dict[str, int]:
    return {}


async def score(record: dict[str, int]) -> float:
    return 1.0


def later(number: float) -> cf.Future[bytes]:
    return cf.Future()


def recover(error: ValueError) -> None: ...


def repair(error: Exception) -> Future[str]:
    return Future.succeed(str(error))


def steps(pool: cf.Executor) -> None:
    fetched = Pipeline().then(fetch, on=pool, concurrency=16, timeout=10, name="fetch")
    assert_type(fetched, Pipeline[str, Page])
    parsed = fetched.then(parse, batch=8)
    assert_type(parsed, Pipeline[str, dict[str, int]])
    assert_type(parsed.then(score), Pipeline[str, float])
    assert_type(parsed.then(score).then(later), Pipeline[str, bytes])
    assert_type(parsed.catch(ValueError, recover), Pipeline[str, dict[str, int] | None])
    assert_type(parsed.finally_(lambda: None), Pipeline[str, dict[str, int]])
    assert_type(fetched.then(parse, recover), Pipeline[str, dict[str, int] | None])

    assert_type(Pipeline().then(fetch, recover), Pipeline[str, Page | None])
    assert_type(parsed.then(score).then(later, recover), Pipeline[str, bytes | None])
    assert_type(parsed.then(score).then(later, repair), Pipeline[str, bytes | str])
    assert_type(parsed.catch(repair), Pipeline[str, dict[str, int] | str])
    assert_type(parsed.catch((ValueError, KeyError), repair), Pipeline[str, dict[str, int] | str])
    assert_type(parsed.then(None, repair), Pipeline[str, dict[str, int] | str])
    parsed.then(score, concurency=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    parsed.then(score, retry=3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]

    assert_type(parsed.submit("url"), Future[dict[str, int]])
    parsed.submit(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    parsed.then(fetch)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]


def streams(recipe: Pipeline[str, Page]) -> None:
    with recipe.map(["url"], window=10, ordered=False, total=1) as stream:
        assert_type(stream, Stream[Page])
        assert_type(next(stream), Page)
        assert_type(list(stream), list[Page])
    recipe.map([1])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]


async def in_a_loop(recipe: Pipeline[str, Page], urls: AsyncIterator[str]) -> None:
    async with recipe.map(urls) as stream:
        async for page in stream:
            assert_type(page, Page)


def limits(pool: cf.Executor) -> None:
    view = limit(pool, concurrency=4, per_second=2.5, queued=100)
    assert_type(view, LimitedExecutor)
    assert_type(view.submit(fetch, "url"), Future[Page])
