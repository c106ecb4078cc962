-- Behind the fence: appends a batch as a whole, and once.
-- ARGV: epoch, writer token, log id, first position, entry ...
-- Answer: as the fence; the number is the position of a conflict or 0.
--   OK, DUP (already there, equal), CONFLICT, GAP, LOST (also: not all of the log)
-- The two keys tell the same, unless one of them was evicted, deleted or edited.
local entries = redis.call('XLEN', KEYS[1])
if entries ~= tail - start + 1 then
  tail = start + entries - 1
  return answer('LOST')
end
local count = #ARGV - 4
if count == 0 then
  return answer('OK')
end

local first = tonumber(ARGV[4])
local last = first + count - 1
if first == tail + 1 then
  local added = 0
  for i = 1, count do
    local entry = ARGV[4 + i]
    local id = string.format('%d-0', first + i - 1)
    local reply = redis.pcall('XADD', KEYS[1], id, 'r', entry)
    -- Only the first can be refused: no memory, no disk, or an id below one that was deleted by hand.
    if type(reply) == 'table' and reply.err then
      if string.find(reply.err, 'equal or smaller', 1, true) then
        return answer('LOST')
      end
      return reply
    end
    added = added + #entry
  end
  tail = last
  bytes = bytes + added
  redis.call('HSET', KEYS[2], 'tail', string.format('%d', tail), 'bytes', string.format('%d', bytes))
  return answer('OK')
end

if first < start or last > tail then
  return answer('GAP')
end
local at = first
while at <= last do
  local page = redis.call('XRANGE', KEYS[1], string.format('%d-0', at), string.format('%d-0', last), 'COUNT', 64)
  if #page == 0 then
    return answer('LOST')
  end
  for _, found in ipairs(page) do
    if found[1] ~= string.format('%d-0', at) or found[2][2] ~= ARGV[5 + at - first] then
      return answer('CONFLICT', at)
    end
    at = at + 1
  end
end
return answer('DUP')
