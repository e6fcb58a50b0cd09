-- A page of a session's messages. Each is a list in MessagePack, which begins with its run's seq and its body's length,
-- in 4 bytes each.
--
-- KEYS  head, what the keys of messages and of names begin with, message_ids
-- ARGV  incarnation, limit, bytes at most, reverse? ('1'), digest of a message id ('' for none), then first
--       and last position of each range
--
-- Returns the head, then positions, each with the messages from there on, then seqs, each with the ids of the runs from
-- there on. It may be one message more than the limit, so that one sees whether there is more.
local head = head_of(KEYS[1])
if not head[1] or is_elsewhere(head, ARGV[1]) then return {head} end
local limit, most, reverse = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'
local base, base_of_runs = bases_of(head)
local newest = tonumber(head[5])
local page, seqs, rows, bytes = {}, {}, 0, 0
local step, largest = 16, 1

-- Count a message; whether the page is full with it.
local function count(message)
  local a, b, c, d, _, e, f, g, h = string.byte(message, 3, 11)
  local size = ((e * 256 + f) * 256 + g) * 256 + h
  seqs[((a * 256 + b) * 256 + c) * 256 + d] = true
  rows, bytes = rows + 1, bytes + size
  if size > largest then largest = size end
  return rows > limit or bytes >= most
end

-- How many to read next: what will most likely be needed, so that large ones are not read for nothing.
local function next_step()
  step = math.max(1, math.min(128, limit + 1 - rows, math.ceil((most - bytes) / largest)))
end

local function put(position, messages)
  page[#page + 1] = position
  page[#page + 1] = messages
end

local function forward(first, last)
  first, last = math.max(first, base + 1), math.min(last, newest)
  while first <= last do
    local to = math.min(last, first + step - 1, math.ceil(first / SEGMENT) * SEGMENT)
    local messages = range(KEYS[2], base, first, to)
    put(first, messages)
    for i = 1, #messages do
      if count(messages[i]) then
        for behind = #messages, i + 1, -1 do messages[behind] = nil end
        return true
      end
    end
    first = to + 1
    next_step()
  end
  return false
end

-- As forward, from the other end: what comes first stands last in each part of the page.
local function backward(first, last)
  first, last = math.max(first, base + 1), math.min(last, newest)
  while first <= last do
    local from = math.max(first, last - step + 1, math.floor((last - 1) / SEGMENT) * SEGMENT + 1)
    local messages = range(KEYS[2], base, from, last)
    for i = #messages, 1, -1 do
      if count(messages[i]) then
        local rest = {}
        for at = i, #messages do rest[at - i + 1] = messages[at] end
        put(from + i - 1, rest)
        return true
      end
    end
    put(from, messages)
    last = from - 1
    next_step()
  end
  return false
end

-- Of a message id: the places that the hash names, which are few.
local places = {}
local function at_places(first, last)
  for i = 1, #places do
    local position = places[reverse and #places + 1 - i or i]
    if position >= first and position <= last then
      local messages = range(KEYS[2], base, position, position)
      put(position, messages)
      if count(messages[1]) then return true end
    end
  end
  return false
end

local read = reverse and backward or forward
if ARGV[5] ~= '' then
  for position in string.gmatch(redis.call('HGET', KEYS[4], ARGV[5]) or '', '%d+') do
    places[#places + 1] = tonumber(position)
  end
  read = at_places
end
local function put_names(names, first, found)
  names[#names + 1] = first
  names[#names + 1] = found
end

for i = 6, #ARGV, 2 do
  if read(tonumber(ARGV[i]), tonumber(ARGV[i + 1])) then break end
end

-- the ids of their runs: all of a stretch at once, where that is most of them
local first, last, several = nil, nil, 0
for seq in pairs(seqs) do
  first, last, several = math.min(first or seq, seq), math.max(last or seq, seq), several + 1
end
local names = {}
if first and last - first < 2 * several then
  while first <= last do
    local to = math.min(last, math.ceil(first / SEGMENT) * SEGMENT)
    put_names(names, first, range(KEYS[3], base_of_runs, first, to))
    first = to + 1
  end
else
  for seq in pairs(seqs) do put_names(names, seq, range(KEYS[3], base_of_runs, seq, seq)) end
end
return {head, page, names}
