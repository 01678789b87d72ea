"""The three acts on one Redis master, each atomic there.

A lease is a hash ``{token, mark}`` that expires. The mark lives and dies with the lease it is for.
All three may be repeated with the same token without harm, as a client does after a lost reply.
"""

ACQUIRE = """
local holder = redis.call('HGET', KEYS[1], 'token')
if holder and holder ~= ARGV[1] then
  redis.call('HSET', KEYS[1], 'mark', '1')
  return redis.call('PTTL', KEYS[1])
end
redis.call('HSET', KEYS[1], 'token', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return -1
"""
"""KEYS: lease. ARGV: token, ttl in ms. -1: got it; else the ms that the holder has left; it is marked."""

EXTEND = """
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""
"""KEYS: lease. ARGV: token, ttl in ms. 1: extended; 0: not ours."""

RELEASE = """
local lease = redis.call('HMGET', KEYS[1], 'token', 'mark')
if lease[1] ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
if lease[2] then return 2 end
return 1
"""
"""KEYS: lease. ARGV: token. 1: was ours and unmarked; 2: was ours and marked; 0: not ours."""
