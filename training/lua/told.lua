-- Keeps what a provider said of its limits, for all workers: numbers a minute, and how long it wants to be left alone.
-- A refusal slows everybody by a third, once a second at most; each call that goes well gives a hundredth back.
-- KEYS 1 the hash  ARGV 1-3 requests, input tokens, output tokens a minute (0: not told) 4 closed for (us), -1: no refusal
-- 5 calls that went well
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
for number, name in ipairs({'requests', 'input', 'output'}) do
  if tonumber(ARGV[number]) > 0 then redis.call('HSET', KEYS[1], name, ARGV[number]) end
end
local row = redis.call('HMGET', KEYS[1], 'closed', 'factor', 'slowed')
local closed, factor, slowed = tonumber(row[1]) or 0, tonumber(row[2]) or 1, tonumber(row[3]) or 0
local wait = tonumber(ARGV[4])
if wait >= 0 then
  closed = math.max(closed, now + wait)
  if now - slowed > 1000000 then
    factor, slowed = math.max(0.05, factor * 2 / 3), now
  end
end
factor = math.min(1, factor + 0.01 * tonumber(ARGV[5]))
redis.call('HSET', KEYS[1], 'closed', string.format('%.0f', closed), 'factor', tostring(factor), 'slowed',
  string.format('%.0f', slowed))
redis.call('EXPIRE', KEYS[1], 3600)
return {math.max(0, closed - now), math.floor(factor * 1000)}
