"""Calls to a backend, in batches that form by themselves.

What arrives while a call is on its way goes into the next one: a lone item waits for nothing, and a
busy process makes few trips.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from liteflow.core.errors import UnavailableError

T = TypeVar("T")
R = TypeVar("R")

TOGETHER = 32
"""So many results are brought to the loop at a time."""

log = logging.getLogger("liteflow.stage")


class Stage(Generic[T, R]):
    """One kind of call, made for many items at once in a thread of its own.

    `call` takes items and returns their results in order. `post` brings the results to the loop: it is
    called with functions to run there. An item whose call raised gets the exception as its result.
    With `inline` the call is made by whoever puts an item in, who gets the result before `put` returns: for
    backends that never wait. `at_pause` is given what wakes the thread, to be called when who puts items in
    has no more of them for now.
    """

    def __init__(
        self,
        name: str,
        call: Callable[[list[T]], Sequence[R]],
        post: Callable[[Callable[[], None]], None],
        *,
        inline: bool = False,
        most: int = 64,
        at_pause: Callable[[Callable[[], None]], None] = lambda tell: tell(),
    ) -> None:
        self._name = name
        self._call = call
        self._post = post
        self._most = most
        self._at_pause = at_pause
        self._together = TOGETHER
        self._items: deque[tuple[T, Callable[[R | Exception], Any]]] = deque()
        self._condition = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None
        if not inline:
            self._thread = threading.Thread(target=self._serve, name=f"liteflow-{name}", daemon=True)
            self._thread.start()

    def put(self, item: T, done: Callable[[R | Exception], Any]) -> None:
        """Hand in an item, from the loop; `done` is called there with its result."""
        if self._thread is None:
            done(self._results([item])[0])
            return
        self._items.append((item, done))
        self._at_pause(self._tell)

    def _tell(self) -> None:
        with self._condition:
            self._condition.notify()

    def close(self) -> None:
        """Finish what was handed in, and end the thread."""
        with self._condition:
            self._closed = True
            self._condition.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=10)

    def _serve(self) -> None:
        while True:
            with self._condition:
                while not self._items and not self._closed:
                    self._condition.wait()
                if not self._items:
                    return
                batch = [self._items.popleft() for _ in range(min(self._most, len(self._items)))]
            self._handle(batch)

    def _handle(self, batch: list[tuple[T, Callable[[R | Exception], Any]]]) -> None:
        results = self._results([item for item, _ in batch])
        answers = [partial(done, result) for (_, done), result in zip(batch, results, strict=True)]
        for first in range(0, len(answers), self._together):
            self._post(partial(self._answer, answers[first : first + self._together]))

    def _answer(self, answers: Sequence[Callable[[], Any]]) -> None:
        """On the loop, one after the other, so that what they put into other stages goes there together."""
        for answer in answers:
            try:
                answer()
            except Exception:  # one instance's trouble must not stop the others
                log.exception("what follows %s failed for an item", self._name)

    def _results(self, items: list[T]) -> Sequence[R | Exception]:
        try:
            return self._call(items)
        except UnavailableError as exc:
            return [exc] * len(items)
        except Exception as exc:  # the loop decides; whatever it was, it must not end this thread
            log.exception("%s failed for %d items", self._name, len(items))
            return [exc] * len(items)
