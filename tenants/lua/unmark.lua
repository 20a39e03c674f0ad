-- Takes a Redis out of service until the ledger has rebuilt it. KEYS 1 state; ARGV 1 the mark to remove.
if redis.call('HGET', KEYS[1], 'mark') ~= ARGV[1] then return 0 end
return redis.call('HDEL', KEYS[1], 'mark')
