import os
from functools import cache

from examples.channels.shared import HISTORY, URL, Progress
from telex.channels import publisher
from telex.channels.publisher import SyncPublisher


@cache
def news() -> SyncPublisher:
    """The publisher of this process: opened at its first use, closed at the end of the process."""
    return publisher(URL, history=HISTORY).__enter__()


# A child process must not use its parent's connections: it opens its own.
os.register_at_fork(after_in_child=news.cache_clear)


def resize(picture: str) -> None:
    """A task that may run in any process of a pool."""
    news().publish(f"job:{picture}", Progress(picture, 1, 1))
