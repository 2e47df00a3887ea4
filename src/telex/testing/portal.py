"""One event loop in one background thread, for the synchronous faces."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

from telex.exceptions import ConnectionStateError
from telex.testing.tasks import GRACE, frame_text, settled

__all__ = ("Portal",)

T = TypeVar("T")


class Portal:
    """Runs coroutines on a loop of its own. :meth:`close` leaves neither a task nor a thread behind."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._workers = ThreadPoolExecutor(thread_name_prefix="telex-testing-worker")
        self._loop.set_default_executor(self._workers)
        self._thread = threading.Thread(target=self._run, name="telex-testing", daemon=True)
        self._thread.start()

    def call(self, coroutine: Coroutine[Any, Any, T], limit: float) -> T:
        """The result of ``coroutine``.

        :raises TimeoutError: it took longer than ``limit`` seconds. Its own limits are shorter: the loop is blocked.
        :raises ConnectionStateError: the portal is closed.
        """
        if self._loop.is_closed():
            coroutine.close()
            raise ConnectionStateError("the client has been left")
        future = asyncio.run_coroutine_threadsafe(settled(coroutine), self._loop)
        try:
            result, error = future.result(limit)
        except TimeoutError:
            future.cancel()
            raise TimeoutError(f"the app blocks its event loop for more than {limit:g} s {self._where()}") from None
        if error is not None:
            raise error
        return cast("T", result)  # without an error there is one

    def close(self) -> None:
        """Cancel what still runs, stop the loop, join the thread.

        :raises TimeoutError: the app blocks the loop or a worker thread, so that a thread is left behind.
        """
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(4 * GRACE)
        if self._thread.is_alive():
            raise TimeoutError(f"the app blocks its event loop, the thread is left behind {self._where()}")
        joining = threading.Thread(target=self._workers.shutdown, daemon=True)
        joining.start()
        joining.join(GRACE)
        if joining.is_alive():
            raise TimeoutError("the app still runs a function in a worker thread, which is left behind")

    def _run(self) -> None:
        self._loop.run_forever()
        leftovers = asyncio.all_tasks(self._loop)
        for task in leftovers:
            task.cancel()
        if leftovers:
            self._loop.run_until_complete(asyncio.wait(leftovers, timeout=GRACE))
        generators = self._loop.create_task(self._loop.shutdown_asyncgens())
        self._loop.run_until_complete(asyncio.wait({generators}, timeout=GRACE))
        self._loop.close()

    def _where(self) -> str:
        frame = sys._current_frames().get(self._thread.ident or 0)
        return f"in {frame_text(frame)}" if frame is not None else ""
