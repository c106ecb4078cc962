-- Behind the fence: tells whether the server takes writes, by writing what stands there already. A server without
-- memory or disk refuses that as it refuses an append.
-- Answer: as append.lua.
if redis.call('XLEN', KEYS[1]) ~= tail - start + 1 then
  return answer('LOST')
end
local reply = redis.pcall('HSET', KEYS[2], 'log_id', meta[1])
if type(reply) == 'table' and reply.err then
  return reply
end
return answer('OK')
