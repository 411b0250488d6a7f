-- Writes KEYS[i] = ARGV[2i - 1], unless a greater row is held; the row expires at ARGV[2i], in
-- milliseconds since 1970 ('' for never). Returns how many were written.
--
-- Rows are compared as unsigned bytes. Lua's own string order would not do: it depends on the
-- locale. Words of 32 bits: a Lua number holds them exactly, which of 64 it does not.
local function less(a, b)
  local length = math.min(#a, #b)
  local at = 1
  while at + 3 <= length do
    local x, y = struct.unpack('>I4', a, at), struct.unpack('>I4', b, at)
    if x ~= y then return x < y end
    at = at + 4
  end
  while at <= length do
    local x, y = string.byte(a, at), string.byte(b, at)
    if x ~= y then return x < y end
    at = at + 1
  end
  return #a < #b
end

local written = 0
for i, key in ipairs(KEYS) do
  local new, expires = ARGV[2 * i - 1], ARGV[2 * i]
  local held = redis.call('GET', key)
  local write = not held or less(held, new)
  if write then
    redis.call('SET', key, new)
    written = written + 1
  end
  -- SET has removed the expiry of the row that was replaced.
  if write or held == new then
    if expires ~= '' then
      redis.call('PEXPIREAT', key, expires)
    elseif not write then
      redis.call('PERSIST', key)
    end
  end
end
return written
