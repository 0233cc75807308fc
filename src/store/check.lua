-- Does to a key that is nobody's what servers do to theirs, and leaves nothing.
--
-- KEYS[1]: the key. Returns the time.
-- What takes away comes first, where there is nothing yet: who may not do that has left nothing either.
local key = KEYS[1]
redis.call('DEL', key)
redis.call('PEXPIRE', key, 1000)
redis.call('PEXPIREAT', key, string.format('%.0f', (tonumber(redis.call('TIME')[1]) + 1) * 1000))
redis.call('HDEL', key, 'a')
redis.call('HGETALL', key)
redis.call('HGET', key, 'a')
redis.call('HLEN', key)
redis.call('ZREMRANGEBYSCORE', key, '-inf', 0)
redis.call('ZREM', key, 'a')
redis.call('ZSCORE', key, 'a')
redis.call('ZCARD', key)
redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)
redis.call('GETRANGE', key, 0, 0)
redis.call('HSET', key, 'a', 'b')
redis.call('DEL', key)
redis.call('ZADD', key, 1, 'a')
redis.call('DEL', key)
redis.call('XADD', key, 'MAXLEN', '~', 1, '*', 'a', 'b')
redis.call('DEL', key)
redis.call('SET', key, 'a')
redis.call('DEL', key)
return tonumber(redis.call('TIME')[1])
