-- Sets KEYS[1] = ARGV[1] if it holds ARGV[2], or nothing if there is no ARGV[2]. Returns 1 if so.
if redis.call('GET', KEYS[1]) == (ARGV[2] or false) then
  redis.call('SET', KEYS[1], ARGV[1])
  return 1
end
return 0
