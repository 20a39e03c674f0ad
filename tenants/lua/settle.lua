-- Ends one call: removes its hold, moves its cost into the month's spend, gives back tokens that were reserved and not
-- used, appends the usage event. Whoever removes the hold writes the event. With no hold left the event is appended as
-- `late`: the ledger, which knows every row, makes of it the row that was lost, a correction, or nothing.
-- A script is not undone when it fails on the way, so what can fail comes before the first write.
-- KEYS 1 state 2 holds 3 leases 4 open 5 stream 6 prefix of months 7 prefix of rates
-- ARGV 1 mark 2 id 3 cost (nano-dollars) 4 tokens 5 event 6 the hold to end if its lease has lapsed; empty: any
-- Answers {1 event written, 2 written as late, 0 somebody else's | -1 another installation's Redis, entry, sequence}
local PERIOD = {1000000, 60000000}
local function int(number) return string.format('%.0f', number) end
local state = redis.call('HMGET', KEYS[1], 'mark', 'since')
if state[1] and string.sub(state[1], 1, 32) ~= string.sub(ARGV[1], 1, 32) then return {-1, '', '0'} end
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local row = redis.call('HGET', KEYS[2], ARGV[2])
if ARGV[6] ~= '' then
  local lease = redis.call('ZSCORE', KEYS[3], ARGV[2])
  if row ~= ARGV[6] or (lease and tonumber(lease) > now / 1000) then return {0, '', '0'} end
end
if not string.match(ARGV[3], '^%d+$') or not string.match(ARGV[4], '^%d+$') then
  return redis.error_reply('no amount in the event')
end
if not row then
  local entry = redis.call('XADD', KEYS[5], '*', 'event', ARGV[5], 'late', '1')
  return {2, entry, int(redis.call('HINCRBY', KEYS[1], 'sequence', 1))}
end
local hold, tokens, at, tenant, key, month, buckets =
  string.match(row, '^%d+ %d+ %d+|(%d+) (%d+) (%d+) (%S+) (%S+) (%d+)|([^|]*)|')
if not hold then return redis.error_reply('no amount in the hold') end

redis.call('HDEL', KEYS[2], ARGV[2])
redis.call('ZREM', KEYS[3], ARGV[2])
redis.call('HINCRBY', KEYS[6] .. tenant .. ':' .. month, 'held', int(0 - hold)) -- a hold of nothing: -0 is no integer
redis.call('HINCRBY', KEYS[6] .. tenant .. ':' .. month, 'spent', ARGV[3])
for _, name in ipairs({tenant, key}) do
  if redis.call('HINCRBY', KEYS[4], name, -1) <= 0 then redis.call('HDEL', KEYS[4], name) end
end

-- What a bucket may give back is bounded by the lowest level it has had since the admission: had the call reserved
-- only what it used, the bucket would have run empty there, and the rest would have been lost (Lindley's recursion).
-- That level is at least the one after admission, less what drained since, less what others got back since.
local unused, number = tonumber(tokens) - tonumber(ARGV[4]), 0
if tonumber(at) < (tonumber(state[2]) or 0) then unused = 0 end -- these buckets began after the admission
for bucket in string.gmatch(buckets, '[^;]+') do
  number = number + 1
  local limit, level, refunded = string.match(bucket, '^(%d+),(%d+),(%d+)$')
  if limit and unused ~= 0 then
    local kind = (number - 1) % 2 + 3
    local rates = KEYS[7] .. (number <= 2 and tenant or key)
    local known = redis.call('HMGET', rates, int(kind), 'f' .. int(kind))
    if known[1] then
      local back, period = unused, PERIOD[kind - 2]
      if unused > 0 then
        local drained = math.min(now - at, period) * limit
        local others = (tonumber(known[2]) or 0) - refunded -- negative: the bucket was forgotten meanwhile
        local lowest = level - drained - others * period
        back = others < 0 and 0 or math.max(0, math.min(unused, math.floor(lowest / period)))
      end
      local after = math.max(0, tonumber(known[1]) - back * period)
      local given = (tonumber(known[2]) or 0) + math.max(0, back)
      redis.call('HSET', rates, int(kind), int(after), 'f' .. int(kind), int(given))
    end
  end
end
local entry = redis.call('XADD', KEYS[5], '*', 'event', ARGV[5], 'at', at)
return {1, entry, int(redis.call('HINCRBY', KEYS[1], 'sequence', 1))}
