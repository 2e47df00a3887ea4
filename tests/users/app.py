"""The people of the contract tests, on nodes that are processes: ``CHANNELS_URL`` is their broker."""

from __future__ import annotations

import os

from telex import Channels, Telex
from tests.contract.subjects.people import people

app = Telex([people], plugins=[Channels(os.environ["CHANNELS_URL"], arbitrary_channels_allowed=True)])
