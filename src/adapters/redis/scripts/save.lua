-- Replaces a checkpoint, unless a later writer has saved it. KEYS: checkpoint. ARGV: epoch, value.
-- Answer: the highest epoch that has saved; the value was replaced when that is the caller's.
local saved = tonumber(redis.call('HGET', KEYS[1], 'epoch') or '0')
local mine = tonumber(ARGV[1])
if mine < saved then
  return saved
end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'value', ARGV[2])
return mine
