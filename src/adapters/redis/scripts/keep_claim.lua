-- Renews the claim while nobody else has made one. KEYS: writer. ARGV: value, time to live in ms.
-- Answer: '' when it is ours, else the holder's value.
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then
  return held
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ''
