"""The Lua scripts that number, store and publish events in Redis.

One script numbers, stores and publishes an event of a channel with history, so that the three steps are atomic.

The epoch of a history is valid for one *reign*: the time in which one server is the primary without a restart. Servers
save and replicate after they have answered. So a restarted server, or a replica that replaces its primary, may lack the
newest events, although publishers have their confirmation and subscribers have received them. It would give the numbers
of these events to other events, and it cannot detect whether it lacks any. So the first script that finds a channel's
head written in another reign begins a new epoch, and subscribers get a gap. The stored log stays, and its numbers
continue: it is a prefix of the old log, and each position of the new epoch has one meaning only.

A reign is identified by ``master_replid``, which a server changes when it starts and when it is promoted. ``run_id`` is
not sufficient: a primary that was replaced and later promoted again is the same process, with the data of its
successor. If the channel was not used in between, its head still has that ``run_id``, and its numbers would continue
from before the lost ones. The script itself must read the id, because a connection survives both changes, and an id
that the client read earlier may be outdated. The cost is some microseconds, and an epoch that ends early when a server
gets its first replica or has had none for an hour, because the id changes then too.

The first write of a script is one that a server without memory refuses. After any other write (``DEL``, ``PEXPIRE``) it
would let the script exceed its ``maxmemory``.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Final

from telex.channels.backends.redis.connection import Command

__all__ = ("HISTORY", "META_SECONDS", "PUBLISH", "PUBLISH_LIVE", "PUBLISH_SHARDED", "evaluated")

META_SECONDS: Final = 86_400
"""A channel's epoch and offset are kept one day longer than its events, so that late positions are recognised."""

_OPEN_LOG: Final = """
local reign = string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)')
local meta = redis.call('HMGET', KEYS[2], 'reign', 'epoch', 'offset')
local is_new = not meta[3]
if meta[1] ~= reign then
  meta[2], meta[3] = ARGV[1], meta[3] or '0'
  redis.call('HSET', KEYS[2], 'reign', reign, 'epoch', meta[2], 'offset', meta[3])
end
if is_new then
  redis.call('DEL', KEYS[1])
end
local time = redis.call('TIME')
local now = time[1] .. string.format('%03d', math.floor(time[2] / 1000))
"""

PUBLISH: Final = (
    _OPEN_LOG
    + """
local offset = redis.call('HINCRBY', KEYS[2], 'offset', 1)
redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[3], offset .. '-0', 't', now, 'd', ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
local position = meta[2] .. ':' .. offset
redis.call('PUBLISH', ARGV[6], position .. ' ' .. ARGV[4])
return position
"""
)

PUBLISH_SHARDED: Final = PUBLISH.replace(
    "redis.call('PUBLISH', ARGV[6], ", "redis.call('SPUBLISH', ARGV[6], redis.call('CLUSTER', 'MYID') .. ' ' .. "
)
"""The same in a cluster. Messages begin with the id of the node on which they were published.

A node forwards them to its primary or replicas without confirmation. After a failover one that the old primary has
delivered may arrive late at the new one, so subscribers ignore all but those of the node to which they subscribed.
"""

HISTORY: Final = (
    _OPEN_LOG
    + """
redis.call('PEXPIRE', KEYS[2], ARGV[2])
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
"""Reads a page of the log, forwards or backwards, limited by a number of events and by about 256 KiB."""

PUBLISH_LIVE: Final = """
if not string.find(redis.call('INFO', 'replication'), 'role:master', 1, true) then
  return redis.error_reply('TRYAGAIN elsewhere: this is a replica')
end
local heard = redis.pcall('SPUBLISH', ARGV[1], redis.call('CLUSTER', 'MYID') .. ' ' .. ARGV[2])
if type(heard) == 'table' and string.find(heard.err, 'cluster', 1, true) then
  return redis.error_reply('TRYAGAIN elsewhere: ' .. heard.err)
end
return heard
"""
"""Publishes on a primary only. A replica, or a demoted primary, would accept the publish too.

It would forward the event to its primary without confirmation and late: in another order, and a second time to
subscribers that move to the primary. A script with a key would be refused on a replica, but also while its slot
migrates, or while any other slot of the cluster is not served.
"""


@cache
def evaluated(script: str, keys: int) -> Command:
    """The beginning of the command that runs ``script``. It is followed by ``keys`` keys and then the arguments."""
    return b"EVALSHA", hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest(), keys
