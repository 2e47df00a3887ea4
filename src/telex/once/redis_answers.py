"""Answers to calls with keys in a Redis server, for all processes."""

from __future__ import annotations

import asyncio
import math
import secrets
from typing import Any, Final

import msgspec

from telex.once.answers import Claim, ClaimState, KeptAnswer
from telex.once.keys import CallId
from telex.once.options import Once
from telex.redis_server import RedisServer, StoreUnavailable

__all__ = ("RedisAnswers",)

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(KeptAnswer).decode


class RedisAnswers:
    """Answers in a Redis server, on that server's clock. A process renews the claims of what it runs."""

    def __init__(self, once: Once, where: str) -> None:
        self._once = once
        self._server = RedisServer(str(once.store), "calls with keys", where)
        self._owner = secrets.token_urlsafe(12)
        self._within, self._lease = (str(math.ceil(1000 * seconds)) for seconds in (once.within, once.lease))
        self._claims: dict[CallId, str] = {}
        self._renewing: asyncio.Task[None] | None = None

    def _keys(self, call: CallId) -> tuple[str, ...]:
        prefix = f"telex:once:{{{call.scope}}}:"
        return (f"{prefix}{call.key}", f"{prefix}{call.key}:lease", *((f"{prefix}order",) if call.is_of_user else ()))

    async def claim(self, call: CallId, message: str) -> Claim:
        """See :class:`AnswerStore`."""
        runs_again = "1" if self._once.if_interrupted == "run" else ""
        arguments = (message, self._owner, self._within, self._lease, runs_again)
        found: Any = await self._server.run(CLAIM, self._keys(call)[:2], arguments)
        state: ClaimState = found[0].decode()
        if state == "ours":
            self._claims[call] = message
            if self._renewing is None or self._renewing.done():
                self._renewing = asyncio.get_running_loop().create_task(self._renew())
        return Claim(state, _decode(found[1]) if state == "answered" else None)

    async def keep(self, call: CallId, message: str, answer: KeptAnswer) -> None:
        """See :class:`AnswerStore`."""
        arguments = (message, self._owner, self._within, _encode(answer), str(self._once.results), call.key)
        await self._server.run(KEEP, self._keys(call), arguments)
        self._claims.pop(call, None)

    async def forget(self, call: CallId) -> None:
        """See :class:`AnswerStore`."""
        self._claims.pop(call, None)
        await self._server.run(FORGET, self._keys(call)[:2], (self._owner,))

    async def _renew(self) -> None:
        """Renew the claims until there are none. What the server has lost is claimed again."""
        while self._claims:
            await asyncio.sleep(self._once.lease / 3)
            for call, message in tuple(self._claims.items()):
                if call not in self._claims:
                    continue
                try:
                    await self._server.run(
                        RENEW, self._keys(call)[:2], (message, self._owner, self._within, self._lease)
                    )
                except StoreUnavailable:
                    break

    async def aclose(self) -> None:
        """See :class:`AnswerStore`."""
        self._claims.clear()
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait((self._renewing,))
        await self._server.aclose()


CLAIM: Final = """
local record = redis.call('HMGET', KEYS[1], 'message', 'owner', 'answer')
if record[1] then
  if record[1] ~= ARGV[1] then return {'other'} end
  if record[3] then return {'answered', record[3]} end
  if record[2] ~= ARGV[2] then
    if redis.call('EXISTS', KEYS[2]) == 1 then return {'running'} end
    if ARGV[5] == '' then return {'lost'} end
  end
end
redis.call('HSET', KEYS[1], 'message', ARGV[1], 'owner', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3] + ARGV[4])
redis.call('SET', KEYS[2], '', 'PX', ARGV[4])
return {'ours'}
"""
"""A process runs one call of a key at a time: its own claim, while nothing runs, is one of which it got no answer."""

RENEW: Final = """
local record = redis.call('HMGET', KEYS[1], 'owner', 'answer')
if record[2] or (record[1] and record[1] ~= ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], 'message', ARGV[1], 'owner', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3] + ARGV[4])
redis.call('SET', KEYS[2], '', 'PX', ARGV[4])
return 1
"""

KEEP: Final = """
local record = redis.call('HMGET', KEYS[1], 'owner', 'answer')
if record[2] or (record[1] and record[1] ~= ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], 'message', ARGV[1], 'owner', ARGV[2], 'answer', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('DEL', KEYS[2])
if KEYS[3] then
  local time = redis.call('TIME')
  redis.call('ZADD', KEYS[3], time[1] * 1000 + math.floor(time[2] / 1000), ARGV[6])
  redis.call('PEXPIRE', KEYS[3], ARGV[3])
  while redis.call('ZCARD', KEYS[3]) > tonumber(ARGV[5]) do
    local oldest = redis.call('ZPOPMIN', KEYS[3])
    redis.call('DEL', string.sub(KEYS[3], 1, -6) .. oldest[1])
  end
end
return 1
"""
"""A record of another process stays: it has taken the call over after this one did not renew its claim."""

FORGET: Final = """
local record = redis.call('HMGET', KEYS[1], 'owner', 'answer')
if record[1] == ARGV[1] and not record[2] then redis.call('DEL', KEYS[1], KEYS[2]) end
return 1
"""
