-- A page of a session's messages. Each is "run's seq, bytes of its body, content", in the order of positions.
--
-- KEYS  head, what the keys of messages and of names begin with, message_ids
-- ARGV  incarnation, limit, bytes at most, reverse? ('1'), digest of a message id ('' for none), then first and last position of
--       each range
--
-- Returns the head, of each message its position and what is stored, and of each of their runs its seq and id. It may
-- be one message more than the limit, so that one sees whether there is more.
local head = head_of(KEYS[1])
if not head[1] or is_elsewhere(head, ARGV[1]) then return {head} end
local STEP = 16
local limit, most, reverse = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'
local base, base_of_runs = bases_of(head)
local newest = tonumber(head[5])
local page, names, named, rows, bytes = {}, {}, {}, 0, 0

-- Put a message on the page; whether that is full.
local function take(position, message)
  local seq, size = string.match(message, '^(%d+) (%d+) ')
  page[2 * rows + 1], page[2 * rows + 2] = position, message
  rows, bytes = rows + 1, bytes + tonumber(size)
  if not named[seq] then
    named[seq] = true
    names[#names + 1] = seq
    names[#names + 1] = range(KEYS[3], base_of_runs, tonumber(seq), tonumber(seq))[1]
  end
  return rows > limit or bytes >= most
end

local function forward(first, last)
  first, last = math.max(first, base + 1), math.min(last, newest)
  while first <= last do
    local to = math.min(last, first + STEP - 1, math.ceil(first / SEGMENT) * SEGMENT)
    for i, message in ipairs(range(KEYS[2], base, first, to)) do
      if take(first + i - 1, message) then return true end
    end
    first = to + 1
  end
  return false
end

local function backward(first, last)
  first, last = math.max(first, base + 1), math.min(last, newest)
  while first <= last do
    local from = math.max(first, last - STEP + 1, math.floor((last - 1) / SEGMENT) * SEGMENT + 1)
    local messages = range(KEYS[2], base, from, last)
    for i = #messages, 1, -1 do
      if take(from + i - 1, messages[i]) then return true end
    end
    last = from - 1
  end
  return false
end

-- Of a message id: the places that the hash names, which are few.
local places = {}
local function at_places(first, last)
  for i = 1, #places do
    local position = places[reverse and #places + 1 - i or i]
    if position >= first and position <= last then
      if take(position, range(KEYS[2], base, position, position)[1]) then return true end
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
for i = 6, #ARGV, 2 do
  if read(tonumber(ARGV[i]), tonumber(ARGV[i + 1])) then break end
end
return {head, page, names}
