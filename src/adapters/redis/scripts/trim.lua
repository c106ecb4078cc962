-- One step of trimming: removes entries below a position, at most so many, never beyond the tail, and only for the
-- present writer of the log that it knows: what a later one needs may not be in the archive that this one fills.
-- KEYS: stream, meta. ARGV: epoch, writer token, log id, position that stays, entries at most, bytes after which the
-- step ends.
-- Answer: word, tail, start, bytes, epoch, 1 when there is more to do.
--   OK, FENCED, LOST (not the log that was taken over)
local meta = redis.call('HMGET', KEYS[2], 'log_id', 'epoch', 'writer', 'start', 'tail', 'bytes')
local epoch = tonumber(meta[2] or '0')
local start = tonumber(meta[4] or '1')
local tail = tonumber(meta[5] or '0')
local bytes = tonumber(meta[6] or '0')

local function answer(word, more)
  return {word, tail, start, bytes, epoch, more or 0}
end

-- As in append.lua.
local mine = tonumber(ARGV[1])
if meta[1] ~= ARGV[3] or epoch < mine then
  return answer('LOST')
end
if epoch > mine or meta[3] ~= ARGV[2] then
  return answer('FENCED')
end

local below = math.min(tonumber(ARGV[4]), tail + 1)
local stop = math.min(below, start + tonumber(ARGV[5]))
local at = start
local removed = 0
while at < stop and removed < tonumber(ARGV[6]) do
  local id = string.format('%d-0', stop - 1)
  local page = redis.call('XRANGE', KEYS[1], string.format('%d-0', at), id, 'COUNT', 16)
  if #page == 0 then
    break
  end
  for _, found in ipairs(page) do
    removed = removed + #found[2][2]
    at = tonumber(string.match(found[1], '^%d+')) + 1
  end
end
if at == start then
  return answer('OK')
end
redis.call('XTRIM', KEYS[1], 'MINID', '=', string.format('%d-0', at))
start = at
bytes = bytes - removed
redis.call('HSET', KEYS[2], 'start', string.format('%d', start), 'bytes', string.format('%d', bytes))
return answer('OK', start < below and 1 or 0)
