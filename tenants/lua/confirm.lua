-- The ledger has booked the stream up to an entry: applies the differences it found, once each, and trims.
-- ARGV 1 mark, empty: a Redis without one 2 the last booked entry 3 the entry after it, then for each difference its entry,
-- the month's key or nothing, nano-dollars, and why the entry is put aside or nothing.
-- A difference that was applied has no entry left. Answers how many entries are left; -1: another mark, nothing was done.
if (redis.call('HGET', STATE, 'mark') or '') ~= ARGV[1] then return -1 end
for i = 4, #ARGV, 4 do
  local found = redis.call('XRANGE', STREAM, ARGV[i], ARGV[i])[1]
  if found then
    if ARGV[i + 3] ~= '' then
      redis.call('XADD', DEAD_STREAM, '*', 'entry', ARGV[i], 'why', ARGV[i + 3], unpack(found[2]))
    end
    redis.call('XDEL', STREAM, ARGV[i])
    if ARGV[i + 1] ~= '' and redis.call('EXISTS', ARGV[i + 1]) == 1 then
      redis.call('HINCRBY', ARGV[i + 1], 'spent', ARGV[i + 2])
      redis.call('HINCRBY', ARGV[i + 1], 'corrected', ARGV[i + 2])
    end
  end
end
redis.call('XTRIM', STREAM, 'MINID', ARGV[3])
redis.call('HSET', STATE, 'booked', ARGV[2])
return redis.call('XLEN', STREAM)
