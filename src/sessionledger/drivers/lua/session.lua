-- All fields of a session but its state.
--
-- KEYS  head
local fields, kept = redis.call('HGETALL', KEYS[1]), {}
for i = 1, #fields, 2 do
  if fields[i] ~= 'state' then
    kept[#kept + 1] = fields[i]
    kept[#kept + 1] = fields[i + 1]
  end
end
return kept
