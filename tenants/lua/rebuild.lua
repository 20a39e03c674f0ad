-- Sets the counters to what the ledger says and marks this Redis as ours. Only if nothing has happened since the ledger
-- was read: it has no mark, the sequence is the expected one and the stream is empty. Holds that survived stay held.
-- KEYS 1 state 2 stream 3 holds 4 leases 5 open 6 months 7 epochs 8 prefix of months 9 dead
-- ARGV 1 mark 2 expected sequence 3 new sequence 4 lease (ms) 5 how many months 6 how many epochs 7 full: 1 if the
--      rates are unknown and count as used up, then: for each month
--      its tenant:YYYYMM, spent, corrected; for each epoch its tenant and number; ids of holds whose call is booked.
local function int(number) return string.format('%.0f', number) end
if redis.call('HGET', KEYS[1], 'mark') or redis.call('XLEN', KEYS[2]) > 0 or
  (redis.call('HGET', KEYS[1], 'sequence') or '0') ~= ARGV[2] then return 0 end
local clock = redis.call('TIME')
for _, name in ipairs(redis.call('SMEMBERS', KEYS[6])) do redis.call('DEL', name) end
redis.call('DEL', KEYS[5], KEYS[6], KEYS[7])
local at = 8
for _ = 1, tonumber(ARGV[5]) do
  local name = KEYS[8] .. ARGV[at]
  redis.call('HSET', name, 'spent', ARGV[at + 1], 'held', '0', 'corrected', ARGV[at + 2])
  redis.call('SADD', KEYS[6], name)
  at = at + 3
end
for _ = 1, tonumber(ARGV[6]) do
  redis.call('HSET', KEYS[7], ARGV[at], ARGV[at + 1])
  at = at + 2
end
for i = at, #ARGV do redis.call('HDEL', KEYS[3], ARGV[i]) end
local lapses = int(math.floor(clock[1] * 1000 + clock[2] / 1000) + ARGV[4])
local rows = redis.call('HGETALL', KEYS[3])
redis.call('DEL', KEYS[4])
for i = 1, #rows, 2 do
  local hold, tenant, key, month = string.match(rows[i + 1], '^%d+ %d+ %d+|(%d+) %d+ %d+ (%S+) (%S+) (%d+)|')
  if hold then
    local name = KEYS[8] .. tenant .. ':' .. month
    if redis.call('SADD', KEYS[6], name) == 1 then redis.call('HSET', name, 'spent', '0', 'corrected', '0') end
    redis.call('HINCRBY', name, 'held', hold)
    redis.call('HINCRBY', KEYS[5], tenant, 1)
    redis.call('HINCRBY', KEYS[5], key, 1)
    redis.call('ZADD', KEYS[4], lapses, rows[i])
  else
    redis.call('XADD', KEYS[9], '*', 'request_id', rows[i], 'hold', rows[i + 1])
    redis.call('HDEL', KEYS[3], rows[i])
  end
end
redis.call('HDEL', KEYS[1], 'booked')
redis.call('HSET', KEYS[1], 'mark', ARGV[1], 'sequence', ARGV[3], 'since',
  ARGV[7] == '1' and int(clock[1] * 1000000 + clock[2]) or '0')
return 1
