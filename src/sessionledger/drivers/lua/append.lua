-- Appends new runs to one session, each a commit of its own, and makes the session where there is none.
--
-- KEYS  head, what the keys of runs begin with, run_ids, what those of names and of messages begin with, message_ids,
--       then, where the server has all keys: the list of the namespace's sessions, that of their names, that of the
--       session's user (if it has one), and the other indexes
-- ARGV  1 incarnation, 2 user ('' or '=' .. id), 3 owner asked for (the same), 4 at, 5 created_at, 6 header, 7 body,
--       8 state, 9 how the session is listed ('' where the lists are on other servers), 10 count of counters, each name
--       and increment; then the length of the largest message; then count of runs, of each: run id, summary?, its
--       record's end, count of messages, each, count of message ids, of each its place in the run and its digest;
--       then what is put into the other indexes
--
-- All that can be refused is looked at first. Returns the head as it is behind them all, or nothing: then nothing was
-- written, and the commits have to be judged one by one.
local function add(names, ...)
  for i = 1, select('#', ...) do names[#names + 1] = select(i, ...) end
end

-- the counters are read with the head: a call costs more than what it reads
local HEAD_FIELDS = 15
local counters, fields = tonumber(ARGV[10]), {}
for i = 1, counters do fields[i] = ARGV[9 + 2 * i] end
local head = head_of(KEYS[1], unpack(fields))
local created = not head[1]

if created then
  if ARGV[1] ~= '1' then return false end
else
  if is_elsewhere(head, ARGV[1]) or (head[9] and head[9] ~= '') then return false end
  local user = head[6] and '=' .. head[6] or ''
  if user ~= ARGV[2] or (ARGV[3] ~= '' and user ~= ARGV[3]) then return false end
end

-- where each run begins in ARGV, and whether it is there
local at = 12 + 2 * counters
local largest, count, runs, names = ARGV[at - 1], tonumber(ARGV[at]), {}, {}
at = at + 1
for i = 1, count do
  runs[i], names[i] = at, ARGV[at]
  at = at + 4 + tonumber(ARGV[at + 3])
  at = at + 1 + 2 * tonumber(ARGV[at])
end
if not created then
  for _, seq in ipairs(redis.call('HMGET', KEYS[3], unpack(names))) do
    if seq then return false end
  end
end

local version, seq, last = tonumber(head[2] or 0), tonumber(head[4] or 0), tonumber(head[5] or 0)
local numbers, records, messages, has_summary = {}, {}, {}, head[12] == '1'
local ids, places = {}, {}
local before, position = seq, last
for i = 1, count do
  local from = runs[i]
  seq, version = seq + 1, version + 1
  local number, first = string.format('%.0f', seq), position + 1
  numbers[2 * i - 1], numbers[2 * i] = ARGV[from], number
  has_summary = has_summary or ARGV[from + 1] == '1'
  local size = tonumber(ARGV[from + 3])
  local mark = '\151\206' .. struct.pack('>I4', seq)
  for message = from + 4, from + 3 + size do messages[#messages + 1] = mark .. ARGV[message] end
  position = position + size
  local id = from + 4 + size
  for at_id = id + 1, id + 2 * tonumber(ARGV[id]), 2 do
    ids[#ids + 1] = ARGV[at_id + 1]
    places[#places + 1] = string.format('%.0f', first + tonumber(ARGV[at_id]))
  end
  records[i] = struct.pack('>I8I8I8I8', seq, version, first, position) .. ARGV[from + 2]
end
push(KEYS[2], before, records)
push(KEYS[4], before, names)
push(KEYS[5], last, messages)
last = position
redis.call('HSET', KEYS[3], unpack(numbers))

-- An id that comes again has all its places. Some at a time: a call takes no more than some thousands of values.
for from = 1, #ids, 1000 do
  local to = math.min(#ids, from + 999)
  local known = created and {} or redis.call('HMGET', KEYS[6], unpack(ids, from, to))
  local pairs_of, at_id = {}, {}
  for i = from, to do
    local id = ids[i]
    local slot = at_id[id]
    if slot then
      pairs_of[slot] = pairs_of[slot] .. ' ' .. places[i]
    else
      slot = #pairs_of + 2
      at_id[id] = slot
      pairs_of[slot - 1] = id
      pairs_of[slot] = (known[i - from + 1] and known[i - from + 1] .. ' ' or '') .. places[i]
    end
  end
  redis.call('HSET', KEYS[6], unpack(pairs_of))
end

-- Counters are added up here, exactly, as long as a number of Lua's can be.
local changed = {}
for i = 1, counters do
  local total = tonumber(head[HEAD_FIELDS + i] or 0) + tonumber(ARGV[10 + 2 * i])
  if math.abs(total) < 2 ^ 52 then
    add(changed, fields[i], string.format('%.0f', total))
  else
    redis.call('HINCRBY', KEYS[1], fields[i], ARGV[10 + 2 * i])
  end
  head[HEAD_FIELDS + i] = nil
end

local active = ARGV[4]
if head[8] and tonumber(head[8]) > tonumber(active) then active = head[8] end
head[2], head[4], head[5] = string.format('%.0f', version), string.format('%.0f', seq), string.format('%.0f', last)
head[8] = active
add(changed, 'version', head[2], 'runs', head[4], 'messages', head[5], 'last_activity_at', active)
if created then
  head[1], head[3], head[7] = '1', '1', ARGV[5]
  add(changed, 'incarnation', '1', 'state_version', '1', 'created_at', ARGV[5], 'header', ARGV[6], 'body', ARGV[7],
    'state', ARGV[8])
  if ARGV[2] ~= '' then
    head[6] = string.sub(ARGV[2], 2)
    add(changed, 'user_id', head[6])
  end
end
if has_summary and head[12] ~= '1' then
  head[12] = '1'
  add(changed, 'has_summary', '1')
end
if tonumber(largest) > tonumber(head[15] or 0) then
  head[15] = largest
  add(changed, 'largest', largest)
end
redis.call('HSET', KEYS[1], unpack(changed))

if ARGV[9] ~= '' then
  local key = 9
  redis.call('ZADD', KEYS[7], active, ARGV[9])
  if created then redis.call('ZADD', KEYS[8], 0, ARGV[9]) end
  if ARGV[2] ~= '' then
    redis.call('ZADD', KEYS[9], active, ARGV[9])
    key = 10
  end
  for i = at, #ARGV do redis.call('ZADD', KEYS[key + i - at], 0, ARGV[i]) end
end
return head
