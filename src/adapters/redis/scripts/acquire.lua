-- Takes a log over: checks that it is whole and not shorter than the caller knows it, then starts a new epoch.
-- KEYS: stream, meta. ARGV: format, candidate log id, writer token, mark's log id or '', mark's position,
-- mark's entry header or '', epoch that the new one must be above.
-- Answer: word, tail, start, bytes, log id, epoch, header of the last entry or ''.
local meta = redis.call('HMGET', KEYS[2], 'format', 'log_id', 'epoch', 'start', 'tail', 'bytes')
local log_id = meta[2] or ''
local epoch = tonumber(meta[3] or '0')
local start = tonumber(meta[4] or '1')
local tail = tonumber(meta[5] or '0')
local bytes = tonumber(meta[6] or '0')

local function answer(word, header)
  return {word, tail, start, bytes, log_id, epoch, header or ''}
end

if meta[1] and meta[1] ~= ARGV[1] then
  epoch = tonumber(meta[1]) or 0
  return answer('VERSION')
end
local entries = redis.call('XLEN', KEYS[1])
if entries ~= tail - start + 1 then
  return answer('DAMAGED', string.format('%d', entries))
end
local mark = tonumber(ARGV[5])
if ARGV[4] ~= '' and (ARGV[4] ~= log_id or tail < mark) then
  return answer('REGRESSED')
end
if ARGV[6] ~= '' and start <= mark then
  local id = string.format('%d-0', mark)
  local found = redis.call('XRANGE', KEYS[1], id, id)
  if not found[1] or string.sub(found[1][2][2], 1, #ARGV[6]) ~= ARGV[6] then
    return answer('DIFFERS')
  end
end

if log_id == '' then
  log_id = ARGV[2]
  redis.call('HSET', KEYS[2], 'format', ARGV[1], 'log_id', log_id, 'start', '1', 'tail', '0', 'bytes', '0')
end
-- A server that was put back to an earlier moment must not give an epoch out twice.
epoch = math.max(epoch, tonumber(ARGV[7])) + 1
redis.call('HSET', KEYS[2], 'epoch', string.format('%d', epoch), 'writer', ARGV[3])
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
return answer('OK', last[1] and string.sub(last[1][2][2], 1, 5))
