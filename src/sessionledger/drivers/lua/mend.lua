-- Puts a session where it belongs in a list, unless somebody else has moved it meanwhile.
--
-- KEYS  the list
-- ARGV  member, the score that was seen, the one it should have
if tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or -1) == tonumber(ARGV[2]) then
  redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
end
return 1
