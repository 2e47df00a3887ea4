"""One event loop in one background thread, for the synchronous clients.

``anyio.from_thread.start_blocking_portal`` does the same, but its exit has no timeout: it waits without limit for a
blocked event loop, a task that ignores its cancellation, or a worker thread, and the test hangs. This portal raises
``TimeoutError`` and names the function that blocks the loop.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from telex.exceptions import ConnectionStateError
from telex.testing.tasks import GRACE, frame_text, settled

__all__ = ("Portal",)

T = TypeVar("T")


class Portal:
    """Runs coroutines on its own event loop; nested ``with`` blocks share the loop, and the last one closes it.

    :meth:`close` ends all tasks and threads.
    """

    def __init__(self) -> None:
        self._users = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._workers: ThreadPoolExecutor
        self._thread: threading.Thread

    def __enter__(self) -> Self:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._workers = ThreadPoolExecutor(thread_name_prefix="telex-testing-worker")
            self._loop.set_default_executor(self._workers)
            self._thread = threading.Thread(target=self._run, args=(self._loop,), name="telex-testing", daemon=True)
            self._thread.start()
        self._users += 1
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._users -= 1
        if self._users <= 0:
            self.close()

    def call(self, coroutine: Coroutine[Any, Any, T], limit: float) -> T:
        """Run ``coroutine`` on the loop and return its result.

        :raises TimeoutError: it took longer than ``limit`` seconds. Its own timeouts are shorter, so the loop is
            blocked.
        :raises ConnectionStateError: the portal is closed.
        """
        if self._loop is None:
            coroutine.close()
            raise ConnectionStateError(
                "the client has been left, or the session is not entered:"
                " 'with client.websocket_connect(...) as session'"
            )
        future = asyncio.run_coroutine_threadsafe(settled(coroutine), self._loop)
        try:
            result, error = future.result(limit)
        except TimeoutError:
            future.cancel()
            raise TimeoutError(f"the app blocks its event loop for more than {limit:g} s {self._where()}") from None
        if error is not None:
            raise error
        return cast("T", result)  # no error, so there is a result

    def close(self) -> None:
        """Cancel running tasks, stop the loop, join the thread; does nothing after that.

        :raises TimeoutError: the app blocks the loop or a worker thread; that thread keeps running.
        """
        loop, self._loop, self._users = self._loop, None, 0
        if loop is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join(4 * GRACE)
        if self._thread.is_alive():
            raise TimeoutError(f"the app blocks its event loop, the thread is left behind {self._where()}")
        joining = threading.Thread(target=self._workers.shutdown, daemon=True)
        joining.start()
        joining.join(GRACE)
        if joining.is_alive():
            raise TimeoutError("the app still runs a function in a worker thread, which is left behind")

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        loop.run_forever()
        leftovers = asyncio.all_tasks(loop)
        for task in leftovers:
            task.cancel()
        if leftovers:
            loop.run_until_complete(asyncio.wait(leftovers, timeout=GRACE))
        generators = loop.create_task(loop.shutdown_asyncgens())
        loop.run_until_complete(asyncio.wait({generators}, timeout=GRACE))
        loop.close()

    def _where(self) -> str:
        frame = sys._current_frames().get(self._thread.ident or 0)
        return f"in {frame_text(frame)}" if frame is not None else ""
