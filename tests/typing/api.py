"""The types of the public interface, as a type checker sees them.

Checked by mypy and pyright, and never run: each function shows what a user writes, and what it is worth.
"""

from __future__ import annotations

import concurrent.futures as cf
from collections.abc import Awaitable, Generator
from typing import Any, assert_type

import tenacity

from futurechain import (
    INLINE,
    Failure,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    debug,
    defer,
    delay,
    ensure_future,
    fail,
    first,
    gather,
    inlineCallbacks,
    race,
    reduce,
    render,
    retry,
    some,
    succeed,
    trace,
    wrap_executor,
    wrap_future,
)


def fetch(url: str) -> bytes:
    return url.encode()


def parse(page: bytes) -> list[str]:
    return page.decode().split()


def save(words: list[str]) -> int:
    return len(words)


def save_later(words: list[str]) -> Future[int]:
    return succeed(len(words))


def save_elsewhere(words: list[str]) -> cf.Future[int]:
    return succeed(len(words))


async def count(words: list[str]) -> int:
    return len(words)


def join(words: list[str], separator: str, *, upper: bool = False) -> str:
    text = separator.join(words)
    return text.upper() if upper else text


def recover(error: BaseException) -> bytes:
    return str(error).encode()


def join_later(words: list[str], separator: str) -> Future[str]:
    return succeed(separator.join(words))


def save_perhaps(words: list[str]) -> int | Future[int]:
    return save_later(words) if words else 0


async def recover_slowly(error: BaseException) -> bytes:
    return str(error).encode()


def recover_later(error: BaseException) -> Future[bytes]:
    return succeed(recover(error))


def recover_perhaps(error: BaseException) -> bytes | Future[bytes]:
    return recover(error)


def rescue(failure: Failure) -> int:
    return -1 if failure.check(KeyError) else 0


def a_chain_has_the_type_of_its_last_step(pool: ThreadPoolExecutor) -> None:
    assert_type(pool.submit(fetch, "x"), Future[bytes])
    assert_type(pool.submit(fetch, "x").then(parse), Future[list[str]])
    assert_type(pool.submit(fetch, "x").then(parse).then(save).result(), int)
    pool.submit(fetch, "x").then(save)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    pool.submit(fetch, 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def a_returned_future_or_coroutine_is_flattened(words: Future[list[str]]) -> None:
    assert_type(words.then(save_later), Future[int])
    assert_type(words.then(save_elsewhere), Future[int])
    assert_type(words.then(count), Future[int])
    assert_type(words.then(save_perhaps), Future[int])
    assert_type(words.then(lambda found: found[0]), Future[str])
    assert_type(words.then(lambda found: save_later(found[1:])), Future[int])


def each_handler_is_plain_or_a_coroutine_function_or_returns_a_future(words: Future[list[str]]) -> None:
    assert_type(words.then(save, recover), Future[int | bytes])
    assert_type(words.then(save, recover_later), Future[int | bytes])
    assert_type(words.then(save, recover_slowly), Future[int | bytes])
    assert_type(words.then(save, recover_perhaps), Future[int | bytes])
    assert_type(words.then(save_later, recover), Future[int | bytes])
    assert_type(words.then(save_later, recover_later), Future[int | bytes])
    assert_type(words.then(save_elsewhere, recover_slowly), Future[int | bytes])
    assert_type(words.then(save_later, recover_perhaps), Future[int | bytes])
    assert_type(words.then(count, recover), Future[int | bytes])
    assert_type(words.then(count, recover_later), Future[int | bytes])
    assert_type(words.then(count, recover_slowly), Future[int | bytes])
    assert_type(words.then(count, recover_perhaps), Future[int | bytes])
    assert_type(words.then(save_perhaps, recover), Future[int | bytes])
    assert_type(words.then(save_perhaps, recover_later), Future[int | bytes])
    assert_type(words.then(save_perhaps, recover_slowly), Future[int | bytes])
    assert_type(words.then(save_perhaps, recover_perhaps), Future[int | bytes])
    assert_type(words.then(count, lambda error: save_later([])), Future[int])
    words.then(count, parse).then(parse)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]


def an_error_handler_may_change_the_type(page: Future[bytes]) -> None:
    assert_type(page.catch(recover), Future[bytes])
    assert_type(page.catch(KeyError, recover), Future[bytes])
    assert_type(page.catch(KeyError, lambda error: error.args), Future[bytes | tuple[Any, ...]])
    assert_type(page.catch(recover_later), Future[bytes])
    assert_type(page.catch(KeyError, recover_slowly), Future[bytes])
    assert_type(page.catch(KeyError, recover_perhaps), Future[bytes])
    assert_type(page.catch(KeyError, lambda error: error), Future[bytes | KeyError])
    assert_type(page.catch(print), Future[bytes | None])
    assert_type(page.catch(str), Future[bytes | str])
    assert_type(page.catch(None), Future[bytes])
    assert_type(page.then(on_error=recover), Future[bytes])
    assert_type(page.then(on_error=recover_later), Future[bytes])
    assert_type(page.then(None, recover_slowly), Future[bytes])
    assert_type(page.then(), Future[bytes])
    assert_type(page.catch((KeyError, OSError), lambda error: 0), Future[bytes | int])
    assert_type(page.then(parse, lambda error: 0), Future[list[str] | int])
    assert_type(page.finally_(lambda: None), Future[bytes])


def catch_wants_a_handler(page: Future[bytes]) -> None:
    page.catch(KeyError)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    page.catch(KeyError).then(len)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    caught: Future[bytes] = page.catch(KeyError)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    page.catch((KeyError, OSError))  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    del caught


def twisted_words_are_typed_too(words: Future[list[str]]) -> None:
    assert_type(words.addCallback(save), Future[int])
    assert_type(words.addCallback(None), Future[list[str]])
    assert_type(words.addCallback(join, ",", upper=True), Future[str])
    assert_type(words.addErrback(rescue), Future[list[str] | int])
    assert_type(words.addCallbacks(save, rescue), Future[Any])
    words.addCallback(join, 3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    assert_type(words.addCallback(join_later, ","), Future[str])
    assert_type(words.addCallback(count), Future[int])
    assert_type(words.addCallback(save_perhaps), Future[int])
    assert_type(words.addCallback(lambda found: found[0]), Future[str])
    assert_type(words.addCallback(save).addErrback(rescue), Future[int])
    words.addCallback(parse)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]


def a_future_is_the_standard_one(page: Future[bytes]) -> None:
    standard: cf.Future[bytes] = page
    awaitable: Awaitable[bytes] = page
    assert_type(standard.result(timeout=1.0), bytes)
    assert_type(wrap_future(standard), Future[bytes])
    assert_type(page.timeout(1.5), Future[bytes])
    assert_type(page.shield(), Future[bytes])
    for done in cf.as_completed([page]):
        assert_type(done.result(), bytes)
    del awaitable


def settled_futures() -> None:
    assert_type(succeed(3), Future[int])
    assert_type(succeed(3).result(), int)
    fail(KeyError("k")).result()


def executors_are_standard_ones(other: cf.Executor) -> None:
    executors: list[cf.Executor] = [INLINE, ThreadPoolExecutor(2), ProcessPoolExecutor(2), wrap_executor(other)]
    assert_type(executors[0].submit(fetch, "x"), cf.Future[bytes])
    assert_type(wrap_executor(other).submit(fetch, "x"), Future[bytes])
    assert_type(INLINE.submit(fetch, "x"), Future[bytes])
    assert_type(succeed(b"").then(parse, on=ThreadPoolExecutor()), Future[list[str]])


def a_failure_has_twisted_words(failure: Failure) -> None:
    assert_type(failure.value, BaseException)
    assert_type(failure.type, type[BaseException])
    assert_type(failure.getErrorMessage(), str)


def combinators_know_what_they_combine(
    page: Future[bytes], words: cf.Future[list[str]], pages: list[Future[bytes]]
) -> None:
    assert_type(gather(page, words), Future[tuple[bytes, list[str]]])
    assert_type(gather(page, words).result(), tuple[bytes, list[str]])
    number, text = succeed(1), succeed("a")
    assert_type(
        gather(page, words, number, text, page, words, number, text),
        Future[tuple[bytes, list[str], int, str, bytes, list[str], int, str]],
    )
    assert_type(
        gather(page, words, number, text, page, words, number, text, return_exceptions=True),
        Future[
            tuple[
                bytes | BaseException,
                list[str] | BaseException,
                int | BaseException,
                str | BaseException,
                bytes | BaseException,
                list[str] | BaseException,
                int | BaseException,
                str | BaseException,
            ]
        ],
    )
    assert_type(gather(number, text, page), Future[tuple[int, str, bytes]])
    assert_type(
        gather(number, text, return_exceptions=True), Future[tuple[int | BaseException, str | BaseException]]
    )
    assert_type(gather(number), Future[tuple[int]])
    assert_type(gather(*pages), Future[tuple[bytes, ...]])
    gather(number, "text")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    assert_type(gather(*pages, return_exceptions=True), Future[tuple[bytes | BaseException, ...]])
    assert_type(race(*pages), Future[bytes])
    assert_type(first(page, page), Future[bytes])
    assert_type(some(2, *pages), Future[list[bytes]])


def time_is_in_seconds() -> None:
    assert_type(delay(0.5, "ready"), Future[str])
    assert_type(delay(1), Future[None])


@inlineCallbacks
def walk(url: str) -> Generator[Future[Any], Any, int]:
    page = yield succeed(fetch(url))
    return len(page)


@inlineCallbacks
async def walk_async(url: str) -> int:
    return len(await succeed(fetch(url)))


def coroutines() -> None:
    assert_type(walk("x"), Future[int])
    assert_type(walk_async("x"), Future[int])
    assert_type(race(succeed(1), succeed("a")), Future[int | str])
    assert_type(first(succeed(1), succeed("a")), Future[int | str])
    assert_type(some(1, succeed(1), succeed("a")), Future[list[int | str]])
    assert_type(ensure_future(succeed(1)), Future[int])
    assert_type(ensure_future(count([])), Future[int])
    assert_type(ensure_future(count([]), on=INLINE), Future[int])
    walk(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def awaits() -> None:
    assert_type(await succeed(1), int)


def repeated() -> None:
    policy = tenacity.Retrying(stop=tenacity.stop_after_attempt(3))
    assert_type(retry(fetch, "x", policy=policy), Future[bytes])
    assert_type(retry(fetch, url="x", policy=policy, on=INLINE), Future[bytes])
    assert_type(retry(save_later, ["x"], policy=policy), Future[int])
    assert_type(retry(save_perhaps, ["x"], policy=policy), Future[int])
    assert_type(retry(count, ["x"], policy=policy), Future[int])
    retry(fetch, "x", policy=None)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    retry(fetch, "x", policy=3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]


def folded(pages: list[Future[bytes]]) -> None:
    def add(total: int, page: bytes) -> int:
        return total + len(page)

    def add_later(total: int, page: bytes) -> Future[int]:
        return succeed(total + len(page))

    assert_type(reduce(lambda total, word: total + len(word), [succeed("a")], 0), Future[int])
    assert_type(reduce(add, pages, 0), Future[int])
    assert_type(reduce(add_later, pages, 0), Future[int])
    reduce(add, pages, "")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    reduce(add, [succeed("a")], 0)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]


def twisted() -> None:
    deferred: defer.Deferred[int] = defer.Deferred()
    deferred.addCallback(str).addErrback(lambda failure: failure.getErrorMessage())
    deferred.callback(1)
    assert_type(defer.succeed(1), defer.Deferred[int])


def looking() -> None:
    with trace() as recording:
        assert_type(render(succeed(1), "svg"), str)
        render(succeed(1), "png")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    recording.save("x.html")
    debug(True, slow=0.5)
