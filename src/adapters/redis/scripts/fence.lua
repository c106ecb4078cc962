-- The fence: goes on only for the present writer of the log that it knows. Every script of a writer begins with it.
-- KEYS: stream, meta. ARGV: epoch, writer token, log id, and what the script takes besides.
-- Answer: word, tail, start, bytes, epoch, one number of the script's own.
--   FENCED (a later writer has the log), LOST (not the log that was taken over)
local meta = redis.call('HMGET', KEYS[2], 'log_id', 'epoch', 'writer', 'start', 'tail', 'bytes')
local epoch = tonumber(meta[2] or '0')
local start = tonumber(meta[4] or '1')
local tail = tonumber(meta[5] or '0')
local bytes = tonumber(meta[6] or '0')

local function answer(word, number)
  return {word, tail, start, bytes, epoch, number or 0}
end

-- An epoch below the caller's was issued before it: the data went back in time.
local mine = tonumber(ARGV[1])
if meta[1] ~= ARGV[3] or epoch < mine then
  return answer('LOST')
end
if epoch > mine or meta[3] ~= ARGV[2] then
  return answer('FENCED')
end

