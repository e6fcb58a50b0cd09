-- Appends new runs to one session, each a commit of its own, and makes the session where there is none.
--
-- Python sends all values as they would be if the session stood where it takes it to stand, so that nothing is left but
-- to look and to write. Where the session stands elsewhere, the values are moved there first.
--
-- KEYS  head, what the keys of runs begin with, ids, what those of messages begin with, then, where the server has all
--       keys: the list of the namespace's sessions, that of their names, that of the session's user (if it has one), and
--       the other indexes
-- ARGV  1 incarnation, 2 to 5 where the session is taken to stand: version, runs, messages, last_activity_at (of none:
--       0, and nothing), 6 user ('' or '=' .. id), 7 owner asked for (the same), 8 in 4 bytes each: count of runs, of
--       ids, of messages, of the head's words, of a new session's words, and how many of the other indexes have it not
--       yet, if it stands there; 9 the counters' increments in 8 bytes each, 10 how the session is listed ('' where the
--       lists are on other servers); then the ids, those of runs first, each with its seq or its places; the records;
--       the messages; the head's words (names and values: version, runs, messages, last_activity_at, largest, the
--       counters, and has_summary if there is one); those of a new session; what is put into the other indexes
--
-- All that can be refused is looked at first. Returns nothing where it was refused: then nothing was written, and the
-- commits have to be judged one by one. Else 1, if the session stood there; the head and the counters, if it did not.
local call, KEYS, ARGV = redis.call, KEYS, ARGV
local stands = call('HMGET', KEYS[1], 'version', 'runs', 'messages', 'last_activity_at', 'incarnation')
local created, head = not stands[5], nil
if created then
  if ARGV[1] ~= '1' or ARGV[2] ~= '0' then return false end
elseif stands[1] ~= ARGV[2] or stands[2] ~= ARGV[3] or stands[3] ~= ARGV[4] or stands[4] ~= ARGV[5]
    or stands[5] ~= ARGV[1] then
  head = head_of(KEYS[1])
  if is_elsewhere(head, ARGV[1]) or (head[9] and head[9] ~= '') then return false end
  local user = head[6] and '=' .. head[6] or ''
  if user ~= ARGV[6] or (ARGV[7] ~= '' and user ~= ARGV[7]) then return false end
end

local runs, ids, messages, words, new, lacking = struct.unpack('>I4I4I4I4I4I4', ARGV[8])
local records_at = 11 + 2 * ids
local messages_at = records_at + runs
local words_at = messages_at + messages
local new_at = words_at + words
local entries_at = new_at + new
local AT_ONCE = 1000 -- a call takes no more than some thousands of values

-- Where ids are already; those of runs are among the first.
local known = {}
if not created then
  for first = 1, ids, AT_ONCE do
    local names = {}
    for i = first, math.min(ids, first + AT_ONCE - 1) do names[#names + 1] = ARGV[9 + 2 * i] end
    names = call('HMGET', KEYS[3], unpack(names))
    if first == 1 then
      known = names
    else
      for i = 1, #names do known[first + i - 1] = names[i] end
    end
  end
  for i = 1, runs do
    if known[i] then return false end
  end
end

-- Move all values to where the session stands. Counters are added up exactly, as long as a number of Lua's can be.
local counters, too_large = {}, {}
if head then
  for i = 1, #ARGV[9] / 8 do counters[i] = ARGV[words_at + 8 + 2 * i] end
  local versions, seqs, positions = head[2] - ARGV[2], head[4] - ARGV[3], head[5] - ARGV[4]
  for i = 1, ids do
    local at, by = 10 + 2 * i, i <= runs and seqs or positions
    ARGV[at] = string.gsub(ARGV[at], '%d+', function(place) return string.format('%.0f', place + by) end)
  end
  for i = records_at, messages_at - 1 do
    local seq, version, first, last = struct.unpack('>I8I8I8I8', ARGV[i])
    ARGV[i] = struct.pack('>I8I8I8I8', seq + seqs, version + versions, first + positions, last + positions)
      .. string.sub(ARGV[i], 33)
  end
  for i = messages_at, words_at - 1 do
    local seq = struct.unpack('>I4', ARGV[i], 3)
    ARGV[i] = string.sub(ARGV[i], 1, 2) .. struct.pack('>I4', seq + seqs) .. string.sub(ARGV[i], 7)
  end
  for i, by in ipairs({versions, seqs, positions}) do
    ARGV[words_at + 2 * i - 1] = string.format('%.0f', ARGV[words_at + 2 * i - 1] + by)
  end
  if tonumber(head[8]) > tonumber(ARGV[words_at + 7]) then ARGV[words_at + 7] = head[8] end
  if tonumber(head[15] or 0) > tonumber(ARGV[words_at + 9]) then ARGV[words_at + 9] = head[15] end
  for i, before in ipairs(#counters > 0 and call('HMGET', KEYS[1], unpack(counters)) or {}) do
    local at, increment = words_at + 9 + 2 * i, struct.unpack('>i8', ARGV[9], 8 * i - 7)
    local total = (before or 0) + increment
    if math.abs(total) < 2 ^ 52 then
      ARGV[at] = string.format('%.0f', total)
    else
      too_large[counters[i]], ARGV[at] = string.format('%.0f', increment), before or '0'
    end
  end
end

push(KEYS[2], ARGV[words_at + 3] - runs, ARGV, records_at, runs)
push(KEYS[4], ARGV[words_at + 5] - messages, ARGV, messages_at, messages)

for i = 1, #known do
  local at = 10 + 2 * i
  if known[i] then ARGV[at] = known[i] .. ' ' .. ARGV[at] end
end
for first = 1, ids, AT_ONCE do
  call('HSET', KEYS[3], unpack(ARGV, 9 + 2 * first, 10 + 2 * math.min(ids, first + AT_ONCE - 1)))
end

call('HSET', KEYS[1], unpack(ARGV, words_at, (created and entries_at or new_at) - 1))
for name, increment in pairs(too_large) do call('HINCRBY', KEYS[1], name, increment) end

local member = ARGV[10]
if member ~= '' then
  local active, key = ARGV[words_at + 7], 7
  call('ZADD', KEYS[5], active, member)
  if created then call('ZADD', KEYS[6], 0, member) end
  if ARGV[6] ~= '' then
    call('ZADD', KEYS[7], active, member)
    key = 8
  end
  local last = (created or head) and #ARGV or entries_at + lacking - 1
  for i = entries_at, last do call('ZADD', KEYS[key + i - entries_at], 0, ARGV[i]) end
end
return head and head_of(KEYS[1], unpack(counters)) or 1
