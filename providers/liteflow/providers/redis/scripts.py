"""The three acts on one Redis master, each atomic there, and each for any number of leases.

A lease is a hash ``{token, mark}`` that expires. The mark lives and dies with the lease it is for.
All three may be repeated with the same tokens without harm, as a client does after a lost reply.

KEYS are the leases, ARGV their tokens in the same order, then, but for `RELEASE`, the ttl in ms. The answer
is a list with a number for each.
"""

ACQUIRE = """
local told = {}
for i, key in ipairs(KEYS) do
  local holder = redis.call('HGET', key, 'token')
  if holder and holder ~= ARGV[i] then
    redis.call('HSET', key, 'mark', '1')
    told[i] = redis.call('PTTL', key)
  else
    redis.call('HSET', key, 'token', ARGV[i])
    redis.call('PEXPIRE', key, ARGV[#KEYS + 1])
    told[i] = -1
  end
end
return told
"""
"""-1: got it; else the ms that the holder has left; it is marked."""

EXTEND = """
local told = {}
for i, key in ipairs(KEYS) do
  told[i] = 0
  if redis.call('HGET', key, 'token') == ARGV[i] then
    redis.call('PEXPIRE', key, ARGV[#KEYS + 1])
    told[i] = 1
  end
end
return told
"""
"""1: extended; 0: not ours."""

RELEASE = """
local told = {}
for i, key in ipairs(KEYS) do
  local lease = redis.call('HMGET', key, 'token', 'mark')
  told[i] = 0
  if lease[1] == ARGV[i] then
    redis.call('DEL', key)
    told[i] = lease[2] and 2 or 1
  end
end
return told
"""
"""1: was ours and unmarked; 2: was ours and marked; 0: not ours."""
