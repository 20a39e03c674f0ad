-- Lets calls to one provider's model go, as many as its limits take: for all workers together, on Redis's clock.
-- Each limit is a virtual schedule (GCRA, ITU-T I.371): a call may go when its turn is at most `early` ahead.
-- KEYS 1 the hash  ARGV 1 calls wanted 2 input tokens 3 output tokens of one call 4 requests a minute while nobody has
-- told a limit 5 early (us)
-- Answers: calls that may go, microseconds until the next look is worth it.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local row = redis.call('HMGET', KEYS[1], 'closed', 'factor', 'requests', 'input', 'output', 'at_requests', 'at_input',
  'at_output')
local closed, factor = tonumber(row[1]) or 0, tonumber(row[2]) or 1
if closed > now then return {0, closed - now} end
local early, wanted, granted, wait = tonumber(ARGV[5]), tonumber(ARGV[1]), 0, 0
local limits = {tonumber(row[3]) or tonumber(ARGV[4]), tonumber(row[4]) or 0, tonumber(row[5]) or 0}
local units = {1, tonumber(ARGV[2]), tonumber(ARGV[3])}
local at = {}
for kind = 1, 3 do at[kind] = math.max(tonumber(row[5 + kind]) or 0, now) end
while granted < wanted do
  for kind = 1, 3 do
    if limits[kind] > 0 then wait = math.max(wait, at[kind] - now - early) end
  end
  if wait > 0 then break end
  for kind = 1, 3 do
    if limits[kind] > 0 then at[kind] = at[kind] + math.ceil(units[kind] * 60000000 / (limits[kind] * factor)) end
  end
  granted = granted + 1
end
if granted > 0 then
  redis.call('HSET', KEYS[1], 'at_requests', string.format('%.0f', at[1]), 'at_input', string.format('%.0f', at[2]),
    'at_output', string.format('%.0f', at[3]))
  redis.call('EXPIRE', KEYS[1], 3600)
end
return {granted, math.ceil(wait)}
