-- Raises epochs to at least these; never lowers one: a loader that read an older row must not undo a change.
-- KEYS 1 epochs; ARGV tenant, epoch, tenant, epoch ...
for i = 1, #ARGV, 2 do
  local known = tonumber(redis.call('HGET', KEYS[1], ARGV[i])) or 0
  if tonumber(ARGV[i + 1]) > known then redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
return 1
