-- Reads what a tenant or one of its keys has in use. ARGV 1 tenant 2 the key, or the tenant once more 3 month.
-- Answers {now (us), mark, since, when the levels were written, the four of them, calls under way, spent, held}; each is
-- text or nothing.
local tenant, owner, month = unpack(ARGV)
local clock = redis.call('TIME')
local state = redis.call('HMGET', STATE, 'mark', 'since')
local money = redis.call('HMGET', MONTH .. tenant .. ':' .. month, 'spent', 'held')
local open = redis.call('HMGET', OPEN, owner, owner .. ':levels')
local row = open[2]
local read = {string.format('%.0f', clock[1] * 1000000 + clock[2]), state[1], state[2]}
local levels = {struct.unpack('<ddddd', row or string.rep('\0', 40))}
for number = 1, 5 do read[number + 3] = row and string.format('%.0f', levels[number]) end
read[9], read[10], read[11] = open[1], money[1], money[2]
return read
