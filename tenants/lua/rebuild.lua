-- Sets the counters to what the ledger says and marks this Redis as ours. Only if nothing has happened since the ledger
-- was read: it has no mark, the sequence is the expected one and the stream is empty. Holds that survived stay held.
-- ARGV 1 mark 2 expected sequence 3 new sequence 4 lease (ms) 5 how many months 6 how many epochs 7 full: 1 if the
--      rates are unknown and count as used up, then: for each month
--      its tenant:YYYYMM, spent, corrected; for each epoch its tenant and number; ids of holds whose call is booked.
local function int(number) return string.format('%.0f', number) end
if redis.call('HGET', STATE, 'mark') or redis.call('XLEN', STREAM) > 0 or
  (redis.call('HGET', STATE, 'sequence') or '0') ~= ARGV[2] then return 0 end
local clock = redis.call('TIME')
for _, name in ipairs(redis.call('SMEMBERS', MONTHS)) do redis.call('DEL', name) end
redis.call('DEL', OPEN, MONTHS, EPOCHS)
local at = 8
for _ = 1, tonumber(ARGV[5]) do
  local name = MONTH .. ARGV[at]
  redis.call('HSET', name, 'spent', ARGV[at + 1], 'held', '0', 'corrected', ARGV[at + 2])
  redis.call('SADD', MONTHS, name)
  at = at + 3
end
for _ = 1, tonumber(ARGV[6]) do
  redis.call('HSET', EPOCHS, ARGV[at], ARGV[at + 1])
  at = at + 2
end
for i = at, #ARGV do redis.call('HDEL', HOLDS, ARGV[i]) end
local lapses = int(math.floor(clock[1] * 1000 + clock[2] / 1000) + ARGV[4])
local rows = redis.call('HGETALL', HOLDS)
redis.call('DEL', LEASES)
for i = 1, #rows, 2 do
  local hold, tenant, key, month = string.match(rows[i + 1], '^%d+ %d+ %d+|(%d+) %d+ %d+ (%S+) (%S+) (%d+)|')
  if hold then
    local name = MONTH .. tenant .. ':' .. month
    if redis.call('SADD', MONTHS, name) == 1 then redis.call('HSET', name, 'spent', '0', 'corrected', '0') end
    redis.call('HINCRBY', name, 'held', hold)
    redis.call('HINCRBY', OPEN, tenant, 1)
    redis.call('HINCRBY', OPEN, key, 1)
    redis.call('ZADD', LEASES, lapses, rows[i])
  else
    redis.call('XADD', DEAD_STREAM, '*', 'request_id', rows[i], 'hold', rows[i + 1])
    redis.call('HDEL', HOLDS, rows[i])
  end
end
redis.call('HDEL', STATE, 'booked')
redis.call('HSET', STATE, 'mark', ARGV[1], 'sequence', ARGV[3], 'since',
  ARGV[7] == '1' and int(clock[1] * 1000000 + clock[2]) or '0')
return 1
