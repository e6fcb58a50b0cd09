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
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS runs_by_id ON runs (run_id, session_key, revision);
CREATE INDEX IF NOT EXISTS runs_by_agent ON runs (agent_id, session_key, seq) WHERE agent_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS runs_by_parent ON runs (parent_run_id, session_key, seq) WHERE parent_run_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS runs_open ON runs (status, session_key, seq) WHERE status IN ('pending', 'running', 'paused');

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

-- The body has the message but its place, message_id and created_at; role to error are copies of it. kind is NULL for "message".
CREATE TABLE IF NOT EXISTS messages (
  session_key INTEGER NOT NULL,
  position INTEGER NOT NULL,
  run_seq INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  run_index INTEGER NOT NULL,
  message_id TEXT,
  created_at INTEGER NOT NULL,
  role TEXT,
  kind TEXT,
  name TEXT,
  tool_call_id TEXT,
  model TEXT,
  input_tokens INTEGER,
  output_tokens INTEGER,
  error TEXT,
  body TEXT NOT NULL,
  PRIMARY KEY (session_key, position)
);
CREATE INDEX IF NOT EXISTS messages_by_id ON messages (session_key, message_id) WHERE message_id IS NOT NULL;

CREATE TABLE IF NOT EXISTS tool_calls (
  session_key INTEGER NOT NULL,
  position INTEGER NOT NULL,
  ordinal INTEGER NOT NULL,
  tool_call_id TEXT NOT NULL,
  name TEXT NOT NULL,
  PRIMARY KEY (session_key, position, ordinal)
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

-- Sessions whose rows are still being erased.
CREATE TABLE IF NOT EXISTS erasures (session_key INTEGER PRIMARY KEY);

CREATE VIEW IF NOT EXISTS message_log AS
SELECT s.namespace, s.session_id, m.position, m.run_seq, r.run_id, m.revision, m.role, coalesce(m.kind, 'message') AS kind, m.name,
  json_extract(m.body, '$.content') AS content, m.input_tokens, m.output_tokens, m.error,
  strftime('%Y-%m-%dT%H:%M:%fZ', m.created_at / 1e6, 'unixepoch') AS created_at
FROM messages m JOIN sessions s USING (session_key)
JOIN runs r ON r.session_key = m.session_key AND r.seq = m.run_seq AND r.revision = m.revision;

CREATE VIEW IF NOT EXISTS run_log AS
SELECT s.namespace, s.session_id, r.seq, r.revision, r.run_id, r.status, r.user_id, r.agent_id, r.model, r.input_tokens, r.output_tokens,
  strftime('%Y-%m-%dT%H:%M:%fZ', r.created_at / 1e6, 'unixepoch') AS created_at,
  strftime('%Y-%m-%dT%H:%M:%fZ', r.finished_at / 1e6, 'unixepoch') AS finished_at
FROM runs r JOIN sessions s USING (session_key);
