"""A worker without an app: ``python -m examples.channels.worker nightly`` runs a job and publishes its progress."""

from __future__ import annotations

import sys
import time

from examples.channels.shared import HISTORY, URL, Progress
from telex.channels import publisher

STEPS = 5


def work(job: str) -> None:
    """Run the job. Its progress is kept for pages that are opened late."""
    with publisher(URL, history=HISTORY) as news:
        for done in range(STEPS + 1):
            news.publish(f"job:{job}", Progress(job, done, STEPS))
            time.sleep(0.1)


if __name__ == "__main__":
    work(sys.argv[1])
