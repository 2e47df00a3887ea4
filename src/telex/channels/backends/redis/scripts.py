"""The scripts that number, keep and publish events of Redis.

An event of a channel with history is numbered, kept and published by one script, so that all three agree.

The epoch of a history belongs to one reign of one server. Servers save and replicate after they have answered, so one
that was restarted, and a replica that takes the place of its primary, may lack the newest events: those that publishers
were told are kept, and that subscribers have seen. It would give their numbers to other events. And nobody can tell
whether it lacks any, as who knew is gone. So the first script that finds a channel's head written in another reign
begins a new epoch, and subscribers are told. What is there of the log stays, and goes on being counted: it is a true
beginning of the old one, and a position of the new epoch never meant anything else.

A reign is known by ``master_replid``, which a server makes anew when it starts and when it is promoted. Its ``run_id``
would not do: a primary that was replaced, and later takes its place back, is the same process, with what its successor
had; if nobody used the channel in between, its head bears that ``run_id`` still, and its numbers start again from
before those that were lost. And the script itself has to ask: a connection outlives both changes, so what a client once
asked would be of another reign. The price, beside some microseconds, is an epoch that ends early when a server gets its
first replica, or has been without one for an hour: then it changes the id as well.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Final

from telex.channels.backends.redis.connection import Command

__all__ = ("HISTORY", "META_SECONDS", "PUBLISH", "PUBLISH_LIVE", "evaluated")

META_SECONDS: Final = 86_400
"""A channel's epoch and offset outlive its events by a day, so that late positions are still recognised."""

_OPEN_LOG: Final = """
local reign = string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)')
local meta = redis.call('HMGET', KEYS[2], 'reign', 'epoch', 'offset')
if not meta[3] then
  redis.call('DEL', KEYS[1])
  meta[3] = '0'
end
if meta[1] ~= reign then
  meta[2] = ARGV[1]
  redis.call('HSET', KEYS[2], 'reign', reign, 'epoch', meta[2], 'offset', meta[3])
end
redis.call('PEXPIRE', KEYS[2], ARGV[2])
local time = redis.call('TIME')
local now = time[1] .. string.format('%03d', math.floor(time[2] / 1000))
"""

PUBLISH: Final = (
    _OPEN_LOG
    + """
local offset = redis.call('HINCRBY', KEYS[2], 'offset', 1)
redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[3], offset .. '-0', 't', now, 'd', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
redis.call('PUBLISH', ARGV[6], meta[2] .. ':' .. offset .. ' ' .. ARGV[4])
return offset
"""
)

HISTORY: Final = (
    _OPEN_LOG
    + """
local command, after, last = 'XRANGE', ARGV[3], '+'
if ARGV[4] == '1' then
  command, last = 'XREVRANGE', '-'
end
local wanted, bytes, events = tonumber(ARGV[5]), 0, {}
while #events < wanted and bytes < 262144 do
  local page = redis.call(command, KEYS[1], after, last, 'COUNT', math.min(8, wanted - #events))
  if #page == 0 then
    break
  end
  for _, entry in ipairs(page) do
    events[#events + 1] = entry
    bytes = bytes + #entry[2][4]
  end
  after = '(' .. page[#page][1]
end
return {meta[2], meta[3], now, events}
"""
)
"""A page of the log, forwards or backwards: so many events, or so many bytes and a few events."""

PUBLISH_LIVE: Final = """
if not string.find(redis.call('INFO', 'replication'), 'role:master', 1, true) then
  return redis.error_reply('TRYAGAIN elsewhere: this is a replica')
end
local heard = redis.pcall('SPUBLISH', ARGV[1], ARGV[2])
if type(heard) == 'table' and string.find(heard.err, 'cluster', 1, true) then
  return redis.error_reply('TRYAGAIN elsewhere: ' .. heard.err)
end
return heard
"""
"""Publishes at a primary only: a replica would take it as well, as one that was just a primary would for long.

It passes such events on to its primary without confirmation, and later than others that were sent there meanwhile: in
another order, and for a second time to whoever comes over. A script with a key would find out by itself, but is also
refused while the slot is on its way, or a slot that it has nothing to do with is not served.
"""


@cache
def evaluated(script: str, keys: int) -> Command:
    """The beginning of the command that runs a script, to which so many keys follow and then the arguments."""
    return b"EVALSHA", hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest(), keys
