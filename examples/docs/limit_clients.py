from telex import Telex, websocket_listener
from telex.limits import Limit, client_ip


@websocket_listener("/chat", message_limit=Limit(5, per=1, burst=10))
async def chat(data: str) -> str:
    return data


@websocket_listener("/search", message_limit=Limit(2, per=1, burst=4, on_exceed="reply"))
async def search(data: str) -> str:
    return f"results for {data}"


@websocket_listener("/upload", receive_mode="binary", byte_limit=Limit(1_000_000, on_exceed="close"))
async def upload(data: bytes) -> int:
    return len(data)


app = Telex(
    [chat, search, upload],
    connect_limit=[Limit(20, per=60, key=client_ip)],
    max_connections_per=(client_ip, 50),
)
