from fastapi import FastAPI

from telex import Telex, websocket_listener


@websocket_listener("/echo")
async def echo(data: str) -> str:
    return data


live = Telex([echo])
app = FastAPI(lifespan=lambda app: live.lifespan())
app.mount("/live", live)


@app.get("/")
async def home() -> str:
    return "the page"
