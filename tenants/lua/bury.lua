-- Puts a lapsed hold that nobody can read aside for a person. KEYS 1 holds 2 leases 3 dead; ARGV 1 id. 1: this call did.
local row = redis.call('HGET', KEYS[1], ARGV[1])
local lease = redis.call('ZSCORE', KEYS[2], ARGV[1])
local clock = redis.call('TIME')
if not row or (lease and tonumber(lease) > clock[1] * 1000 + clock[2] / 1000) then return 0 end
redis.call('XADD', KEYS[3], '*', 'request_id', ARGV[1], 'hold', row)
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
