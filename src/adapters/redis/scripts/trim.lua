-- Behind the fence, because what a later writer needs may not be in the archive that this one fills: one step of
-- trimming. Removes entries below a position, at most so many, never beyond the tail.
-- ARGV: epoch, writer token, log id, position that stays, entries at most, bytes after which the step ends.
-- Answer: as the fence; the number is 1 when there is more to do.
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
