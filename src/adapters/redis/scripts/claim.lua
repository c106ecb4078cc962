-- Says who writes in this namespace, unless another instance does.
-- KEYS: writer. ARGV: instance, value, time to live in ms, 1 to take over.
-- Answer: '' when it is ours, else the holder's value, and how long that stands in ms.
local held = redis.call('GET', KEYS[1])
if held and ARGV[4] ~= '1' then
  local ok, holder = pcall(cjson.decode, held)
  if not ok or type(holder) ~= 'table' or holder.instance ~= ARGV[1] then
    return {held, redis.call('PTTL', KEYS[1])}
  end
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return {'', 0}
