-- Writes a commit that was judged elsewhere, unless the session has moved since it was looked at.
--
-- KEYS  head, and all that the commands write to
-- ARGV  incarnation and version as they were ('' for none), then commands: how many words follow, the command's name,
--       the number of its key, its arguments; one is ours: NAME adds a position to those of a message id
--
-- Returns whether it was written.
local was = redis.call('HMGET', KEYS[1], 'incarnation', 'log')
if (was[1] or '') ~= ARGV[1] or string.match(was[2] or '', '^%d*') ~= ARGV[2] then return 0 end
local at = 3
while at <= #ARGV do
  local count = tonumber(ARGV[at])
  local command = {ARGV[at + 1], KEYS[tonumber(ARGV[at + 2])]}
  for i = 3, count do command[i] = ARGV[at + i] end
  if command[1] == 'NAME' then
    local places = redis.call('HGET', command[2], command[3])
    command = {'HSET', command[2], command[3], (places and places .. ' ' or '') .. command[4]}
  end
  redis.call(unpack(command))
  at = at + count + 1
end
return 1
