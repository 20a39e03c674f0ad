-- Raises epochs to at least these; never lowers one: a loader that read an older row must not undo a change.
-- ARGV tenant, epoch, tenant, epoch ...
for i = 1, #ARGV, 2 do
  local known = tonumber(redis.call('HGET', EPOCHS, ARGV[i])) or 0
  if tonumber(ARGV[i + 1]) > known then redis.call('HSET', EPOCHS, ARGV[i], ARGV[i + 1]) end
end
return 1
