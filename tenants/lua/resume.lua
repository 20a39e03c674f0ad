-- Puts holds back into a Redis that has lost them, before the ledger rebuilds its counters with the holds it finds there.
-- ARGV 1 lease (ms), then for each open call its id and its hold.
-- Answers how many were not there; -1: it carries a mark, so its counters know its holds.
if redis.call('HGET', STATE, 'mark') then return -1 end
local clock = redis.call('TIME')
local lapses = string.format('%.0f', math.floor(clock[1] * 1000 + clock[2] / 1000) + ARGV[1])
local count = 0
for i = 2, #ARGV, 2 do
  if redis.call('HSETNX', HOLDS, ARGV[i], ARGV[i + 1]) == 1 then
    redis.call('ZADD', LEASES, lapses, ARGV[i])
    count = count + 1
  end
end
if count > 0 then redis.call('HINCRBY', STATE, 'sequence', 1) end -- a rebuild under way reads again
return count
