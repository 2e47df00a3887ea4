from examples.channels.shared import HISTORY, URL
from telex import Telex
from telex.channels import Channels, channel_listener

job = channel_listener("/jobs/{job:str}", channel="job:{job}", history=-1)
channels = Channels(URL, arbitrary_channels_allowed=True, history=HISTORY)
app = Telex([job], plugins=[channels])
