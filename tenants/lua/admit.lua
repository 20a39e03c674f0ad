-- Admits one call or says why not; a refused call consumes nothing. Limits: GCRA (ITU-T I.371) in its form as a
-- continuous-state leaky bucket, in whole numbers: a level counts units x period in microseconds and falls by `limit`
-- every microsecond. All numbers stay below 2^53, so Lua's are exact.
-- KEYS 1 state 2 epochs 3 month 4 holds 5 leases 6 open 7 stream 8 rates of the tenant 9 rates of the key
--      10 months 11 refusals (a prefix)
-- ARGV 1 mark 2 sequence seen 3 epoch 4 good until (us) 5 id 6 hold (nano-dollars) 7 tokens 8 budget 9 lease (ms)
--      10 tenant 11 key 12 month 13 event 14 longest stream 15-19 limits of the tenant 20-24 of the key; -1: none
local PERIOD = {1000000, 60000000, 1000000, 60000000}
local function int(number) return string.format('%.0f', number) end
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

local state = redis.call('HMGET', KEYS[1], 'mark', 'sequence', 'since')
local sequence = tonumber(state[2]) or 0
if state[1] and state[1] == ARGV[1] and sequence < tonumber(ARGV[2]) then
  redis.call('HDEL', KEYS[1], 'mark') -- this server has forgotten steps that somebody saw
  state[1] = false
end
if not state[1] or state[1] ~= ARGV[1] then return {'unmarked', int(now), int(sequence)} end
if redis.call('HEXISTS', KEYS[4], ARGV[5]) == 1 then
  return {'ok', int(now), int(sequence), '-1', '0', '0', '-1', '0', '0'} -- asked twice
end
if redis.call('HGET', KEYS[2], ARGV[10]) ~= ARGV[3] or now >= tonumber(ARGV[4]) then
  return {'stale', int(now), int(sequence)}
end
if redis.call('XLEN', KEYS[7]) >= tonumber(ARGV[14]) then return {'backlog', int(now), int(sequence)} end

local tokens = tonumber(ARGV[7])
local need = {1, 1, tokens, tokens}
local worst -- the refusal that lasts longest: {number of the limit, limit, value, need, wait in us or -1 for ever}
local refusals = {} -- all of them, seven numbers each: those five, then what was in use and how long it drained (us)
local function refuse(number, limit, value, needed, wait, used, drained)
  for _, fact in ipairs({number, limit, value, needed, wait, used or value, drained or 0}) do
    table.insert(refusals, int(fact))
  end
  if not worst or (worst[5] >= 0 and (wait < 0 or wait > worst[5])) then worst = {number, limit, value, needed, wait} end
end

-- The levels of one scope with this call in them; `first` is where its limits stand in ARGV.
local function fill(rates, first, scope)
  local row = redis.call('HMGET', rates, 'at', '1', '2', '3', '4', 'f3', 'f4', 'l3', 'l4')
  local at = tonumber(row[1])
  local scoped = {before = {}, levels = {}, limits = {}, gone = {}, refunded = {row[6] or '0', row[7] or '0'}}
  for kind = 1, 4 do
    local limit = tonumber(ARGV[first + kind - 1])
    if limit >= 0 then
      local capacity = limit * PERIOD[kind]
      local level = at and (tonumber(row[kind + 1]) or 0) or capacity -- unknown: as if full when Redis was rebuilt
      local used, since = at and level or -1, at or tonumber(state[3]) or 0
      local passed = math.max(now - since, 0)
      -- Until it is empty: after its limit was lowered a bucket can hold more than drains in a period.
      level = math.max(0, level - math.min(passed, limit > 0 and math.ceil(level / limit) or 0) * limit)
      local after = level + need[kind] * PERIOD[kind]
      scoped.limits[kind], scoped.before[kind], scoped.levels[kind] = limit, level, after
      if after > capacity then
        local wait = need[kind] > limit and -1 or math.ceil((after - capacity) / limit)
        refuse(scope + kind, limit, math.ceil(level / PERIOD[kind]), need[kind], wait, used, passed)
      end
    elseif row[kind + 1] then
      table.insert(scoped.gone, int(kind)) -- it has no limit any more; another one will begin empty
    end
    -- What an older call may give back is bounded by what drained since: with another limit nobody knows how much.
    local last = kind >= 3 and tonumber(row[kind + 5])
    if last and last ~= limit then
      scoped.refunded[kind - 2] = int(tonumber(scoped.refunded[kind - 2]) + math.max(last, limit))
      if limit < 0 then table.insert(scoped.gone, 'l' .. int(kind)) end
    end
  end
  local limit, open = tonumber(ARGV[first + 4]), tonumber(redis.call('HGET', KEYS[6], ARGV[10 + scope / 5]) or 0)
  if limit >= 0 and open >= limit then refuse(scope + 5, limit, open, 1, limit == 0 and -1 or 1000000) end
  return scoped
end
local tenant, key = fill(KEYS[8], 15, 0), fill(KEYS[9], 20, 5)

-- What OpenAI's headers tell of requests and of tokens: limit (-1: none), what is left, when nothing is in use (us); of
-- each the limit with the least left.
local function windows(levels)
  local told = {}
  for _, scoped in ipairs({tenant, key}) do
    for kind = 1, 4 do
      local limit, level = scoped.limits[kind], scoped[levels][kind]
      if limit then
        local what = kind <= 2 and 1 or 2
        local remaining = math.max(0, math.floor((limit * PERIOD[kind] - level) / PERIOD[kind]))
        if not told[what] or remaining < told[what][2] then
          told[what] = {limit, remaining, limit > 0 and math.ceil(level / limit) or 0}
        end
      end
    end
  end
  local flat = {}
  for what = 1, 2 do
    for _, number in ipairs(told[what] or {-1, 0, 0}) do table.insert(flat, int(number)) end
  end
  return flat
end

local month = redis.call('HMGET', KEYS[3], 'spent', 'held')
local hold, used = tonumber(ARGV[6]), (tonumber(month[1]) or 0) + (tonumber(month[2]) or 0)
if used + hold > tonumber(ARGV[8]) then
  refuse(11, tonumber(ARGV[8]), used, hold, -1)
  worst = {11, tonumber(ARGV[8]), used, hold, -1}
end
if worst then
  local minute = KEYS[11] .. int(math.floor(now / 60000000))
  redis.call('HINCRBY', minute, ARGV[10] .. ' ' .. ARGV[11] .. ' ' .. worst[1], 1)
  redis.call('EXPIRE', minute, 172800)
  local told = {'refused', int(now), int(sequence)}
  for _, fact in ipairs(worst) do table.insert(told, int(fact)) end
  for _, fact in ipairs(windows('before')) do table.insert(told, fact) end
  for _, fact in ipairs(refusals) do table.insert(told, fact) end
  return told
end

-- Admitted. First write below, and nothing after it can fail.
local told, buckets = windows('levels'), {}
for _, pair in ipairs({{KEYS[8], tenant}, {KEYS[9], key}}) do
  local rates, scoped = pair[1], pair[2]
  local fields, lasts = {'at', int(now)}, 120000 -- ms
  local function set(field, value)
    table.insert(fields, field)
    table.insert(fields, value)
  end
  for kind = 1, 4 do
    local limit, level = scoped.limits[kind], scoped.levels[kind]
    if limit then
      set(int(kind), int(level))
      if limit > 0 then lasts = math.max(lasts, math.ceil(level / limit / 1000)) end
    end
    if kind >= 3 then
      local refunded = scoped.refunded[kind - 2]
      if limit then set('l' .. int(kind), int(limit)) end
      if refunded ~= '0' then set('f' .. int(kind), refunded) end
      table.insert(buckets, limit and int(limit) .. ',' .. int(level) .. ',' .. refunded or '-')
    end
  end
  if #scoped.gone > 0 then redis.call('HDEL', rates, unpack(scoped.gone)) end
  if #fields > 2 then
    redis.call('HSET', rates, unpack(fields))
    redis.call('PEXPIRE', rates, int(lasts))
  end
end
if not month[1] then
  redis.call('HSET', KEYS[3], 'spent', '0')
  redis.call('SADD', KEYS[10], KEYS[3])
end
redis.call('HINCRBY', KEYS[3], 'held', ARGV[6])
redis.call('HINCRBY', KEYS[6], ARGV[10], 1)
redis.call('HINCRBY', KEYS[6], ARGV[11], 1)
local facts = table.concat({ARGV[6], ARGV[7], int(now), ARGV[10], ARGV[11], ARGV[12]}, ' ')
redis.call('HSET', KEYS[4], ARGV[5], '0 0 0|' .. facts .. '|' .. table.concat(buckets, ';') .. '|' .. ARGV[13])
redis.call('ZADD', KEYS[5], int(math.floor(now / 1000) + ARGV[9]), ARGV[5])
sequence = redis.call('HINCRBY', KEYS[1], 'sequence', 1)
return {'ok', int(now), int(sequence), unpack(told)}
