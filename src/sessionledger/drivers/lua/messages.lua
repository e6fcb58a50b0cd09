-- A page of a session's messages. Each is a list in MessagePack, which begins with its run's seq and its body's length,
-- in 4 bytes each.
--
-- KEYS  head, what the keys of messages begin with, ids
-- ARGV  incarnation, limit, bytes at most, reverse? ('1'), digest of a message id ('' for none), then first
--       and last position of each range
--
-- Returns the head, then positions, each with the messages from there on. It may be one message more than the limit, so
-- that one sees whether there is more.
local head = head_of(KEYS[1])
if not head[1] or is_elsewhere(head, ARGV[1]) then return {head} end
local limit, most, reverse = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'
local base = bases_of(head)
local _, _, newest = log_of(head)
local page, rows, bytes = {}, 0, 0
local step, largest = 16, 1

-- Count a message; whether the page is full with it.
local function count(message)
  local a, b, c, d = string.byte(message, 8, 11)
  local size = ((a * 256 + b) * 256 + c) * 256 + d
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
  for position in string.gmatch(redis.call('HGET', KEYS[3], ARGV[5]) or '', '%d+') do
    places[#places + 1] = tonumber(position)
  end
  read = at_places
end

for i = 6, #ARGV, 2 do
  if read(tonumber(ARGV[i]), tonumber(ARGV[i + 1])) then break end
end
return {head, page}
