-- A page of a session's switches, by version: one more than the limit, if there is one.
--
-- KEYS  head, switches
-- ARGV  incarnation, limit, first and last version, reverse? ('1')
local head = head_of(KEYS[1])
if not head[1] or is_elsewhere(head, ARGV[1]) then return {head} end
local command, from, to = 'XRANGE', ARGV[3] .. '-0', ARGV[4] .. BEHIND
if ARGV[5] == '1' then command, from, to = 'XREVRANGE', to, from end
return {head, redis.call(command, KEYS[2], from, to, 'COUNT', tonumber(ARGV[2]) + 1)}
