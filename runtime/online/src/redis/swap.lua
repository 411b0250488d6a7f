-- Sets KEYS[1] = ARGV[1] if it holds ARGV[3], or nothing if there is no ARGV[3], and if this server
-- continues one of the histories of writes that ARGV[2] names by the beginnings of their ids ('' for
-- whichever). Returns 1 if so.
if ARGV[2] ~= '' then
  local said = redis.call('INFO', 'replication')
  local id = string.match(said, 'master_replid:(' .. string.rep('%x', 16) .. ')')
  if not id or not string.find(ARGV[2], id, 1, true) then return 0 end
end
if redis.call('GET', KEYS[1]) == (ARGV[3] or false) then
  redis.call('SET', KEYS[1], ARGV[1])
  return 1
end
return 0
