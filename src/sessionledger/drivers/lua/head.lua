-- What every script begins with: the fields of a session's head, in the order in which Python takes them.
local function head_of(key)
  return redis.call('HMGET', key, 'incarnation', 'version', 'state_version', 'runs', 'messages', 'user_id', 'created_at',
    'last_activity_at', 'deleted_at', 'erased', 'has_hidden', 'has_summary', 'forks', 'fork')
end

local BEHIND = '-18446744073709551615' -- the last id of a stream that begins with a number

-- Another incarnation than the one whose keys were given, or nothing but a tombstone: there is nothing more to say.
local function is_elsewhere(head, incarnation)
  return head[1] ~= incarnation or head[10] == '1'
end

-- A record of a run is "version first last meta-length\n", then its meta and its body.
local function without_body(record)
  local line, size = string.match(record, '^(%d+ %-?%d+ %-?%d+ (%d+)\n)')
  return string.sub(record, 1, #line + tonumber(size))
end
