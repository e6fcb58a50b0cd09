-- Reads what the judgement of one commit needs, at one instant.
--
-- KEYS  head, what the keys of runs begin with, ids, revisions, changed, patches, operations, hides
-- ARGV  incarnation, operation id ('' or '=' .. id), then four lists, each with its count before it: run id
--       and revision of those that are put, ids of runs that are revised or patched, ids of hidden ranges, names of
--       counters
--
-- Returns the head, the operation, and a list for each of the four. Of a run that is put: its record without the
-- body, or nothing. Of one that is changed: seq, newest revision, its patches, its last segment.
local head = head_of(KEYS[1])
if not head[1] or is_elsewhere(head, ARGV[1]) then return {head} end
local at = 3
local _, base_of_runs = bases_of(head)
local function list(width, read)
  local found, count = {}, tonumber(ARGV[at])
  for i = 1, count do found[i] = read(at + 1 + (i - 1) * width) end
  at = at + 1 + count * width
  return found
end

local operation = ARGV[2] ~= '' and redis.call('HGET', KEYS[7], string.sub(ARGV[2], 2))
local named = list(2, function(i)
  local seq = redis.call('HGET', KEYS[3], ARGV[i])
  if not seq then return false end
  local record
  if ARGV[i + 1] == '1' then
    record = range(KEYS[2], base_of_runs, tonumber(seq), tonumber(seq))[1]
  else
    record = redis.call('HGET', KEYS[4], seq .. '.' .. ARGV[i + 1])
  end
  return record and string.sub(record, 1, end_of_meta(record))
end)
local newest = list(1, function(i)
  local seq = redis.call('HGET', KEYS[3], ARGV[i])
  if not seq then return false end
  local place = seq .. '.' .. (redis.call('HGET', KEYS[5], seq) or '1')
  local patches = redis.call('HGET', KEYS[6], place)
  local segments = patches and string.match(patches, '^%d+ (%d+)\n')
  local last = segments and segments ~= '0' and redis.call('HGET', KEYS[6], place .. '/segment/' .. segments)
  return {seq, redis.call('HGET', KEYS[5], seq) or '1', patches, last}
end)
local hides = list(1, function(i) return redis.call('HGET', KEYS[8], ARGV[i]) end)
local counters = list(1, function(i) return redis.call('HGET', KEYS[1], ARGV[i]) end)
return {head, operation, named, newest, hides, counters}
