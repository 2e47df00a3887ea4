"""A worker without an app: ``python -m examples.channels.worker nightly`` does a job and tells how far it is."""

from __future__ import annotations

import sys
import time

from examples.channels.shared import HISTORY, URL, Progress
from telex.channels import publisher

STEPS = 5


def work(job: str) -> None:
    """Do the job. Whoever looks at it may come and go: the progress is kept for those who come late."""
    with publisher(URL, history=HISTORY) as news:
        for done in range(STEPS + 1):
            news.publish(f"job:{job}", Progress(job, done, STEPS))
            time.sleep(0.1)


if __name__ == "__main__":
    work(sys.argv[1])
