"""``receive_mode="binary"``: messages are binary frames. ``data`` says what their content is: here text."""

from telex import Telex, websocket_listener


@websocket_listener("/", receive_mode="binary")
async def handler(data: str) -> str:
    return data


app = Telex([handler])
