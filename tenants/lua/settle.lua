-- Ends one call: removes its hold, moves its cost into the month's spend, gives back tokens that were reserved and not
-- used, appends the usage event. Whoever removes the hold writes the event. With no hold left the event is appended as
-- `late`: the ledger, which knows every row, makes of it the row that was lost, a correction, or nothing.
-- A script is not undone when it fails on the way, so what can fail comes before the first write.
-- ARGV 1 mark 2 id 3 cost (nano-dollars) 4 tokens 5 event 6 the hold to end if its lease has lapsed; empty: any
-- Answers {1 event written, 2 written as late, 0 somebody else's | -1 another installation's Redis, entry, sequence}
local mark, id, cost, took, event, lapsed = unpack(ARGV)
local PERIOD = {1000000, 60000000}
local ROW = '<ddddddddd' -- the levels of a scope, as in admit.lua
local state = redis.call('HMGET', STATE, 'mark', 'since')
if state[1] and string.sub(state[1], 1, 32) ~= string.sub(mark, 1, 32) then return {-1, '', 0} end
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local hold = redis.call('HGET', HOLDS, id)
if lapsed ~= '' then
  local until_ms = redis.call('ZSCORE', LEASES, id)
  if hold ~= lapsed or (until_ms and tonumber(until_ms) > now / 1000) then return {0, '', 0} end
end
if not string.match(cost, '^%d+$') or not string.match(took, '^%d+$') then
  return redis.error_reply('no amount in the event')
end
if not hold then
  local entry = redis.call('XADD', STREAM, '*', 'event', event, 'late', '1')
  return {2, entry, redis.call('HINCRBY', STATE, 'sequence', 1)}
end
local nano, tokens, at, tenant, key, month, buckets =
  string.match(hold, '^%d+ %d+ %d+|(%d+) (%d+) (%d+) (%S+) (%S+) (%d+)|([^|]*)|')
if not nano then return redis.error_reply('no amount in the hold') end

redis.call('HDEL', HOLDS, id)
redis.call('ZREM', LEASES, id)
local money = MONTH .. tenant .. ':' .. month
redis.call('HINCRBY', money, 'held', 0 - nano)
redis.call('HINCRBY', money, 'spent', cost)
-- What a bucket may give back is bounded by the lowest level it has had since the admission: had the call reserved
-- only what it used, the bucket would have run empty there, and the rest would have been lost (Lindley's recursion).
-- That level is at least the one after admission, less what drained since, less what others got back since.
local unused = tokens - took
local function give_back(row, kind, limit, level, refunded)
  local back, period, given = unused, PERIOD[kind - 2], row[kind + 3]
  if unused > 0 then
    local drained = math.min(now - at, period) * limit
    local others = given - refunded -- negative: the bucket was forgotten meanwhile
    local lowest = level - drained - others * period
    back = others < 0 and 0 or math.max(0, math.min(unused, math.floor(lowest / period)))
  end
  row[kind + 1] = math.max(0, row[kind + 1] - back * period)
  row[kind + 3] = given + math.max(0, back)
end
local began_later = tonumber(at) < (tonumber(state[2]) or 0) -- the buckets, with a rebuild after the admission
local whole_levels, part_levels = tenant .. ':levels', key .. ':levels'
local known = redis.call('HMGET', OPEN, tenant, key, whole_levels, part_levels)
local changed = {}
local function set(field, value)
  changed[#changed + 1] = field
  changed[#changed + 1] = value
end
if unused ~= 0 and not began_later and buckets ~= '-;-;-;-' then
  local kinds = {string.match(buckets, '^(.*);(.*);(.*);(.*)$')}
  for scope = 0, 1 do
    local row, given = known[scope + 3] and {struct.unpack(ROW, known[scope + 3])} or {}, false
    for kind = 3, 4 do
      local limit, level, refunded = string.match(kinds[2 * scope + kind - 2] or '-', '^(%d+),(%d+),(%d+)$')
      if limit and (row[kind + 1] or -1) >= 0 then
        give_back(row, kind, limit, level, refunded)
        given = true
      end
    end
    if given then set(scope == 0 and whole_levels or part_levels, struct.pack(ROW, unpack(row, 1, 9))) end
  end
end
for number, name in ipairs({tenant, key}) do
  local left = (tonumber(known[number]) or 0) - 1
  if left > 0 then set(name, left) else redis.call('HDEL', OPEN, name) end
end
if #changed > 0 then redis.call('HSET', OPEN, unpack(changed)) end
local entry = redis.call('XADD', STREAM, '*', 'event', event, 'at', at)
return {1, entry, redis.call('HINCRBY', STATE, 'sequence', 1)}
