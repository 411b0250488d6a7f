-- Writes KEYS[i] = ARGV[2i - 1], unless a greater row is held; the row expires at ARGV[2i], in
-- milliseconds since 1970 ('' for never). Returns how many were written.
--
-- Rows are compared as unsigned bytes. Lua's own string order would not do: it depends on the
-- locale. Redis does nothing else meanwhile, so the pages up to the first difference are compared
-- as strings, which Lua does at once, and only one page word by word. Words of 32 bits: a Lua
-- number holds them exactly, which of 64 it does not.
local PAGE = 4096

local function less(a, b)
  local length = math.min(#a, #b)
  local at = 1
  while at + PAGE <= length and a:sub(at, at + PAGE - 1) == b:sub(at, at + PAGE - 1) do
    at = at + PAGE
  end
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
  if held == new then
    if expires ~= '' then
      redis.call('PEXPIREAT', key, expires)
    else
      redis.call('PERSIST', key)
    end
  elseif not held or less(held, new) then
    -- SET removes the expiry of the row that it replaces.
    redis.call('SET', key, new)
    if expires ~= '' then
      redis.call('PEXPIREAT', key, expires)
    end
    written = written + 1
  end
end
return written
