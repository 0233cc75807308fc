-- The servers that share limits out among themselves: one of them says that it is there.
--
-- KEYS[1]: a hash of servers, each with the time by the store's clock until which it counts, in milliseconds.
-- ARGV: the server, for how many milliseconds it counts, 0 if it goes.
-- Answers whether it was known before, and how many there are.
local server, term = ARGV[1], tonumber(ARGV[2])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local was_known, count = 0, 0
local all = redis.pcall('HGETALL', KEYS[1])
if all.err then
  if not string.find(all.err, 'WRONGTYPE', 1, true) then
    return all
  end
  redis.call('DEL', KEYS[1])
  all = {}
end
for i = 1, #all, 2 do
  local until_millis = tonumber(all[i + 1])
  if not until_millis or until_millis <= now then
    redis.call('HDEL', KEYS[1], all[i])
  elseif all[i] == server then
    was_known = 1
  else
    count = count + 1
  end
end
if term == 0 then
  redis.call('HDEL', KEYS[1], server)
  return { was_known, count }
end
redis.call('HSET', KEYS[1], server, string.format('%.0f', now + term))
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', term * 2))
return { was_known, count + 1 }
