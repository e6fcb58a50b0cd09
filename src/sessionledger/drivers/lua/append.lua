-- Appends new runs to one session, each a commit of its own, and makes the session where there is none.
--
-- Python sends all values as they would be if the session stood where it takes it to stand, so that nothing is left but
-- to look and to write. Where the session stands elsewhere, the values are moved there first.
--
-- KEYS  head, what the keys of runs begin with, ids, what those of messages begin with, then, where the server has all
--       keys: the list of the namespace's sessions, that of their names, that of the session's user (if it has one), and
--       the other indexes
-- ARGV  1 incarnation, 2 the log as it is taken to stand ('' of a session of which nothing is known), 3 user ('' or
--       '=' .. id), 4 owner asked for (the same), 5 last_activity_at behind the runs, 6 in 4 bytes each: count of runs,
--       of ids, of messages, of the head's words, of a new session's words, and how many of the other indexes have it
--       not yet, if it stands there; 7 the counters' increments in 8 bytes each, 8 how the session is listed ('' where
--       the lists are on other servers); then the ids, those of runs first, each with its seq or its places; the
--       records; the messages; the head's words (names and values: the log, the counters, and has_summary if there is
--       one); those of a new session; what is put into the other indexes
--
-- All that can be refused is looked at first. Returns nothing where it was refused: then nothing was written, and the
-- commits have to be judged one by one. Else 1, if the session stood there; the head, the counters and the log as it
-- stood, if it did not.
local call, KEYS, ARGV = redis.call, KEYS, ARGV
local stands = call('HMGET', KEYS[1], 'log', 'incarnation')
local created, head = not stands[2], nil
if created then
  if ARGV[1] ~= '1' or ARGV[2] ~= '' then return false end
elseif stands[1] ~= ARGV[2] or stands[2] ~= ARGV[1] then
  head = head_of(KEYS[1])
  if is_elsewhere(head, ARGV[1]) or (head[6] and head[6] ~= '') then return false end
  local user = head[4] and '=' .. head[4] or ''
  if user ~= ARGV[3] or (ARGV[4] ~= '' and user ~= ARGV[4]) then return false end
end

local runs, ids, messages, words, new, lacking = struct.unpack('>I4I4I4I4I4I4', ARGV[6])
local records_at = 9 + 2 * ids
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
    for i = first, math.min(ids, first + AT_ONCE - 1) do names[#names + 1] = ARGV[7 + 2 * i] end
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
  for i = 1, #ARGV[7] / 8 do counters[i] = ARGV[words_at + 2 * i] end
  local version, seq, position, active, largest = log_of(head)
  local ours = {log_of({false, ARGV[words_at + 1]})}
  local versions, seqs, positions = version + runs - ours[1], seq + runs - ours[2], position + messages - ours[3]
  if active > tonumber(ARGV[5]) then ARGV[5] = string.format('%.0f', active) end
  ARGV[words_at + 1] = string.format('%.0f %.0f %.0f %s %.0f', version + runs, seq + runs, position + messages, ARGV[5],
    math.max(largest, ours[5]))
  for i = 1, ids do
    local at, by = 8 + 2 * i, i <= runs and seqs or positions
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
  for i, before in ipairs(#counters > 0 and call('HMGET', KEYS[1], unpack(counters)) or {}) do
    local at, increment = words_at + 1 + 2 * i, struct.unpack('>i8', ARGV[7], 8 * i - 7)
    local total = (before or 0) + increment
    if math.abs(total) < 2 ^ 52 then
      ARGV[at] = string.format('%.0f', total)
    else
      too_large[counters[i]], ARGV[at] = string.format('%.0f', increment), before or '0'
    end
  end
end

local _, seq, position = string.match(ARGV[words_at + 1], '^(%d+) (%d+) (%d+)')
push(KEYS[2], seq - runs, ARGV, records_at, runs)
push(KEYS[4], position - messages, ARGV, messages_at, messages)

for i = 1, #known do
  local at = 8 + 2 * i
  if known[i] then ARGV[at] = known[i] .. ' ' .. ARGV[at] end
end
for first = 1, ids, AT_ONCE do
  call('HSET', KEYS[3], unpack(ARGV, 7 + 2 * first, 8 + 2 * math.min(ids, first + AT_ONCE - 1)))
end

call('HSET', KEYS[1], unpack(ARGV, words_at, (created and entries_at or new_at) - 1))
for name, increment in pairs(too_large) do call('HINCRBY', KEYS[1], name, increment) end

local member = ARGV[8]
if member ~= '' then
  local active, key = ARGV[5], 7
  call('ZADD', KEYS[5], active, member)
  if created then call('ZADD', KEYS[6], 0, member) end
  if ARGV[3] ~= '' then
    call('ZADD', KEYS[7], active, member)
    key = 8
  end
  local last = (created or head) and #ARGV or entries_at + lacking - 1
  for i = entries_at, last do call('ZADD', KEYS[key + i - entries_at], 0, ARGV[i]) end
end
if not head then return 1 end
local answer = head_of(KEYS[1], unpack(counters))
answer[#answer + 1] = stands[1]
return answer
