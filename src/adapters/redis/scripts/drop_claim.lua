-- Gives the claim up while it is ours. KEYS: writer. ARGV: value. Answer: 1 when it was.
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
