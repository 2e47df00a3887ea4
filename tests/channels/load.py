"""Publishing without end while a broker dies, and the account of it afterwards."""

from __future__ import annotations

import asyncio

from telex.channels import Channels, Event, Gap, Item, Subscriber
from telex.exceptions import BackendUnavailable
from tests.channels.conftest import until, within


class Load:
    """Publishes numbers until told to stop, and remembers which of them the broker has taken."""

    def __init__(self, hub: Channels, channel: str) -> None:
        self._hub, self.channel = hub, channel
        self.taken: list[int] = []
        self.refused: list[int] = []
        self._stopped = False
        self._number = 0

    async def run(self) -> None:
        while not self._stopped:
            self._number += 1
            try:
                await self._hub.publish(self.channel, str(self._number))
                self.taken.append(self._number)
            except BackendUnavailable:
                self.refused.append(self._number)
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Publish a last value that must arrive."""
        self._stopped = True

    async def has_taken(self, more: int) -> None:
        goal = len(self.taken) + more
        await until(lambda: len(self.taken) >= goal)


async def read_until(subscriber: Subscriber, last: str) -> list[Item]:
    items: list[Item] = []
    while True:
        items.append(await within(anext(subscriber)))
        item = items[-1]
        if isinstance(item, Event) and item.text == last:
            return items


def disordered(items: list[Item]) -> list[str]:
    """Each event that came again or after a later one, with the three items on either side of it."""
    found: list[str] = []
    newest = 0
    for index, item in enumerate(items):
        if not isinstance(item, Event):
            continue
        if int(item.text) <= newest:
            around = [
                f"{each.text}@{each.position}" if isinstance(each, Event) else str(each)
                for each in items[max(index - 3, 0) : index + 4]
            ]
            found.append(f"{item.text} after {newest} in {', '.join(around)}")
        newest = max(newest, int(item.text))
    return found


def undeclared(items: list[Item], taken: list[int]) -> list[int]:
    """What the broker took and no reader got, where no gap stands in its place."""
    delivered = {int(item.text) for item in items if isinstance(item, Event)}
    missing: list[int] = []
    before = 0
    gap = False
    for item in items:
        if isinstance(item, Gap):
            gap = True
            continue
        number = int(item.text)
        if not gap:
            missing += [each for each in range(before + 1, number) if each not in delivered]
        before, gap = number, False
    wanted = set(taken)
    return [each for each in missing if each in wanted]
