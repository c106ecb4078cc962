-- One step of trimming: removes entries below a position, at most so many, never beyond the tail.
-- KEYS: stream, meta. ARGV: position that stays, entries at most, bytes after which the step ends, writer token or ''.
-- Answer: tail, start, bytes, 1 when there is more to do, -1 when a later writer has taken the log over: what it needs
-- may not be in the archive that this one fills.
local meta = redis.call('HMGET', KEYS[2], 'start', 'tail', 'bytes', 'writer')
local start = tonumber(meta[1] or '1')
local tail = tonumber(meta[2] or '0')
local bytes = tonumber(meta[3] or '0')
if ARGV[4] ~= '' and meta[4] ~= ARGV[4] then
  return {tail, start, bytes, -1}
end
local below = math.min(tonumber(ARGV[1]), tail + 1)
local stop = math.min(below, start + tonumber(ARGV[2]))

local at = start
local removed = 0
while at < stop and removed < tonumber(ARGV[3]) do
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
if at > start then
  redis.call('XTRIM', KEYS[1], 'MINID', '=', string.format('%d-0', at))
  start = at
  bytes = bytes - removed
  redis.call('HSET', KEYS[2], 'start', string.format('%d', start), 'bytes', string.format('%d', bytes))
  return {tail, start, bytes, start < below and 1 or 0}
end
return {tail, start, bytes, 0}
