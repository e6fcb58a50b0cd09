-- Schema 1. Names are part of the interface: people read these tables with other tools. Times are microseconds since 1970 UTC.
-- Every key begins with session_key, a number that stands for (namespace, session_id).

CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;

-- What an append changes of a session: small, so that it costs the same whatever else the session holds.
CREATE TABLE IF NOT EXISTS sessions (
  session_key INTEGER PRIMARY KEY,
  namespace TEXT NOT NULL,
  session_id TEXT NOT NULL,
  incarnation INTEGER NOT NULL,
  version INTEGER NOT NULL,
  state_version INTEGER NOT NULL,
  run_count INTEGER NOT NULL,
  message_count INTEGER NOT NULL,
  user_id TEXT,
  created_at INTEGER NOT NULL,
  last_activity_at INTEGER NOT NULL,
  deleted_at INTEGER,
  erased INTEGER NOT NULL DEFAULT 0,
  has_hidden INTEGER NOT NULL DEFAULT 0,
  has_summary INTEGER NOT NULL DEFAULT 0,
  forks INTEGER NOT NULL DEFAULT 0,
  forked_from TEXT,
  forked_incarnation INTEGER,
  forked_at INTEGER,
  forked_run_seq INTEGER,
  forked_version INTEGER,
  counters TEXT NOT NULL,
  UNIQUE (namespace, session_id)
);
CREATE INDEX IF NOT EXISTS sessions_by_activity ON sessions (namespace, last_activity_at);
CREATE INDEX IF NOT EXISTS sessions_by_user ON sessions (namespace, user_id, last_activity_at) WHERE user_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS sessions_by_origin ON sessions (namespace, forked_from) WHERE forked_from IS NOT NULL;

CREATE TABLE IF NOT EXISTS session_headers (
  session_key INTEGER PRIMARY KEY,
  kind TEXT NOT NULL,
  agent_id TEXT,
  current_agent TEXT,
  name TEXT,
  parent_session_id TEXT,
  updated_at INTEGER NOT NULL,
  body TEXT NOT NULL
);

CREATE TABLE IF NOT EXISTS session_states (session_key INTEGER PRIMARY KEY, state TEXT NOT NULL);

-- A row a revision of a run. A run that is still open has its body in run_parts, so that a patch rewrites a small row.
CREATE TABLE IF NOT EXISTS runs (
  session_key INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  run_id TEXT NOT NULL,
  version INTEGER NOT NULL,
  patch INTEGER NOT NULL,
  digest BLOB NOT NULL,
  user_id TEXT,
  agent_id TEXT,
  parent_run_id TEXT,
  model TEXT,
  created_at INTEGER NOT NULL,
  first_position INTEGER NOT NULL,
  last_position INTEGER NOT NULL,
  status TEXT NOT NULL,
  updated_at INTEGER NOT NULL,
  finished_at INTEGER,
  input_tokens INTEGER,
  output_tokens INTEGER,
  has_summary INTEGER NOT NULL,
  body TEXT,
  PRIMARY KEY (session_key, seq, revision)
);
CREATE UNIQUE INDEX IF NOT EXISTS runs_by_id ON runs (run_id, session_key, revision);
CREATE INDEX IF NOT EXISTS runs_by_parent ON runs (parent_run_id, session_key, seq) WHERE parent_run_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS runs_open ON runs (status, session_key, seq) WHERE status IN ('pending', 'running', 'paused');

-- Which agents and users have runs in which sessions: finds the sessions in which to look for their runs.
CREATE TABLE IF NOT EXISTS participants (
  role TEXT NOT NULL, -- 'agent' or 'user'
  id TEXT NOT NULL,
  session_key INTEGER NOT NULL,
  PRIMARY KEY (role, id, session_key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS participants_by_session ON participants (session_key);

-- Fields that patches replaced, and under the name '' the body of a run that was stored open.
CREATE TABLE IF NOT EXISTS run_parts (
  session_key INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  name TEXT NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (session_key, seq, revision, name)
) WITHOUT ROWID;

-- Positions that patches added to a run, behind those that it was stored with.
CREATE TABLE IF NOT EXISTS segments (
  session_key INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  first_position INTEGER NOT NULL,
  last_position INTEGER NOT NULL,
  PRIMARY KEY (session_key, seq, revision, first_position)
) WITHOUT ROWID;

-- The body has the message but its place, message_id and created_at. Read it through the view `messages`, which takes it apart:
-- columns of their own would make an append dearer by a third.
CREATE TABLE IF NOT EXISTS message_rows (
  session_key INTEGER NOT NULL,
  position INTEGER NOT NULL,
  run_seq INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  run_index INTEGER NOT NULL,
  message_id TEXT,
  created_at INTEGER NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (session_key, position)
);

-- Ids that messages were given, of whole blocks of 1,024 positions: ids are random, and an entry at a time would dirty a page for
-- each message. Those of the last, unfinished block are found by reading it.
CREATE TABLE IF NOT EXISTS message_ids (
  session_key INTEGER NOT NULL,
  message_id TEXT NOT NULL,
  position INTEGER NOT NULL,
  PRIMARY KEY (session_key, message_id, position)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS agent_switches (
  session_key INTEGER NOT NULL,
  version INTEGER NOT NULL,
  switch_id TEXT NOT NULL,
  from_agent TEXT,
  to_agent TEXT NOT NULL,
  reason TEXT,
  switched_at INTEGER NOT NULL,
  PRIMARY KEY (session_key, version, switch_id)
) WITHOUT ROWID;

-- A row hides the messages that lie in both ranges, for readers of versions since <= v < until whose view reaches `reach`.
CREATE TABLE IF NOT EXISTS hidden (
  session_key INTEGER NOT NULL,
  hide_id TEXT NOT NULL,
  ordinal INTEGER NOT NULL,
  first_position INTEGER NOT NULL,
  last_position INTEGER NOT NULL,
  first_run_seq INTEGER NOT NULL,
  last_run_seq INTEGER NOT NULL,
  revision INTEGER,
  since INTEGER NOT NULL,
  until INTEGER,
  reach INTEGER NOT NULL,
  PRIMARY KEY (session_key, hide_id, ordinal)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS hidden_by_run ON hidden (session_key, first_run_seq);

-- Commits that are recognised by their operation id.
CREATE TABLE IF NOT EXISTS operations (
  session_key INTEGER NOT NULL,
  operation_id TEXT NOT NULL,
  digest BLOB NOT NULL,
  receipts TEXT NOT NULL,
  PRIMARY KEY (session_key, operation_id)
) WITHOUT ROWID;

-- Keys whose rows are still being erased, and the session that they stood for, which may have been made again since.
CREATE TABLE IF NOT EXISTS erasures (session_key INTEGER PRIMARY KEY, namespace TEXT NOT NULL, session_id TEXT NOT NULL);

-- What people query. A message is hidden when a row of `hidden` says so, or a later revision of its run has taken its place.
CREATE VIEW IF NOT EXISTS messages AS
SELECT m.session_key, s.namespace, s.session_id, m.position, m.run_seq, r.run_id, m.revision, m.run_index,
  coalesce(m.message_id, r.run_id || '#' || iif(m.revision = 1, '', m.revision || '.') || m.run_index) AS message_id,
  json_extract(m.body, '$.role') AS role,
  coalesce(json_extract(m.body, '$.kind'), 'message') AS kind,
  json_extract(m.body, '$.name') AS name,
  json_extract(m.body, '$.content') AS content,
  json_extract(m.body, '$.tool_call_id') AS tool_call_id,
  json_extract(m.body, '$.model') AS model,
  json_extract(m.body, '$.usage.input_tokens') AS input_tokens,
  json_extract(m.body, '$.usage.output_tokens') AS output_tokens,
  json_extract(m.body, '$.error') AS error,
  m.created_at, strftime('%Y-%m-%dT%H:%M:%fZ', m.created_at / 1e6, 'unixepoch') AS created,
  m.body
FROM message_rows m JOIN sessions s USING (session_key)
JOIN runs r ON r.session_key = m.session_key AND r.seq = m.run_seq AND r.revision = m.revision;

-- A row a tool call of a message; ordinal from 0.
CREATE VIEW IF NOT EXISTS tool_calls AS
SELECT m.session_key, m.position, c.key AS ordinal, json_extract(c.value, '$.tool_call_id') AS tool_call_id,
  json_extract(c.value, '$.name') AS name
FROM message_rows m, json_each(m.body, '$.tool_calls') c;

CREATE VIEW IF NOT EXISTS run_log AS
SELECT s.namespace, s.session_id, r.seq, r.revision, r.run_id, r.status, r.user_id, r.agent_id, r.model, r.input_tokens,
  r.output_tokens, strftime('%Y-%m-%dT%H:%M:%fZ', r.created_at / 1e6, 'unixepoch') AS created,
  strftime('%Y-%m-%dT%H:%M:%fZ', r.finished_at / 1e6, 'unixepoch') AS finished
FROM runs r JOIN sessions s USING (session_key);
