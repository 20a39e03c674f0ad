-- The ledger has booked the stream up to an entry: applies the differences it found, once each, and trims.
-- KEYS 1 state 2 stream; ARGV 1 the last booked entry 2 the entry after it, then for each difference its entry, the
-- month's key, nano-dollars. A difference that was applied has no entry left. Answers how many entries are left.
for i = 3, #ARGV, 3 do
  if redis.call('XDEL', KEYS[2], ARGV[i]) == 1 and redis.call('EXISTS', ARGV[i + 1]) == 1 then
    redis.call('HINCRBY', ARGV[i + 1], 'spent', ARGV[i + 2])
    redis.call('HINCRBY', ARGV[i + 1], 'corrected', ARGV[i + 2])
  end
end
redis.call('XTRIM', KEYS[2], 'MINID', ARGV[2])
redis.call('HSET', KEYS[1], 'booked', ARGV[1])
return redis.call('XLEN', KEYS[2])
