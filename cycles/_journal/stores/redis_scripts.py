"""The Lua scripts of `RedisStore`, one per operation.

KEYS are the six keys of a partition: records, due, fence, claims, quarantine, rejected.
"""

from __future__ import annotations

from typing import Final

from cycles._journal.store import POISON_CLAIMS, POISON_REASON

_NOW: Final = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
"""

# ARGV: key, record, fence or '', due_ms; for each item.
_PUT: Final = f"""
{_NOW}
local saved = {{}}
for i = 1, #ARGV, 4 do
  local key, record, fence, due = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3])
  local writes = true
  if fence ~= '' then
    local known = redis.call('HGET', KEYS[3], key) or '0'
    writes = redis.call('HEXISTS', KEYS[1], key) == 1 and tonumber(known) == tonumber(fence)
  end
  if writes then
    redis.call('HSET', KEYS[1], key, record)
    redis.call('ZADD', KEYS[2], now + due, key)
    redis.call('HDEL', KEYS[4], key)
    redis.call('HDEL', KEYS[5], key)
    redis.call('HDEL', KEYS[6], key)
  end
  saved[#saved + 1] = writes and 1 or 0
end
return saved
"""

# ARGV: keys.
_SETTLE: Final = """
for _, key in ipairs(ARGV) do
  redis.call('HDEL', KEYS[1], key)
  redis.call('ZREM', KEYS[2], key)
  redis.call('HDEL', KEYS[3], key)
  redis.call('HDEL', KEYS[4], key)
end
return 1
"""

# ARGV: limit, claim_ms.
_CLAIM: Final = f"""
{_NOW}
local claimed = {{}}
local due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, tonumber(ARGV[1]))
for _, key in ipairs(due) do
  local record = redis.call('HGET', KEYS[1], key)
  if not record then
    redis.call('ZREM', KEYS[2], key)
  elseif tonumber(redis.call('HGET', KEYS[4], key) or '0') >= {POISON_CLAIMS} then
    redis.call('HSET', KEYS[5], key, cjson.encode({{record = record, reason = '{POISON_REASON}', at_ms = now}}))
    redis.call('HDEL', KEYS[1], key)
    redis.call('ZREM', KEYS[2], key)
    redis.call('HDEL', KEYS[4], key)
  else
    redis.call('ZADD', KEYS[2], now + tonumber(ARGV[2]), key)
    redis.call('HINCRBY', KEYS[4], key, 1)
    claimed[#claimed + 1] = {{key, record, redis.call('HINCRBY', KEYS[3], key, 1)}}
  end
end
return claimed
"""

# ARGV: claim_ms, keys.
_RENEW: Final = f"""
{_NOW}
local missing = {{}}
for i = 2, #ARGV do
  local key = ARGV[i]
  if redis.call('HEXISTS', KEYS[1], key) == 1 then
    redis.call('ZADD', KEYS[2], now + tonumber(ARGV[1]), key)
  elseif redis.call('HEXISTS', KEYS[5], key) == 0 and redis.call('HEXISTS', KEYS[6], key) == 0 then
    missing[#missing + 1] = key
  end
end
return missing
"""

# ARGV: limit.
_LIST: Final = """
local found = {}
local due = redis.call('ZRANGE', KEYS[2], 0, tonumber(ARGV[1]) - 1, 'WITHSCORES')
for i = 1, #due, 2 do
  local record = redis.call('HGET', KEYS[1], due[i])
  if record then
    found[#found + 1] = {due[i], record, due[i + 1], redis.call('HGET', KEYS[3], due[i]) or '0'}
  end
end
return found
"""

# ARGV: keys.
_GET: Final = """
local found = {}
for i, key in ipairs(ARGV) do
  local record = redis.call('HGET', KEYS[1], key)
  local due, fence = redis.call('ZSCORE', KEYS[2], key), redis.call('HGET', KEYS[3], key)
  found[i] = record and {record, due or '0', fence or '0'} or 0
end
return found
"""

# ARGV: number of the key that keeps it (5 or 6), key, reason.
_KEEP: Final = f"""
{_NOW}
local record = redis.call('HGET', KEYS[1], ARGV[2])
if record then
  local kept = cjson.encode({{record = record, reason = ARGV[3], at_ms = now}})
  redis.call('HSET', KEYS[tonumber(ARGV[1])], ARGV[2], kept)
  redis.call('HDEL', KEYS[1], ARGV[2])
  redis.call('ZREM', KEYS[2], ARGV[2])
  redis.call('HDEL', KEYS[4], ARGV[2])
end
return 1
"""

_KEPT: Final = """
local found = {}
for number, state in pairs({[5] = 'quarantined', [6] = 'rejected'}) do
  local rows = redis.call('HGETALL', KEYS[number])
  for i = 1, #rows, 2 do
    found[#found + 1] = {rows[i], rows[i + 1], state}
  end
end
return found
"""

# ARGV: key.
_RESTORE: Final = f"""
{_NOW}
for number = 5, 6 do
  local kept = redis.call('HGET', KEYS[number], ARGV[1])
  if kept then
    redis.call('HSET', KEYS[1], ARGV[1], cjson.decode(kept)['record'])
    redis.call('ZADD', KEYS[2], now, ARGV[1])
    redis.call('HDEL', KEYS[4], ARGV[1])
    redis.call('HDEL', KEYS[number], ARGV[1])
    return 1
  end
end
return 0
"""

# ARGV: key, record, reason, at_ms, settled_at_ms.
_KEEP_SETTLED: Final = """
for _, number in ipairs({1, 5, 6}) do
  if redis.call('HEXISTS', KEYS[number], ARGV[1]) == 1 then
    return 0
  end
end
local kept = {record = ARGV[2], reason = ARGV[3], at_ms = tonumber(ARGV[4]), settled_at_ms = tonumber(ARGV[5])}
redis.call('HSET', KEYS[6], ARGV[1], cjson.encode(kept))
return 1
"""

# ARGV: milliseconds since the epoch.
_REMOVE_SETTLED: Final = """
local rows = redis.call('HGETALL', KEYS[6])
for i = 1, #rows, 2 do
  local settled = cjson.decode(rows[i + 1])['settled_at_ms']
  if settled and settled < tonumber(ARGV[1]) then
    redis.call('HDEL', KEYS[6], rows[i])
    redis.call('HDEL', KEYS[3], rows[i])
  end
end
return 1
"""

# ARGV: key.
_DISCARD: Final = """
for number = 1, 6 do
  if number == 2 then
    redis.call('ZREM', KEYS[2], ARGV[1])
  else
    redis.call('HDEL', KEYS[number], ARGV[1])
  end
end
return 1
"""

SCRIPTS: Final = {
    "put": _PUT,
    "settle": _SETTLE,
    "claim": _CLAIM,
    "renew": _RENEW,
    "get": _GET,
    "list": _LIST,
    "keep": _KEEP,
    "kept": _KEPT,
    "restore": _RESTORE,
    "discard": _DISCARD,
    "keep_settled": _KEEP_SETTLED,
    "remove_settled": _REMOVE_SETTLED,
}
