"""Names of keys, and the acts on a stream that have to be one.

Each queue is a stream with one consumer group. Who reads a message has it pending, under the name of its
session; a session is a key that expires, and that its process keeps fresh. What is pending under a name
without a session belongs to nobody: it is added to the stream again, under a new id. So a message in hand is
never taken away because it is held for long, and an id that was given back is void for whoever still has it.

An acknowledged message is deleted from the stream. All scripts may be run again without harm, as after a
lost reply.
"""

from __future__ import annotations

from dataclasses import dataclass

GROUP = "liteflow"
"""The consumer group of each stream."""

BODY, TRACEPARENT, REDELIVERED = b"body", b"traceparent", b"redelivered"
"""Fields of a message. The last one is there only once the message was in somebody's hands."""

_PENDING = """
local function pending(stream, group, id)
  if #redis.call('XPENDING', stream, group, id, id, 1) == 0 then return nil end
  local found = redis.call('XRANGE', stream, id, id)[1]
  if not found then
    redis.call('XACK', stream, group, id)
    return nil
  end
  local fields = found[2]
  if #fields > 2000 then fields = {unpack(fields, 1, 2000)} end
  return fields
end

local function done(stream, group, id)
  redis.call('XACK', stream, group, id)
  redis.call('XDEL', stream, id)
end
"""
"""The fields of a message that is in somebody's hands; a command takes no more than some thousand. What is
added is added before anything is taken away: a server without memory refuses the one and not the other."""

_AGAIN = (
    _PENDING
    + """
local function again(stream, group, id, mark)
  local fields, marked = pending(stream, group, id), false
  if not fields then return end
  for n = 1, #fields, 2 do marked = marked or fields[n] == 'redelivered' end
  if mark == '1' and not marked then
    fields[#fields + 1] = 'redelivered'
    fields[#fields + 1] = '1'
  end
  redis.call('XADD', stream, '*', unpack(fields))
  done(stream, group, id)
end
"""
)

ACKNOWLEDGE = """
redis.call('XACK', KEYS[1], unpack(ARGV))
return redis.call('XDEL', KEYS[1], unpack(ARGV, 2))
"""
"""KEYS: stream. ARGV: group, ids."""

GIVE_BACK = (
    _AGAIN
    + """
for n = 3, #ARGV do again(KEYS[1], ARGV[1], ARGV[n], ARGV[2]) end
"""
)
"""KEYS: stream. ARGV: group, '1' if somebody has seen them, ids."""

DEAD_LETTER = (
    _PENDING
    + """
local fields = pending(KEYS[1], ARGV[1], ARGV[2])
if not fields then return end
for n = 3, #ARGV do fields[#fields + 1] = ARGV[n] end
redis.call('XADD', KEYS[2], '*', unpack(fields))
done(KEYS[1], ARGV[1], ARGV[2])
"""
)
"""KEYS: stream, stream of the dead letters. ARGV: group, id, fields and values to add."""

TAKE_FROM_THE_DEAD = (
    _AGAIN
    + """
if ARGV[4] ~= '0' and not redis.call('SET', KEYS[2], '1', 'NX', 'PX', ARGV[4]) then return {0, 0} end
local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
if consumers.err then return {0, 0} end
local moved, more = 0, 0
for _, told in ipairs(consumers) do
  local name
  for n = 1, #told, 2 do if told[n] == 'name' then name = told[n + 1] end end
  if redis.call('EXISTS', ARGV[2] .. name) == 0 then
    local pending = redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', ARGV[3], name)
    for _, one in ipairs(pending) do again(KEYS[1], ARGV[1], one[1], '1') end
    moved = moved + #pending
    if #pending < tonumber(ARGV[3]) then
      redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], name)
    else
      more = 1
    end
  end
end
return {moved, more}
"""
)
"""KEYS: stream, whose turn it is. ARGV: group, what begins the keys of sessions, how many at a time, and for
how many ms one look is enough for all processes (0: look anyway). Returns how many were given back, and 1 if
there are more."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys and channels of one prefix."""

    prefix: str

    def queue(self, logical: str) -> str:
        """The stream of a queue."""
        return f"{self.prefix}:queue:{logical}"

    @property
    def commands(self) -> str:
        """The stream that others write commands to."""
        return f"{self.prefix}:commands"

    @property
    def dead(self) -> str:
        """The stream of what was refused."""
        return f"{self.prefix}:dead"

    @property
    def replies(self) -> str:
        """What begins the names of streams for answers."""
        return f"{self.prefix}:replies:"

    @property
    def sessions(self) -> str:
        """What begins the keys of sessions; the session's id follows."""
        return f"{self.prefix}:session:"

    def turn(self, stream: str) -> str:
        """Tells that somebody has looked for messages of dead processes a moment ago."""
        return f"{self.prefix}:turn:{stream}"

    def wake(self, session: str, number: int) -> str:
        """The stream by which a reader that waits is called."""
        return f"{self.prefix}:wake:{session}:{number}"

    def topic(self, name: str) -> str:
        """The channel of a broadcast."""
        return f"{self.prefix}:notify:{name}"
