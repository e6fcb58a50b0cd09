-- The statements of the SQLite driver. A line "-- name" begins one; comments under it say what it is for.

-- next_key
-- For a session that is made again: its key must not be that of the rows which are still being erased.
SELECT max(session_key) + 1 FROM sessions

-- drop_tombstone
DELETE FROM sessions WHERE session_key = ?

-- drop_header
DELETE FROM session_headers WHERE session_key = ?

-- drop_state
DELETE FROM session_states WHERE session_key = ?

-- insert_session
INSERT INTO sessions (session_key, namespace, session_id, incarnation, version, state_version, run_count, message_count, user_id,
  created_at, last_activity_at, deleted_at, erased, has_hidden, has_summary, forks, forked_from, forked_incarnation, forked_at,
  forked_run_seq, forked_version, counters)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- update_session
UPDATE sessions SET version = ?, state_version = ?, run_count = ?, message_count = ?, last_activity_at = ?, deleted_at = ?, erased = ?,
  has_hidden = ?, has_summary = ?, forks = ?, counters = ? WHERE session_key = ?

-- put_header
INSERT OR REPLACE INTO session_headers VALUES (?, ?, ?, ?, ?, ?, ?, ?)

-- put_state
INSERT OR REPLACE INTO session_states VALUES (?, ?)

-- operation
SELECT digest, receipts FROM operations WHERE session_key = ? AND operation_id = ?

-- insert_operation
INSERT INTO operations VALUES (?, ?, ?, ?)

-- stored_run
-- One revision of a run, as far as a decision needs it.
SELECT seq, revision, patch, digest, first_position, last_position, version FROM runs
WHERE run_id = ? AND session_key = ? AND revision = ?

-- newest_run
SELECT seq, revision, patch, digest, first_position, last_position, version FROM runs
WHERE run_id = ? AND session_key = ? ORDER BY revision DESC LIMIT 1

-- insert_run
INSERT INTO runs VALUES (?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- patch_run
UPDATE runs SET patch = patch + 1, status = ?, updated_at = ?, finished_at = ?, input_tokens = ?, output_tokens = ?, has_summary = ?
WHERE session_key = ? AND seq = ? AND revision = ?

-- put_part
INSERT OR REPLACE INTO run_parts VALUES (?, ?, ?, ?, ?)

-- grow_segment
-- New messages right behind the run's last ones make its last segment longer.
UPDATE segments SET last_position = ? WHERE session_key = ? AND seq = ? AND revision = ? AND last_position = ?

-- insert_segment
INSERT INTO segments VALUES (?, ?, ?, ?, ?)

-- insert_message
INSERT INTO message_rows (session_key, position, run_seq, revision, run_index, message_id, created_at, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)

-- insert_switch
INSERT INTO agent_switches VALUES (?, ?, ?, ?, ?, ?, ?)

-- insert_hidden
INSERT INTO hidden VALUES (
  ?, ?, (SELECT count(*) FROM hidden WHERE session_key = ? AND hide_id = ?), ?, ?, ?, ?, ?, ?, ?, ?
)

-- hide_exists
SELECT 1 FROM hidden WHERE session_key = ? AND hide_id = ? AND revision IS NULL LIMIT 1

-- show
UPDATE hidden SET until = ? WHERE session_key = ? AND hide_id = ? AND revision IS NULL AND until IS NULL

-- insert_erasure
INSERT OR IGNORE INTO erasures VALUES (?, ?, ?)

-- erasure
-- The oldest one of a session.
SELECT session_key FROM erasures WHERE namespace = ? AND session_id = ? ORDER BY session_key LIMIT 1

-- any_erasure
SELECT session_key FROM erasures ORDER BY session_key LIMIT 1

-- end_erasure
DELETE FROM erasures WHERE session_key = ?

-- messages
SELECT message_id, created_at, body, run_index, position, run_seq, revision FROM message_rows
WHERE session_key = ? AND position BETWEEN ? AND ? ORDER BY position LIMIT ?

-- messages_reverse
SELECT message_id, created_at, body, run_index, position, run_seq, revision FROM message_rows
WHERE session_key = ? AND position BETWEEN ? AND ? ORDER BY position DESC LIMIT ?

-- positions_of_id
-- Of the whole blocks.
SELECT position FROM message_ids WHERE session_key = ? AND message_id = ? AND position BETWEEN ? AND ?

-- positions_of_id_behind
-- Of the unfinished block.
SELECT position FROM message_rows WHERE session_key = ? AND position BETWEEN ? AND ? AND message_id = ?

-- index_ids
-- Of a block that is whole now, in the order of the index.
INSERT INTO message_ids SELECT session_key, message_id, position FROM message_rows
WHERE session_key = ? AND position BETWEEN ? AND ? AND message_id IS NOT NULL ORDER BY message_id

-- insert_participant
INSERT OR IGNORE INTO participants VALUES (?, ?, ?)

-- run_body
SELECT body FROM runs WHERE session_key = ? AND seq = ? AND revision = ?

-- run_ids
SELECT seq, run_id FROM runs WHERE session_key = ? AND seq BETWEEN ? AND ? AND revision = 1

-- segments
SELECT first_position, last_position FROM segments WHERE session_key = ? AND seq = ? AND revision = ? ORDER BY first_position

-- parts
SELECT name, body FROM run_parts WHERE session_key = ? AND seq = ? AND revision = ?

-- hidden
SELECT hide_id, first_position, last_position, first_run_seq, last_run_seq, revision, since, until, reach FROM hidden
WHERE session_key = ? AND first_run_seq <= ? AND last_run_seq >= ? AND first_position <= ? AND last_position >= ?

-- switches
SELECT switch_id, from_agent, to_agent, reason, switched_at, version FROM agent_switches
WHERE session_key = ? AND version BETWEEN ? AND ? ORDER BY version LIMIT ?

-- switches_reverse
SELECT switch_id, from_agent, to_agent, reason, switched_at, version FROM agent_switches
WHERE session_key = ? AND version BETWEEN ? AND ? ORDER BY version DESC LIMIT ?
