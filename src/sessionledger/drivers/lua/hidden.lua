-- The hidden rows whose runs overlap a range: rows of one run have its seq as their score, all others 0.
--
-- KEYS  head, hidden, hides
-- ARGV  incarnation, first and last seq
--
-- Returns the head, and of each row what it is and the versions at which ranges of its id were shown again.
local head = head_of(KEYS[1])
if not head[1] or is_elsewhere(head, ARGV[1]) then return {head} end
local page = {}
local function add(first, last)
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], first, last)) do
    local id = string.match(member, '^([^%z]*)%z')
    page[#page + 1] = member
    page[#page + 1] = id ~= '' and redis.call('HGET', KEYS[3], id)
  end
end
add('0', '0')
add(tonumber(ARGV[2]) > 0 and ARGV[2] or '1', ARGV[3])
return {head, page}
