-- Puts a lapsed hold whose event nobody can read aside for a person, and releases what it held, if that can be read.
-- ARGV 1 id. 1: this call did.
local row = redis.call('HGET', HOLDS, ARGV[1])
local lease = redis.call('ZSCORE', LEASES, ARGV[1])
local clock = redis.call('TIME')
if not row or (lease and tonumber(lease) > clock[1] * 1000 + clock[2] / 1000) then return 0 end
redis.call('XADD', DEAD_STREAM, '*', 'request_id', ARGV[1], 'hold', row)
redis.call('HDEL', HOLDS, ARGV[1])
redis.call('ZREM', LEASES, ARGV[1])
local hold, tenant, key, month = string.match(row, '^%d+ %d+ %d+|(%d+) %d+ %d+ (%S+) (%S+) (%d+)|')
if hold then
  redis.call('HINCRBY', MONTH .. tenant .. ':' .. month, 'held', string.format('%.0f', 0 - hold))
  for _, name in ipairs({tenant, key}) do
    if redis.call('HINCRBY', OPEN, name, -1) <= 0 then redis.call('HDEL', OPEN, name) end
  end
end
return 1
