-- A page of a session's runs, with all their revisions.
--
-- KEYS  head, what the keys of runs begin with, ids, revisions, changed, patches
-- ARGV  incarnation, limit, bytes at most, with bodies? ('1'), reverse? ('1'), run id ('' or '=' .. id), first and last
--       seq, newest revisions alone? ('1'), then the kinds of plain runs, which are left out
--
-- Returns the head, whether there is more, and of each row its record (without its body if that was not asked for).
-- That of a run that was changed stands in a list, with its patches or nothing, its segments, and its parts.
local head = head_of(KEYS[1])
if not head[1] or is_elsewhere(head, ARGV[1]) then return {head} end
local STEP = 32
local _, base = bases_of(head)
local _, newest_of_all = log_of(head)
local limit, most, with_bodies, reverse = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1', ARGV[5] == '1'
local newest_alone = ARGV[9] == '1'
local any_changed = redis.call('EXISTS', KEYS[5]) == 1
local page, bytes = {}, 0

local function size_of(body)
  return string.byte(body) == 0 and #body - 1 or #body
end

-- The patches of one revision, its segments and, with bodies, its parts.
local function patched(place)
  local patches = redis.call('HGET', KEYS[6], place)
  if not patches then return false, {}, {} end
  local segments, parts = {}, {}
  local count, names = string.match(patches, '^%d+ (%d+)\n(.*)$')
  for i = 1, tonumber(count) do segments[i] = redis.call('HGET', KEYS[6], place .. '/segment/' .. i) end
  if with_bodies then
    for i, name in ipairs(cmsgpack.unpack(names)[1]) do
      parts[i] = redis.call('HGET', KEYS[6], place .. '/part/' .. name)
      bytes = bytes + size_of(parts[i])
    end
  end
  return patches, segments, parts
end

-- Put one revision on the page; whether there was no room for it.
local function take(record, place)
  if #page == limit or bytes >= most then return true end
  local bare = end_of_meta(record)
  if with_bodies then
    bytes = bytes + #record - bare
    if string.byte(record, bare + 1) == 0 then bytes = bytes - 1 end
  else
    record = string.sub(record, 1, bare)
  end
  page[#page + 1] = place and {record, patched(place)} or record
  return false
end

local plain = {}
for i = 10, #ARGV do plain[tonumber(ARGV[i])] = true end

local function take_all(seq, record)
  local number = any_changed and string.format('%.0f', seq)
  local newest = number and redis.call('HGET', KEYS[5], number)
  if not newest then return not plain[string.byte(record, 33)] and take(record) end
  newest = tonumber(newest)
  local from, to, step = newest_alone and newest or 1, newest, 1
  if reverse then from, to, step = to, from, -1 end
  for revision = from, to, step do
    local place = number .. '.' .. revision
    if take(revision == 1 and record or redis.call('HGET', KEYS[4], place), place) then return true end
  end
  return false
end

local first, last = tonumber(ARGV[7]), tonumber(ARGV[8])
if ARGV[6] ~= '' then
  local seq = tonumber(redis.call('HGET', KEYS[3], string.sub(ARGV[6], 2)) or 0)
  if seq < first or seq > last then return {head, 0, page} end
  first, last = seq, seq
end
first, last = math.max(first, base + 1), math.min(last, newest_of_all)
while first <= last do
  local from, to
  if reverse then
    from, to = math.max(first, last - STEP + 1, math.floor((last - 1) / SEGMENT) * SEGMENT + 1), last
    last = from - 1
  else
    from, to = first, math.min(last, first + STEP - 1, math.ceil(first / SEGMENT) * SEGMENT)
    first = to + 1
  end
  local records = range(KEYS[2], base, from, to)
  for i = 1, #records do
    local at = reverse and #records + 1 - i or i
    if take_all(from + at - 1, records[at]) then return {head, 1, page} end
  end
end
return {head, 0, page}
