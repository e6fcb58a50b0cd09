-- A page of a session's messages. They lie in chunks: an entry of the stream holds messages of one run that follow each
-- other, its id begins with the first one's position, its field says how many they are and how many bytes their bodies
-- take.
--
-- KEYS  head, messages, message_ids
-- ARGV  incarnation, limit, bytes at most, reverse? ('1'), message id ('' or '=' .. id), then first and last position of
--       each range
--
-- Returns the head, and of each chunk: the range that it was read for, its id, its content. A chunk that reaches out of
-- its range counts as nothing, so that no page ends too early; the last one may bring more than fits.
local head = head_of(KEYS[1])
if not head[1] or is_elsewhere(head, ARGV[1]) then return {head} end
local STEP = 4
local limit, most, reverse = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'
local page, rows, bytes = {}, 0, 0

local function place_of(entry)
  local count, size = string.match(entry[2][1], '^(%d+) (%d+)$')
  local position = tonumber(string.match(entry[1], '^%d+'))
  return position, position + tonumber(count) - 1, tonumber(size)
end

-- Put a chunk on the page; whether that is full.
local function take(entry, first, last)
  local from, to, size = place_of(entry)
  local at = #page
  page[at + 1], page[at + 2], page[at + 3], page[at + 4] = first, last, entry[1], entry[2][2]
  if from >= tonumber(first) and to <= tonumber(last) then rows, bytes = rows + to - from + 1, bytes + size end
  return rows > limit or bytes >= most
end

local function holder_of(position)
  local entry = redis.call('XREVRANGE', KEYS[2], position .. BEHIND, '-', 'COUNT', 1)[1]
  if entry then
    local _, to = place_of(entry)
    if to >= tonumber(position) then return entry end
  end
end

local function forward(first, last)
  local entry = first ~= '1' and tonumber(first) <= tonumber(last) and holder_of(first)
  if entry and take(entry, first, last) then return true end
  local start = first == '1' and '-' or '(' .. first .. BEHIND
  while true do
    local entries = redis.call('XRANGE', KEYS[2], start, last .. BEHIND, 'COUNT', STEP)
    for _, found in ipairs(entries) do
      if take(found, first, last) then return true end
    end
    if #entries < STEP then return false end
    start = '(' .. entries[#entries][1]
  end
end

local function backward(first, last)
  local start = last .. BEHIND
  while true do
    local entries = redis.call('XREVRANGE', KEYS[2], start, '-', 'COUNT', STEP)
    for _, found in ipairs(entries) do
      local _, to = place_of(found)
      if to < tonumber(first) then return false end
      if take(found, first, last) then return true end
    end
    if #entries < STEP then return false end
    start = '(' .. entries[#entries][1]
  end
end

-- Of a message id: the places that the hash names, which are few.
local function named(places, first, last)
  for i = 1, #places do
    local position = places[reverse and #places + 1 - i or i]
    if tonumber(position) >= tonumber(first) and tonumber(position) <= tonumber(last) then
      local entry, before = holder_of(position), rows
      if entry and take(entry, position, position) then return true end
      rows = before + 1
      if rows > limit then return true end
    end
  end
  return false
end

local read = reverse and backward or forward
if ARGV[5] ~= '' then
  local places = {}
  for position in string.gmatch(redis.call('HGET', KEYS[3], string.sub(ARGV[5], 2)) or '', '%d+') do
    places[#places + 1] = position
  end
  read = function(first, last) return named(places, first, last) end
end
for i = 6, #ARGV, 2 do
  if read(ARGV[i], ARGV[i + 1]) then break end
end
return {head, page}
