-- Tells whether the server takes writes of the present writer, by writing what stands there already: a server without
-- memory or disk refuses that as it refuses an append.
-- KEYS: stream, meta. ARGV: epoch, writer token, log id. Answer: as append.lua.
local meta = redis.call('HMGET', KEYS[2], 'log_id', 'epoch', 'writer', 'start', 'tail', 'bytes')
local epoch = tonumber(meta[2] or '0')
local start = tonumber(meta[4] or '1')
local tail = tonumber(meta[5] or '0')
local bytes = tonumber(meta[6] or '0')

local function answer(word)
  return {word, tail, start, bytes, epoch, 0}
end

local mine = tonumber(ARGV[1])
if meta[1] ~= ARGV[3] or epoch < mine or redis.call('XLEN', KEYS[1]) ~= tail - start + 1 then
  return answer('LOST')
end
if epoch > mine or meta[3] ~= ARGV[2] then
  return answer('FENCED')
end
local reply = redis.pcall('HSET', KEYS[2], 'log_id', meta[1])
if type(reply) == 'table' and reply.err then
  return reply
end
return answer('OK')
