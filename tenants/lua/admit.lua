-- Admits one call or says why not; a refused call consumes nothing. Limits: GCRA (ITU-T I.371) in its form as a
-- continuous-state leaky bucket, in whole numbers: a level counts units x period in microseconds and falls by `limit`
-- every microsecond. All numbers stay below 2^53, so Lua's are exact, and Redis writes them in full.
-- ARGV 1 mark 2 sequence seen 3 id 4 hold (nano-dollars) 5 tokens 6 tenant 7 key 8 month 9 event 10 longest stream
--      11 lease (ms) 12 terms: doubles, little-endian: epoch, good until (us), budget, limits of the tenant (five), of
--      the key (five); -1: none
local mark, seen, id, hold_nano, reserved, tenant, key, month, event, longest, lease, packed = unpack(ARGV)
local PERIOD = {1000000, 60000000, 1000000, 60000000}
-- The levels of a scope: when they were written, the four of them, tokens given back of the last two, the limits of
-- these; -1: none. In binary: reading and writing so many numbers as text was a quarter of this script.
local ROW = '<ddddddddd'
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

local state = redis.call('HMGET', STATE, 'mark', 'sequence', 'since')
local sequence = tonumber(state[2]) or 0
if state[1] == mark and sequence < tonumber(seen) then
  redis.call('HDEL', STATE, 'mark') -- this server has forgotten steps that somebody saw
  state[1] = false
end
if state[1] ~= mark then return {'unmarked', now, sequence} end
-- What to answer if the call is not admitted now: that it was, if it is asked twice.
local function instead(told)
  return redis.call('HEXISTS', HOLDS, id) == 1 and {'ok', now, sequence, -1, 0, 0, -1, 0, 0} or told
end
local terms = {struct.unpack('<ddddddddddddd', packed)}
if tonumber(redis.call('HGET', EPOCHS, tenant) or -1) ~= terms[1] or now >= terms[2] then
  return instead({'stale', now, sequence})
end
if redis.call('XLEN', STREAM) >= tonumber(longest) then return instead({'backlog', now, sequence}) end

local budget, hold, tokens = terms[3], tonumber(hold_nano), tonumber(reserved)
local need = {1, 1, tokens, tokens}
local worst -- the refusal that lasts longest: {number of the limit, limit, value, need, wait in us or -1 for ever}
local refusals = {} -- all of them, seven numbers each: those five, then what was in use and how long it drained (us)
local function refuse(number, limit, value, needed, wait, used, drained)
  for _, fact in ipairs({number, limit, value, needed, wait, used, drained}) do table.insert(refusals, fact) end
  if not worst or (worst[5] >= 0 and (wait < 0 or wait > worst[5])) then worst = {number, limit, value, needed, wait} end
end

-- Puts the call into the levels of one scope, whose first limit is terms[first + 1].
local limited = false
local function fill(row, first, scope, open)
  local at = row[1]
  local passed = math.max(now - (at or tonumber(state[3]) or 0), 0)
  for kind = 1, 4 do
    local limit = terms[first + kind]
    if limit >= 0 then
      local period, units = PERIOD[kind], need[kind]
      local capacity = limit * period
      local level = at and math.max(0, row[kind + 1]) or capacity -- unknown: as if full when Redis was rebuilt
      local used = at and level or -1
      -- Until it is empty: after its limit was lowered a bucket can hold more than drains in a period.
      level = math.max(0, level - math.min(passed, limit > 0 and math.ceil(level / limit) or 0) * limit)
      local after = level + units * period
      row[kind + 1], limited = after, true
      if after > capacity then
        local wait = units > limit and -1 or math.ceil((after - capacity) / limit)
        refuse(scope + kind, limit, math.ceil(level / period), units, wait, used, passed)
      end
    else
      row[kind + 1] = -1 -- it has no limit any more; another one will begin empty
    end
    if kind >= 3 then
      -- What an older call may give back is bounded by what drained since: with another limit nobody knows how much.
      local last = row[kind + 5] or -1
      row[kind + 3] = (row[kind + 3] or 0) + (last >= 0 and last ~= limit and math.max(last, limit) or 0)
      row[kind + 5] = limit
    end
  end
  local limit = terms[first + 5]
  if limit >= 0 and open >= limit then refuse(scope + 5, limit, open, 1, limit == 0 and -1 or 1000000, open, 0) end
end
local whole_levels, part_levels = tenant .. ':levels', key .. ':levels'
local known = redis.call('HMGET', OPEN, tenant, key, whole_levels, part_levels)
local whole_open, part_open = tonumber(known[1]) or 0, tonumber(known[2]) or 0
local whole = known[3] and {struct.unpack(ROW, known[3])} or {} -- the tenant's
local part = known[4] and {struct.unpack(ROW, known[4])} or {} -- the key's
fill(whole, 3, 0, whole_open)
fill(part, 8, 5, part_open)

-- What OpenAI's headers tell of requests and of tokens, put behind `told`: limit (-1: none), what is left, when nothing
-- is in use (us); of each the limit with the least left. `without` is how many of this call to take off the levels.
local function windows(told, without)
  for what = 1, 3, 2 do
    local least, left, empty = -1, 0, 0
    for number = 0, 3 do -- a second's and a minute's, of both scopes
      local row, first, kind = whole, 3, what + number % 2
      if number > 1 then row, first = part, 8 end
      local limit = terms[first + kind]
      if limit >= 0 then
        local level = row[kind + 1] - without * need[kind] * PERIOD[kind]
        local remaining = math.max(0, math.floor((limit * PERIOD[kind] - level) / PERIOD[kind]))
        if least < 0 or remaining < left then
          least, left, empty = limit, remaining, limit > 0 and math.ceil(level / limit) or 0
        end
      end
    end
    local last = #told
    told[last + 1], told[last + 2], told[last + 3] = least, left, empty
  end
  return told
end

local money = MONTH .. tenant .. ':' .. month
local sums = redis.call('HMGET', money, 'spent', 'held')
local used = (tonumber(sums[1]) or 0) + (tonumber(sums[2]) or 0)
if used + hold > budget then
  refuse(11, budget, used, hold, -1, used, 0)
  worst = {11, budget, used, hold, -1}
end
if worst then
  local before = instead()
  if before then return before end
  local minute = REFUSED .. string.format('%.0f', math.floor(now / 60000000))
  redis.call('HINCRBY', minute, tenant .. ' ' .. key .. ' ' .. worst[1], 1)
  redis.call('EXPIRE', minute, 172800)
  local told = windows({'refused', now, sequence, unpack(worst)}, 1)
  for _, fact in ipairs(refusals) do table.insert(told, fact) end
  return told
end

-- Admitted, unless it was before. First write below, and nothing after it can fail.
-- Of a bucket of tokens: limit, level, what was given back; - if there is none.
local function bucket(row, kind, limit)
  return limit < 0 and '-' or string.format('%.0f,%.0f,%.0f', limit, row[kind + 1], row[kind + 3])
end
local buckets = bucket(whole, 3, terms[6]) .. ';' .. bucket(whole, 4, terms[7]) .. ';' ..
  bucket(part, 3, terms[11]) .. ';' .. bucket(part, 4, terms[12])
local facts = hold_nano .. ' ' .. reserved .. string.format(' %.0f ', now) .. tenant .. ' ' .. key .. ' ' .. month
if redis.call('HSETNX', HOLDS, id, '0 0 0|' .. facts .. '|' .. buckets .. '|' .. event) == 0 then return instead() end
redis.call('ZADD', LEASES, math.floor(now / 1000) + lease, id)
if limited or known[3] or known[4] then
  whole[1], part[1] = now, now
  redis.call('HSET', OPEN, tenant, whole_open + 1, key, part_open + 1, whole_levels,
    struct.pack(ROW, unpack(whole, 1, 9)), part_levels, struct.pack(ROW, unpack(part, 1, 9)))
else
  redis.call('HSET', OPEN, tenant, whole_open + 1, key, part_open + 1)
end
if not sums[1] then
  redis.call('HSET', money, 'spent', '0')
  redis.call('SADD', MONTHS, money)
end
redis.call('HINCRBY', money, 'held', hold_nano)
return windows({'ok', now, redis.call('HINCRBY', STATE, 'sequence', 1)}, 0)
