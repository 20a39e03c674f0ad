-- Reads every counter in one step and puts what it read into the usage stream, where the ledger meets it in order.
-- ARGV 1 mark 2 nonce.
-- Answers the entry and what it read; nothing without our mark.
if redis.call('HGET', STATE, 'mark') ~= ARGV[1] then return {} end
local clock = redis.call('TIME')
local function int(number) return string.format('%.0f', number) end
local months, holds, open, count, unread = {}, {}, {}, 0, 0
for _, name in ipairs(redis.call('SMEMBERS', MONTHS)) do
  local row = redis.call('HMGET', name, 'spent', 'held', 'corrected')
  months[string.sub(name, #MONTH + 1)] = {row[1] or '0', row[2] or '0', row[3] or '0'}
end
local calls = {}
for _, row in ipairs(redis.call('HVALS', HOLDS)) do
  local hold, tenant, key, month = string.match(row, '^[^|]*|(%d+) %d+ %d+ (%S+) (%S+) (%d+)|')
  if hold then
    count = count + 1
    local name = tenant .. ':' .. month
    holds[name] = (holds[name] or 0) + hold
    calls[tenant] = (calls[tenant] or 0) + 1
    calls[key] = (calls[key] or 0) + 1
  else
    unread = unread + 1
  end
end
for name, sum in pairs(holds) do holds[name] = int(sum) end
for name, sum in pairs(calls) do calls[name] = int(sum) end
local raw = redis.call('HGETALL', OPEN)
for i = 1, #raw, 2 do
  if string.sub(raw[i], -7) ~= ':levels' then open[raw[i]] = raw[i + 1] end
end
local read = {at = int(clock[1] * 1000000 + clock[2]), months = months, holds = holds, calls = calls, open = open,
  count = int(count), unread = int(unread)}
local text = cjson.encode(read)
return {redis.call('XADD', STREAM, '*', 'proof', text, 'nonce', ARGV[2]), text}
