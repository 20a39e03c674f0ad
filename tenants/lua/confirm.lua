-- The ledger has booked the stream up to an entry: applies the differences it found, once each, and trims.
-- KEYS 1 state 2 stream 3 dead; ARGV 1 mark, empty: a Redis without one 2 the last booked entry 3 the entry after it, then
-- for each difference its entry, the month's key or nothing, nano-dollars, and why the entry is put aside or nothing.
-- A difference that was applied has no entry left. Answers how many entries are left; -1: another mark, nothing was done.
if (redis.call('HGET', KEYS[1], 'mark') or '') ~= ARGV[1] then return -1 end
for i = 4, #ARGV, 4 do
  local found = redis.call('XRANGE', KEYS[2], ARGV[i], ARGV[i])[1]
  if found then
    if ARGV[i + 3] ~= '' then
      redis.call('XADD', KEYS[3], '*', 'entry', ARGV[i], 'why', ARGV[i + 3], unpack(found[2]))
    end
    redis.call('XDEL', KEYS[2], ARGV[i])
    if ARGV[i + 1] ~= '' and redis.call('EXISTS', ARGV[i + 1]) == 1 then
      redis.call('HINCRBY', ARGV[i + 1], 'spent', ARGV[i + 2])
      redis.call('HINCRBY', ARGV[i + 1], 'corrected', ARGV[i + 2])
    end
  end
end
redis.call('XTRIM', KEYS[2], 'MINID', ARGV[3])
redis.call('HSET', KEYS[1], 'booked', ARGV[2])
return redis.call('XLEN', KEYS[2])
