-- What every script begins with: the fields of a session's head, in the order in which Python takes them, and others.
local function head_of(key, ...)
  return redis.call('HMGET', key, 'incarnation', 'log', 'state_version', 'user_id', 'created_at', 'deleted_at',
    'erased', 'has_hidden', 'has_summary', 'forks', 'fork', ...)
end

-- Version, count of runs and of messages, last_activity_at, and the length of the largest message.
local function log_of(head)
  local version, runs, messages, active, largest = string.match(head[2], '^(%d+) (%d+) (%d+) (%d+) (%d+)$')
  return tonumber(version), tonumber(runs), tonumber(messages), tonumber(active), tonumber(largest)
end

local BEHIND = '-18446744073709551615' -- the last id of a stream that begins with a number

-- Another incarnation than the one whose keys were given, or nothing but a tombstone: there is nothing more to say.
local function is_elsewhere(head, incarnation)
  return head[1] ~= incarnation or head[7] == '1'
end

-- Lists of what has a number are cut into segments, so that any place in them is as near as any other. `base` is the
-- number before the first: a session that shares another's beginning begins behind that.
local SEGMENT = 4096

local function bases_of(head)
  if not head[11] then return 0, 0 end
  local fork = cjson.decode(head[11])
  return fork[3], fork[4]
end

-- Append some of the values, from one of them on, behind the number `last` of a list.
local function push(prefix, last, values, from, count)
  while count > 0 do
    local segment = math.floor(last / SEGMENT)
    local room = math.min(count, (segment + 1) * SEGMENT - last, 1000)
    redis.call('RPUSH', prefix .. segment, unpack(values, from, from + room - 1))
    last, from, count = last + room, from + room, count - room
  end
end

-- Those from one number to another, which are in one segment.
local function range(prefix, base, first, last)
  local segment = math.floor((first - 1) / SEGMENT)
  local start = math.max(segment * SEGMENT, base) + 1
  return redis.call('LRANGE', prefix .. string.format('%.0f', segment), first - start, last - start)
end

-- A record of a run is 8 bytes each of seq, version, first and last position, one of its kind (its status, and whether
-- it has a parent), 3 of the length of its meta, that, and its body.
local function end_of_meta(record)
  local a, b, c = string.byte(record, 34, 36)
  return 36 + (a * 256 + b) * 256 + c
end
