"""Broadcasts over a channel that has to be asked, and at once within the process.

All topics of a prefix share one channel; what is heard is told to the subscribers of its topic. What this
process says itself it tells its own subscribers directly, and leaves out when it hears it.
"""

from __future__ import annotations

import abc
import json
import logging
import queue
import random
import threading
import uuid
from collections import deque
from collections.abc import Callable
from functools import partial

from liteflow.core.errors import ProviderError

log = logging.getLogger("liteflow.queue")

MOST_UNSAID = 10_000
"""So many broadcasts wait to be sent, at most; then the oldest get lost."""

TROUBLE_PAUSE = 5.0
"""Seconds until a channel that failed is asked again, at most."""


class BroadcastChannel(abc.ABC):
    """One stream of short texts that every process of a prefix hears. Errors are `ProviderError`."""

    largest: int
    """Bytes that a text may have."""

    @abc.abstractmethod
    def say(self, text: str) -> None:
        """Send a text (ASCII without line breaks) to all who have joined. From one thread at a time."""

    @abc.abstractmethod
    def join(self) -> None:
        """Hear what is said from now on. Joining again begins anew."""

    @abc.abstractmethod
    def hear(self) -> list[str]:
        """What was said since the last time, perhaps after a short wait for it. After `join`."""

    @abc.abstractmethod
    def leave(self) -> None:
        """Nobody listens here any more. Harmless for who has not joined."""


class _Subscription:
    def __init__(self, callback: Callable[[str], None]) -> None:
        self.callback = callback
        self.over = False


class PolledBroadcast:
    """The broadcasts of one provider. Between two empty answers it pauses, as `PolledQueues` does."""

    def __init__(self, channel: BroadcastChannel, pauses: tuple[float, float]) -> None:
        self._channel = channel
        self._pauses = pauses
        self._me = uuid.uuid4().hex[:12]
        self._changed = threading.Condition()
        self._open = False
        self._subscriptions: dict[str, list[_Subscription]] = {}
        self._unsaid: deque[tuple[str, str]] = deque(maxlen=MOST_UNSAID)
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._joining = threading.Lock()
        self._joined = False
        self._speaker: threading.Thread | None = None
        self._listeners: list[threading.Thread] = []

    def open(self) -> None:
        """Begin; nothing is asked before somebody subscribes."""
        with self._changed:
            self._open = True

    def close(self) -> None:
        """Send what waits, end all subscriptions and threads."""
        with self._changed:
            was_open, self._open = self._open, False
            self._subscriptions.clear()
            speaker, self._speaker = self._speaker, None
            listeners, self._listeners = self._listeners, []
            self._changed.notify_all()
        if not was_open:
            return
        self._calls.put(None)
        for thread in [speaker, *listeners]:
            if thread is not None and thread is not threading.current_thread():
                thread.join()
        self._calls = queue.SimpleQueue()
        if self._joined:
            self._joined = False
            try:
                self._channel.leave()
            except ProviderError as exc:
                log.info("the broadcasts could not be left: %s", exc)

    def notify(self, topic: str, body: str) -> None:
        """Tell the own subscribers, and leave it to a thread to tell the others."""
        with self._changed:
            if not self._open:
                return
            self._tell(topic, body)
            self._unsaid.append((topic, body))
            if self._speaker is None:
                self._speaker = self._start("speaker", self._speak)
            self._changed.notify_all()

    def subscribe(self, topic: str, callback: Callable[[str], None]) -> Callable[[], None]:
        """In force when it returns, or as soon as the server answers."""
        subscription = _Subscription(callback)
        if not self._joined:
            try:
                self._join()
            except ProviderError as exc:
                log.warning("broadcasts can't be heard yet, trying again: %s", exc)
        with self._changed:
            self._subscriptions.setdefault(topic, []).append(subscription)
            if self._open and not self._listeners:
                self._listeners = [
                    self._start("listener", self._listen),
                    self._start("broadcasts", partial(self._call, self._calls)),
                ]

        def unsubscribe() -> None:
            with self._changed:
                subscription.over = True
                mine = self._subscriptions.get(topic, [])
                if subscription in mine:
                    mine.remove(subscription)
                if not mine:
                    self._subscriptions.pop(topic, None)

        return unsubscribe

    def _join(self) -> None:
        with self._joining:
            if not self._joined:
                self._channel.join()
                self._joined = True

    def _start(self, name: str, target: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=target, name=f"liteflow-{name}", daemon=True)
        thread.start()
        return thread

    def _tell(self, topic: str, body: str) -> None:
        for subscription in self._subscriptions.get(topic, ()):
            self._calls.put(partial(_deliver, subscription, body))

    # -------------------------------------------------------------------------------------- the threads

    def _call(self, calls: queue.SimpleQueue[Callable[[], None] | None]) -> None:
        while (call := calls.get()) is not None:
            call()

    def _speak(self) -> None:
        silent = False
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._unsaid or not self._open)
                if not self._unsaid:
                    return
                text = self._next_text()
            if text is None:
                continue
            try:
                self._channel.say(text)
                silent = False
            except ProviderError as exc:
                if not silent:
                    log.warning("broadcasts get lost: %s", exc)
                silent = True
                if not self._open:
                    self._unsaid.clear()

    def _next_text(self) -> str | None:
        """As many of the broadcasts that wait as fit into one text."""
        taken: list[list[str]] = []
        size = 64
        while self._unsaid:
            item = list(self._unsaid[0])
            more = len(json.dumps(item)) + 2
            if size + more > self._channel.largest:
                if not taken:
                    log.warning("a broadcast of %d bytes is too large and gets lost", more)
                    self._unsaid.popleft()
                break
            self._unsaid.popleft()
            taken.append(item)
            size += more
        return json.dumps({"by": self._me, "said": taken}) if taken else None

    def _listen(self) -> None:
        first, longest = self._pauses
        pause, troubled = first, 0
        while True:
            try:
                self._join()
                texts = self._channel.hear()
            except ProviderError as exc:
                if not troubled:
                    log.warning("broadcasts can't be heard, trying again: %s", exc)
                troubled += 1
                texts = []
                pause = min(first + 0.1 * 2 ** min(troubled, 8), TROUBLE_PAUSE)
            else:
                if troubled:
                    log.info("broadcasts are heard again")
                    troubled, pause = 0, first
            for text in texts:
                self._hear(text)
            with self._changed:
                if texts:
                    pause = first
                elif not troubled and self._open:
                    self._changed.wait_for(lambda: not self._open, pause * random.uniform(0.8, 1.0))
                    pause = min(2 * pause, longest)
                elif self._open:
                    self._changed.wait_for(lambda: not self._open, pause)
                if not self._open:
                    return

    def _hear(self, text: str) -> None:
        try:
            heard = json.loads(text)
            by, said = heard["by"], [(str(topic), str(body)) for topic, body in heard["said"]]
        except (ValueError, TypeError, KeyError):
            log.warning("something that is no broadcast of liteflow was heard, and is left out")
            return
        if by == self._me:
            return
        with self._changed:
            for topic, body in said:
                self._tell(topic, body)


def _deliver(subscription: _Subscription, body: str) -> None:
    if subscription.over:
        return
    try:
        subscription.callback(body)
    except Exception:  # the callback is somebody else's
        log.exception("a subscriber of a broadcast failed")
