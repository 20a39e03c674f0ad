-- Takes a Redis out of service until the ledger has rebuilt it. ARGV 1 the mark to remove.
if redis.call('HGET', STATE, 'mark') ~= ARGV[1] then return 0 end
return redis.call('HDEL', STATE, 'mark')
