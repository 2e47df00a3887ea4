from examples.channels.shared import HISTORY, URL
from telex import Telex, channel_listener
from telex.channels import Channels

job = channel_listener("/jobs/{job:str}", channel="job:{job}", history=-1)
channels = Channels(URL, arbitrary_channels_allowed=True, history=HISTORY)
app = Telex([job], plugins=[channels])
