-- A server's share of one user's limit over all servers, from now on.
--
-- KEYS[1]: a hash of the servers that have a share, each "SHARE:ID:EXPIRES", the last in milliseconds by the store's clock.
-- ARGV: the server, the call's id, what it counts on in any case, what it needs, what it would like, the limit, its term in ms.
-- Answers what is noted: the share, the id that it is by, the shares of all others, the store's time in milliseconds, and 1 if there was
-- something else than a hash under the key.
local server = ARGV[1]
local id, floor, need, wish = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local limit, term = tonumber(ARGV[6]), tonumber(ARGV[7])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local noted, noted_id, others, last, mended = 0, 0, 0, 0, 0
local all = redis.pcall('HGETALL', KEYS[1])
if all.err then
  -- Somebody else's key would keep this user without shares for ever.
  if not string.find(all.err, 'WRONGTYPE', 1, true) then
    return all
  end
  redis.call('DEL', KEYS[1])
  all, mended = {}, 1
end
for i = 1, #all, 2 do
  local share, by, expires = string.match(all[i + 1], '^(%d+):(%d+):(%d+)$')
  share, by, expires = tonumber(share), tonumber(by), tonumber(expires)
  if not expires or expires <= now then
    redis.call('HDEL', KEYS[1], all[i])
  elseif all[i] == server then
    noted, noted_id, last = share, by, math.max(last, expires)
  else
    others, last = others + share, math.max(last, expires)
  end
end
-- A call that comes after a later one, or twice, changes nothing.
if id <= noted_id then
  return { noted, noted_id, others, now, mended }
end
-- Nothing is taken back that may be in use. More than is needed comes out of the first half of the limit only, so that what
-- nobody uses keeps nobody out of the other half.
local left = math.max(0, limit - others)
local spare = math.max(0, math.floor(limit / 2) - others)
local share = math.max(floor, math.min(need, left), math.min(wish, left, spare))
if share == 0 then
  redis.call('HDEL', KEYS[1], server)
else
  last = math.max(last, now + term)
  redis.call('HSET', KEYS[1], server, string.format('%.0f:%.0f:%.0f', share, id, now + term))
end
if last > 0 then
  redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', last))
end
return { share, id, others, now, mended }
