-- Makes one of what the store has of each entry and what a server has, and tells the others what has changed.
--
-- KEYS: the hash of entries, and the stream of what has changed. ARGV: how many there may be, then an id and a state for each.
-- Returns how many have changed, and the ids for which there is no room.
-- As `Entry::merged` does: a state is two terms, of which each begins with how often it was revoked, and up to which of these times undone.
local function read(text)
    local numbers = {}
    for word in string.gmatch(string.sub(text or '', 1, 256), '%d+') do
        numbers[#numbers + 1] = tonumber(word)
    end
    return #numbers == 8 and numbers or { 0, 0, 0, 0, 0, 0, 0, 0 }
end

local function merge(merged, one, other, first, last)
    for j = first, last do
        if j == first + 1 or one[first] == other[first] then
            merged[j] = math.max(one[j], other[j])
        else
            merged[j] = one[first] > other[first] and one[j] or other[j]
        end
    end
end

local most = tonumber(ARGV[1])
local count = redis.call('HLEN', KEYS[1])
local changed, refused = 0, {}
for i = 2, #ARGV, 2 do
    local known = redis.call('HGET', KEYS[1], ARGV[i])
    local one, other = read(known), read(ARGV[i + 1])
    local merged = {}
    merge(merged, one, other, 1, 3)
    merge(merged, one, other, 4, 8)
    local text = string.format('%.0f %.0f %.0f %.0f %.0f %.0f %.0f %.0f', unpack(merged))
    if not known and count >= most then
        refused[#refused + 1] = ARGV[i]
    elseif text ~= known then
        redis.call('HSET', KEYS[1], ARGV[i], text)
        redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[1], '*', 'entry', ARGV[i], 'is', text)
        changed = changed + 1
        if not known then
            count = count + 1
        end
    end
end
return { changed, refused }
