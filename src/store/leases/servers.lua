-- The servers that share limits out among themselves: one of them says that it is there.
--
-- KEYS[1]: a sorted set of servers by the time by the store's clock until which each counts, in milliseconds. Of many servers, the store
-- looks at those that are over, and at this one.
-- ARGV: the server, for how many milliseconds it counts, 0 if it goes.
-- Answers whether it was known before, and how many there are.
local server, term = ARGV[1], tonumber(ARGV[2])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local gone = redis.pcall('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
if type(gone) == 'table' and gone.err then
  -- Somebody else's key would keep the servers from each other for ever.
  if not string.find(gone.err, 'WRONGTYPE', 1, true) then
    return gone
  end
  redis.call('DEL', KEYS[1])
end
local was_known = redis.call('ZSCORE', KEYS[1], server) and 1 or 0
if term == 0 then
  redis.call('ZREM', KEYS[1], server)
else
  redis.call('ZADD', KEYS[1], string.format('%.0f', now + term), server)
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', term * 2))
end
return { was_known, redis.call('ZCARD', KEYS[1]) }
