from telex import Router, Telex, websocket_listener


@websocket_listener("/private")
async def private(data: str) -> str:
    return data


@websocket_listener("/public", allowed_origins=["*"])
async def public(data: str) -> str:
    return data


app = Telex(
    [Router("/live", route_handlers=[private, public])],
    allowed_origins=["https://app.example.com", "*.partner.example"],
)
