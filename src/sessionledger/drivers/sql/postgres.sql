-- The statements of the PostgreSQL driver. A line "-- name" begins one; comments under it say what it is for. {name} is a table's name
-- with its schema and prefix.

-- append
-- Runs that need no judgement but this: the session is there or new, it is not deleted and of that owner, it has no such run. Of a
-- session of which that is not so, nothing is written and nothing comes back. $1 to $20 are the runs, $21 to $27 what they add to each
-- session, $28 to $41 its names and the fields of a new one, the rest their messages.
WITH chain AS MATERIALIZED (
  SELECT * FROM unnest($21::int[], $22::text[], $23::bigint[], $24::bigint[], $25::bigint[], $26::jsonb[], $27::bool[], $28::text[],
    $29::text[], $30::text[], $31::bigint[], $32::text[], $33::text[], $34::text[], $35::text[], $36::text[], $37::bigint[],
    $38::json[], $39::bytea[], $40::json[], $41::bytea[])
    AS c (chain, owner, at, runs, messages, counters, has_summary, namespace, session_id, user_id, created_at, kind, agent_id,
    current_agent, name, parent_session_id, updated_at, body, packed, state, packed_state)),
item AS MATERIALIZED (
  SELECT * FROM unnest($1::int[], $2::int[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::bytea[], $8::text[],
    $9::text[], $10::text[], $11::text[], $12::bigint[], $13::text[], $14::bigint[], $15::bigint[], $16::bigint[], $17::bigint[],
    $18::bool[], $19::json[], $20::bytea[]) AS i (item, chain, nth, before, messages, run_id, digest, user_id, agent_id,
    parent_run_id, model, created_at, status, updated_at, finished_at, input_tokens, output_tokens, has_summary, body, packed)),
head AS (
  INSERT INTO {sessions} AS s (namespace, session_id, incarnation, version, state_version, run_count, message_count, user_id,
    created_at, last_activity_at, has_summary, counters)
  SELECT namespace, session_id, 1, runs, 1, runs, messages, user_id, created_at, at, has_summary, counters FROM chain
  ORDER BY namespace, session_id
  ON CONFLICT (namespace, session_id) DO UPDATE SET
    version = s.version + excluded.version,
    run_count = s.run_count + excluded.run_count,
    message_count = s.message_count + excluded.message_count,
    last_activity_at = greatest(s.last_activity_at, excluded.last_activity_at),
    has_summary = s.has_summary OR excluded.has_summary,
    counters = (SELECT coalesce(jsonb_object_agg(name, total), '{}') FROM
      (SELECT name, sum(count::numeric) AS total FROM
        (SELECT * FROM jsonb_each_text(s.counters) UNION ALL SELECT * FROM jsonb_each_text(excluded.counters)) AS each (name, count)
      GROUP BY name) AS sums WHERE total <> 0)
  WHERE s.deleted_at IS NULL AND NOT s.erased AND NOT EXISTS (
    SELECT FROM chain c LEFT JOIN item i USING (chain) LEFT JOIN {runs} r ON r.run_id = i.run_id AND r.session_key = s.session_key
    WHERE c.namespace = s.namespace AND c.session_id = s.session_id AND (r.run_id IS NOT NULL OR c.owner <> coalesce(s.user_id, '')))
  RETURNING s.*, s.xmax = 0 AS created),
header AS (
  INSERT INTO {session_headers} SELECT h.session_key, c.kind, c.agent_id, c.current_agent, c.name, c.parent_session_id, c.updated_at,
    c.body, c.packed FROM head h JOIN chain c USING (namespace, session_id) WHERE h.created),
state AS (
  INSERT INTO {session_states} SELECT h.session_key, c.state, c.packed_state FROM head h JOIN chain c USING (namespace, session_id)
  WHERE h.created),
placed AS MATERIALIZED (
  SELECT i.*, h.session_key, h.version - c.runs + i.nth AS version, h.run_count - c.runs + i.nth AS seq,
    h.message_count - c.messages + i.before AS behind, i.status IN ('pending', 'running', 'paused') AS open
  FROM item i JOIN chain c USING (chain) JOIN head h USING (namespace, session_id)),
run AS (
  INSERT INTO {runs} SELECT session_key, seq, 1, run_id, version, 0, digest, user_id, agent_id, parent_run_id, model, created_at,
    behind + 1, behind + messages, status, updated_at, finished_at, input_tokens, output_tokens, has_summary,
    CASE WHEN NOT open THEN body END, CASE WHEN NOT open THEN packed END FROM placed),
part AS (
  INSERT INTO {run_parts} SELECT session_key, seq, 1, '', body, packed FROM placed WHERE open),
said AS (
  INSERT INTO {message_rows} SELECT p.session_key, p.behind + m.nth, p.seq, m.created_at, 1, m.nth - 1,
    coalesce(length(m.body::text), length(m.packed)), m.message_id, m.body, coalesce(m.packed, '')
  FROM unnest($42::int[], $43::int[], $44::bigint[], $45::text[], $46::json[], $47::bytea[])
    AS m (item, nth, created_at, message_id, body, packed) JOIN placed p USING (item))
SELECT chain, s.session_key, s.incarnation, s.version, s.state_version, s.run_count, s.message_count, s.user_id, s.created_at,
  s.last_activity_at, s.deleted_at, s.erased, s.has_hidden, s.has_summary, s.forks, s.forked_from, s.forked_incarnation, s.forked_at,
  s.forked_run_seq, s.forked_version,
  s.counters
FROM head s JOIN chain USING (namespace, session_id)

-- append_known
-- The same for sessions that were there a moment ago, at half the cost. $28 to $32 are the key of each, its names, its version then,
-- and what its counters come to if it is still at that version: adding them up here would be a fifth of the whole. They are locked in
-- one order, as all writers do. A key alone may be another session's, where the storage went back to an earlier state.
WITH chain AS MATERIALIZED (
  SELECT * FROM unnest($21::int[], $22::text[], $23::bigint[], $24::bigint[], $25::bigint[], $26::jsonb[], $27::bool[], $28::bigint[],
    $29::text[], $30::text[], $31::bigint[], $32::jsonb[])
    AS c (chain, owner, at, runs, messages, counters, has_summary, session_key, namespace, session_id, version, after)),
item AS MATERIALIZED (
  SELECT * FROM unnest($1::int[], $2::int[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::bytea[], $8::text[],
    $9::text[], $10::text[], $11::text[], $12::bigint[], $13::text[], $14::bigint[], $15::bigint[], $16::bigint[], $17::bigint[],
    $18::bool[], $19::json[], $20::bytea[]) AS i (item, chain, nth, before, messages, run_id, digest, user_id, agent_id,
    parent_run_id, model, created_at, status, updated_at, finished_at, input_tokens, output_tokens, has_summary, body, packed)),
locked AS MATERIALIZED (
  SELECT s.session_key, c.chain FROM chain c JOIN {sessions} s USING (session_key, namespace, session_id)
  ORDER BY s.namespace, s.session_id FOR UPDATE OF s),
head AS (
  UPDATE {sessions} s SET
    version = s.version + c.runs,
    run_count = s.run_count + c.runs,
    message_count = s.message_count + c.messages,
    last_activity_at = greatest(s.last_activity_at, c.at),
    has_summary = s.has_summary OR c.has_summary,
    counters = CASE WHEN s.version = c.version THEN c.after ELSE (SELECT coalesce(jsonb_object_agg(name, total), '{}') FROM
      (SELECT name, sum(count::numeric) AS total FROM
        (SELECT * FROM jsonb_each_text(s.counters) UNION ALL SELECT * FROM jsonb_each_text(c.counters)) AS each (name, count)
      GROUP BY name) AS sums WHERE total <> 0) END
  FROM locked l JOIN chain c USING (chain)
  WHERE s.session_key = l.session_key AND s.deleted_at IS NULL AND NOT s.erased AND (c.owner IS NULL OR c.owner = s.user_id)
    AND NOT EXISTS (SELECT FROM item i JOIN {runs} r ON r.run_id = i.run_id AND r.session_key = s.session_key
      WHERE i.chain = c.chain)
  RETURNING s.*, c.chain, s.version - c.runs = c.version AS as_known),
placed AS MATERIALIZED (
  SELECT i.*, h.session_key, h.version - c.runs + i.nth AS version, h.run_count - c.runs + i.nth AS seq,
    h.message_count - c.messages + i.before AS behind, i.status IN ('pending', 'running', 'paused') AS open
  FROM item i JOIN chain c USING (chain) JOIN head h USING (chain)),
run AS (
  INSERT INTO {runs} SELECT session_key, seq, 1, run_id, version, 0, digest, user_id, agent_id, parent_run_id, model, created_at,
    behind + 1, behind + messages, status, updated_at, finished_at, input_tokens, output_tokens, has_summary,
    CASE WHEN NOT open THEN body END, CASE WHEN NOT open THEN packed END FROM placed),
part AS (
  INSERT INTO {run_parts} SELECT session_key, seq, 1, '', body, packed FROM placed WHERE open),
said AS (
  INSERT INTO {message_rows} SELECT p.session_key, p.behind + m.nth, p.seq, m.created_at, 1, m.nth - 1,
    coalesce(length(m.body::text), length(m.packed)), m.message_id, m.body, coalesce(m.packed, '')
  FROM unnest($33::int[], $34::int[], $35::bigint[], $36::text[], $37::json[], $38::bytea[])
    AS m (item, nth, created_at, message_id, body, packed) JOIN placed p USING (item))
SELECT s.chain, s.session_key, s.incarnation, s.version, s.state_version, s.run_count, s.message_count, s.user_id, s.created_at,
  s.last_activity_at, s.deleted_at, s.erased, s.has_hidden, s.has_summary, s.forks, s.forked_from, s.forked_incarnation, s.forked_at,
  s.forked_run_seq, s.forked_version,
  CASE WHEN NOT s.as_known THEN s.counters END
FROM head s

-- append_one
-- One run that is over, behind the head of a session as it was a moment ago, at half the cost of the above: all is said by who sends it.
-- Nothing is written when the session has moved on. $1 to $9 are the session and what becomes of it, $10 to $24 the run, the rest its
-- messages.
WITH head AS (
  UPDATE {sessions} SET version = $2 + 1, run_count = $3 + 1, message_count = $6, last_activity_at = $7, has_summary = $8, counters = $9
  WHERE session_key = $1 AND version = $2 AND run_count = $3 AND message_count = $4 AND last_activity_at = $5
  RETURNING session_key),
run AS (
  INSERT INTO {runs} SELECT session_key, $3 + 1, 1, $10, $2 + 1, 0, $11, $12, $13, $14, $15, $16, $4 + 1, $6, $17, $18, $19, $20, $21,
    $22, $23, $24 FROM head),
said AS (
  INSERT INTO {message_rows} SELECT h.session_key, $4 + m.nth, $3 + 1, m.created_at, 1, m.nth - 1,
    coalesce(length(m.body::text), length(m.packed)), m.message_id, m.body, coalesce(m.packed, '')
  FROM head h, unnest($25::bigint[], $26::text[], $27::json[], $28::bytea[])
    WITH ORDINALITY AS m (created_at, message_id, body, packed, nth))
SELECT 0 FROM head

-- append_each
-- The same for one run in each of several sessions: $1 to $11 the sessions, $12 to $26 the runs, the rest their messages.
WITH item AS MATERIALIZED (
  SELECT * FROM unnest($1::int[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[],
    $9::bool[], $10::jsonb[], $11::bigint[], $12::text[], $13::bytea[], $14::text[], $15::text[], $16::text[], $17::text[],
    $18::bigint[], $19::text[], $20::bigint[], $21::bigint[], $22::bigint[], $23::bigint[], $24::bool[], $25::json[], $26::bytea[])
    AS i (item, session_key, version, run_count, message_count, active, last_position, at, summaries, counters, before, run_id, digest,
    user_id, agent_id, parent_run_id, model, created_at, status, updated_at, finished_at, input_tokens, output_tokens, has_summary,
    body, packed)),
locked AS MATERIALIZED (
  SELECT s.session_key FROM item JOIN {sessions} s USING (session_key) ORDER BY s.namespace, s.session_id FOR UPDATE OF s),
head AS (
  UPDATE {sessions} s SET version = i.version + 1, run_count = i.run_count + 1, message_count = i.last_position,
    last_activity_at = i.at, has_summary = i.summaries, counters = i.counters
  FROM locked l JOIN item i USING (session_key)
  WHERE s.session_key = l.session_key AND s.version = i.version AND s.run_count = i.run_count AND s.message_count = i.message_count
    AND s.last_activity_at = i.active
  RETURNING i.*),
run AS (
  INSERT INTO {runs} SELECT session_key, run_count + 1, 1, run_id, version + 1, 0, digest, user_id, agent_id, parent_run_id, model,
    created_at, message_count + 1, last_position, status, updated_at, finished_at, input_tokens, output_tokens, has_summary, body,
    packed FROM head),
said AS (
  INSERT INTO {message_rows} SELECT h.session_key, h.message_count - h.before + m.nth, h.run_count + 1, m.created_at, 1,
    m.nth - h.before - 1, coalesce(length(m.body::text), length(m.packed)), m.message_id, m.body, coalesce(m.packed, '')
  FROM unnest($27::int[], $28::bigint[], $29::text[], $30::json[], $31::bytea[])
    WITH ORDINALITY AS m (item, created_at, message_id, body, packed, nth) JOIN head h USING (item))
SELECT item FROM head

-- operation
SELECT digest, receipts FROM {operations} WHERE session_key = $1 AND operation_id = $2

-- stored_run
-- One revision of a run, as far as a decision needs it.
SELECT seq, revision, patch, digest, first_position, last_position, version FROM {runs}
WHERE run_id = $1 AND session_key = $2 AND revision = $3

-- newest_run
SELECT seq, revision, patch, digest, first_position, last_position, version FROM {runs}
WHERE run_id = $1 AND session_key = $2 ORDER BY revision DESC LIMIT 1

-- hide_exists
SELECT 1 FROM {hidden} WHERE session_key = $1 AND hide_id = $2 AND revision IS NULL LIMIT 1

-- drop_session
WITH h AS (DELETE FROM {session_headers} WHERE session_key = $1), t AS (DELETE FROM {session_states} WHERE session_key = $1)
DELETE FROM {sessions} WHERE session_key = $1

-- insert_session
WITH s AS (
  INSERT INTO {sessions} (namespace, session_id, incarnation, version, state_version, run_count, message_count, user_id, created_at,
    last_activity_at, deleted_at, erased, has_hidden, has_summary, forks, forked_from, forked_incarnation, forked_at, forked_run_seq,
    forked_version, counters)
  VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)
  ON CONFLICT DO NOTHING RETURNING session_key),
h AS (INSERT INTO {session_headers} SELECT s.session_key, $22, $23, $24, $25, $26, $27, $28, $29 FROM s),
t AS (INSERT INTO {session_states} SELECT s.session_key, $30, $31 FROM s)
SELECT session_key FROM s

-- update_session
UPDATE {sessions} SET version = $1, state_version = $2, run_count = $3, message_count = $4, last_activity_at = $5, deleted_at = $6,
  erased = $7, has_hidden = $8, has_summary = $9, forks = $10, counters = $11 WHERE session_key = $12

-- put_header
UPDATE {session_headers} SET kind = $2, agent_id = $3, current_agent = $4, name = $5, parent_session_id = $6, updated_at = $7,
  body = $8, packed = $9 WHERE session_key = $1

-- put_state
UPDATE {session_states} SET body = $2, packed = $3 WHERE session_key = $1

-- insert_run
INSERT INTO {runs} VALUES ($1, $2, $3, $4, $5, 0, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)

-- patch_run
UPDATE {runs} SET patch = patch + 1, status = $1, updated_at = $2, finished_at = $3, input_tokens = $4, output_tokens = $5,
  has_summary = $6 WHERE session_key = $7 AND seq = $8 AND revision = $9

-- put_parts
INSERT INTO {run_parts} SELECT $1, $2, $3, * FROM unnest($4::text[], $5::json[], $6::bytea[])
ON CONFLICT (session_key, seq, revision, name) DO UPDATE SET body = excluded.body, packed = excluded.packed

-- grow_segment
-- New messages right behind the run's last ones make its last segment longer.
WITH grown AS (
  UPDATE {segments} SET last_position = $5 WHERE session_key = $1 AND seq = $2 AND revision = $3 AND last_position = $4 - 1
  RETURNING 1)
INSERT INTO {segments} SELECT $1, $2, $3, $4, $5 WHERE NOT EXISTS (SELECT FROM grown)

-- insert_messages
INSERT INTO {message_rows} SELECT $1, $4 + m.nth, $2, m.created_at, $3, m.run_index, coalesce(length(m.body::text), length(m.packed)),
  m.message_id, m.body, coalesce(m.packed, '')
FROM unnest($5::int[], $6::bigint[], $7::text[], $8::json[], $9::bytea[])
  WITH ORDINALITY AS m (run_index, created_at, message_id, body, packed, nth)

-- insert_switch
INSERT INTO {agent_switches} VALUES ($1, $2, $3, $4, $5, $6, $7, $8)

-- insert_hidden
INSERT INTO {hidden} SELECT $1, $2, (SELECT count(*) FROM {hidden} WHERE session_key = $1 AND hide_id = $2) + h.nth - 1,
  h.first_position, h.last_position, h.first_run_seq, h.last_run_seq, h.revision, h.since, h.until, h.reach
FROM unnest($3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::int[], $8::bigint[], $9::bigint[], $10::bigint[])
  WITH ORDINALITY AS h (first_position, last_position, first_run_seq, last_run_seq, revision, since, until, reach, nth)

-- show
UPDATE {hidden} SET until = $1 WHERE session_key = $2 AND hide_id = $3 AND revision IS NULL AND until IS NULL

-- insert_operation
INSERT INTO {operations} VALUES ($1, $2, $3, $4)

-- insert_erasure
INSERT INTO {erasures} VALUES ($1, $2, $3) ON CONFLICT DO NOTHING

-- erasure
-- The oldest one of a session.
SELECT session_key FROM {erasures} WHERE namespace = $1 AND session_id = $2 ORDER BY session_key LIMIT 1 FOR UPDATE

-- any_erasure
SELECT session_key FROM {erasures} ORDER BY session_key LIMIT 1 FOR UPDATE SKIP LOCKED

-- end_erasure
DELETE FROM {erasures} WHERE session_key = $1
