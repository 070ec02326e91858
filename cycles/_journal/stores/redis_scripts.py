"""The Lua scripts of `RedisStore`, one per operation. Each is atomic and uses the clock of the server.

KEYS are the six keys of a partition:

1. records: hash, key to record;
2. state: hash, key to ``fence takes due kept``;
3. due: sorted set of the records that are taken when they are due, by milliseconds;
4. to 6. live, rejected, quarantined: sorted sets in which every score is 0, so that they are read in the order of keys.
"""

from __future__ import annotations

from typing import Final

from cycles._journal.stores.store import POISON_TAKES

_COMMON: Final = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local sets = {[''] = KEYS[4], rejected = KEYS[5], quarantined = KEYS[6]}
local function read(key)
  local state = redis.call('HGET', KEYS[2], key)
  if state then
    return string.match(state, '^(%S+) (%d+) (%d+) (%a*)$')
  end
end
local function write(key, fence, takes, due, kept, before)
  due = string.format('%.0f', due)
  redis.call('HSET', KEYS[2], key, fence .. ' ' .. takes .. ' ' .. due .. ' ' .. kept)
  if before ~= kept then
    if before then
      redis.call('ZREM', sets[before], key)
    end
    redis.call('ZADD', sets[kept], 0, key)
  end
  if kept == '' then
    redis.call('ZADD', KEYS[3], due, key)
  else
    redis.call('ZREM', KEYS[3], key)
  end
end
"""

# ARGV: key, record, fence or '', new fence, due_ms, kept or ''; for each item. The same put again changes nothing.
_PUT: Final = f"""
{_COMMON}
local results = {{}}
for i = 1, #ARGV, 6 do
  local key, new, kept = ARGV[i], ARGV[i + 3], ARGV[i + 5]
  local fence, _, _, before = read(key)
  if fence == new then
    results[#results + 1] = 1
  elseif (fence or '') == ARGV[i + 2] then
    redis.call('HSET', KEYS[1], key, ARGV[i + 1])
    write(key, new, 0, now + tonumber(ARGV[i + 4]), kept, before)
    results[#results + 1] = 1
  else
    results[#results + 1] = 0
  end
end
return results
"""

# ARGV: keys.
_GET: Final = f"""
{_COMMON}
local found = {{}}
for i, key in ipairs(ARGV) do
  local fence, _, due, kept = read(key)
  found[i] = fence and {{redis.call('HGET', KEYS[1], key), fence, due, kept}} or 0
end
return found
"""

# ARGV: limit, claim_ms, begin of the new fences.
_TAKE: Final = f"""
{_COMMON}
local taken = {{}}
local due = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, tonumber(ARGV[1]))
for i, key in ipairs(due) do
  local fence, takes, _, before = read(key)
  local new, later = ARGV[3] .. i, now + tonumber(ARGV[2])
  if tonumber(takes) >= {POISON_TAKES} then
    write(key, new, takes, now, 'quarantined', before)
  else
    write(key, new, takes + 1, later, '', before)
    taken[#taken + 1] = {{key, redis.call('HGET', KEYS[1], key), new, string.format('%.0f', later)}}
  end
end
return taken
"""

# ARGV: claim_ms, then a key and its fence for each item.
_RENEW: Final = f"""
{_COMMON}
local lost = {{}}
for i = 2, #ARGV, 2 do
  local fence, takes, _, kept = read(ARGV[i])
  if fence ~= ARGV[i + 1] then
    lost[#lost + 1] = ARGV[i]
  elseif kept == '' then
    write(ARGV[i], fence, takes, now + tonumber(ARGV[1]), kept, kept)
  end
end
return lost
"""

# ARGV: a key and its fence for each item.
_DELETE: Final = f"""
{_COMMON}
for i = 1, #ARGV, 2 do
  local fence, _, _, kept = read(ARGV[i])
  if fence == ARGV[i + 1] then
    redis.call('HDEL', KEYS[1], ARGV[i])
    redis.call('HDEL', KEYS[2], ARGV[i])
    redis.call('ZREM', KEYS[3], ARGV[i])
    redis.call('ZREM', sets[kept], ARGV[i])
  end
end
return 1
"""

# ARGV: the key after which the page begins, limit, kept or ''.
_LIST: Final = f"""
{_COMMON}
local found = {{}}
local first = ARGV[1] == '' and '-' or '(' .. ARGV[1]
for _, key in ipairs(redis.call('ZRANGEBYLEX', sets[ARGV[3]], first, '+', 'LIMIT', 0, tonumber(ARGV[2]))) do
  local fence, _, due = read(key)
  found[#found + 1] = {{key, redis.call('HGET', KEYS[1], key), fence, due}}
end
return found
"""

SCRIPTS: Final = {
    "put": _PUT,
    "get": _GET,
    "take": _TAKE,
    "renew": _RENEW,
    "delete": _DELETE,
    "list": _LIST,
}
