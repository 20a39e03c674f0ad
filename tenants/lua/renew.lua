-- Renews the leases of open calls and notes how far each has come. ARGV 1 lease (ms), then
-- for each call its id and "<input tokens> <output tokens> <cost in nano-dollars>". Answers 1 or 0 (no hold left) each.
local clock = redis.call('TIME')
local lapses = string.format('%.0f', math.floor(clock[1] * 1000 + clock[2] / 1000) + ARGV[1])
local found = {}
for i = 2, #ARGV, 2 do
  local rest = string.match(redis.call('HGET', HOLDS, ARGV[i]) or '', '^%d+ %d+ %d+(|.*)$')
  if rest then
    redis.call('HSET', HOLDS, ARGV[i], ARGV[i + 1] .. rest)
    redis.call('ZADD', LEASES, lapses, ARGV[i])
  end
  table.insert(found, rest and 1 or 0)
end
return found
