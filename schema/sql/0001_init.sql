-- Sweeps, jobs, leases and results. docs/SCHEMA.md draws the tables and defines the views.
-- Labels are stored, never enum numbers. Times are wall-clock milliseconds since 1970 (*_ms).

-- ---- what is measured: every part of a job's key once ----

CREATE TABLE model (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE, -- "|model=…", a part of the job's key
    family TEXT NOT NULL,
    size TEXT NOT NULL,
    name TEXT NOT NULL,
    path TEXT,     -- absolute directory; NULL for a hub model
    hub TEXT,
    revision TEXT,
    weights_sha256 TEXT, -- pinned by the first result
    n_params INTEGER,    -- told by the first result
    n_params_linear INTEGER
) STRICT;

CREATE TABLE config (
    id INTEGER PRIMARY KEY,
    key_head TEXT NOT NULL, -- names below "model" in the key
    key_tail TEXT NOT NULL, -- names above it
    k INTEGER NOT NULL,
    dtype TEXT NOT NULL,
    exponent_bits INTEGER NOT NULL,
    subnormal_shift INTEGER NOT NULL,
    block INTEGER NOT NULL, -- 0: the whole tensor
    center TEXT NOT NULL,
    outlier_pct REAL NOT NULL,
    outlier_rule TEXT NOT NULL,
    quant_head INTEGER NOT NULL,
    quant_embed INTEGER NOT NULL,
    dequant TEXT NOT NULL,
    compute TEXT NOT NULL,
    UNIQUE (key_head, key_tail)
) STRICT;

CREATE TABLE eval (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE, -- "|task=…"
    name TEXT NOT NULL,
    task TEXT NOT NULL,
    data TEXT NOT NULL,      -- as declared
    data_path TEXT NOT NULL, -- absolute
    subset TEXT,
    max_items INTEGER NOT NULL, -- `limit`; 0: all
    window INTEGER NOT NULL,    -- tokens; 0: the model's context
    max_tokens INTEGER NOT NULL,
    method TEXT NOT NULL,
    join_rule TEXT NOT NULL,
    bos INTEGER NOT NULL,
    data_sha256 TEXT -- pinned by the first result
) STRICT;

-- Bit accounting of a checkpoint under a configuration (quantization spec, section 7).
CREATE TABLE bits (
    model_id INTEGER NOT NULL REFERENCES model (id),
    config_id INTEGER NOT NULL REFERENCES config (id),
    per_param REAL NOT NULL,
    total_full INTEGER NOT NULL,
    total_nominal REAL NOT NULL,
    total_linear INTEGER NOT NULL,
    uncharged INTEGER NOT NULL,
    PRIMARY KEY (model_id, config_id)
) STRICT, WITHOUT ROWID;

-- ---- what was asked for ----

CREATE TABLE sweep (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created_ms INTEGER NOT NULL,
    job_limit_s INTEGER NOT NULL DEFAULT 0 -- a job that runs longer has failed; 0: no limit
) STRICT;

CREATE TABLE spec (
    id INTEGER PRIMARY KEY,
    sweep_id INTEGER NOT NULL REFERENCES sweep (id),
    sha256 TEXT NOT NULL,
    path TEXT NOT NULL,
    text TEXT NOT NULL,
    planned_ms INTEGER NOT NULL,
    UNIQUE (sweep_id, sha256)
) STRICT;

CREATE TABLE sweep_eval (
    sweep_id INTEGER NOT NULL REFERENCES sweep (id),
    eval_id INTEGER NOT NULL REFERENCES eval (id),
    PRIMARY KEY (sweep_id, eval_id)
) STRICT, WITHOUT ROWID;

-- The sweeps that a job belongs to, as one number: "1" or "1,2,5", origin first. A handful of rows.
CREATE TABLE sweep_set (
    id INTEGER PRIMARY KEY,
    members TEXT NOT NULL UNIQUE,
    origin_id INTEGER NOT NULL REFERENCES sweep (id)
) STRICT;

CREATE TABLE sweep_set_member (
    set_id INTEGER NOT NULL REFERENCES sweep_set (id),
    sweep_id INTEGER NOT NULL REFERENCES sweep (id),
    PRIMARY KEY (set_id, sweep_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE worker (
    id INTEGER PRIMARY KEY,
    uuid TEXT NOT NULL UNIQUE,
    public_key TEXT NOT NULL, -- that brought the uuid first; '': no keys were in force
    host TEXT NOT NULL,
    device TEXT NOT NULL,
    program TEXT NOT NULL,
    numerics INTEGER NOT NULL,
    memory_bytes INTEGER NOT NULL,
    computes TEXT NOT NULL, -- "fp32,bf16"
    pid INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('live', 'left', 'lost')),
    first_seen_ms INTEGER NOT NULL,
    last_seen_ms INTEGER NOT NULL,
    done INTEGER NOT NULL DEFAULT 0,  -- results accepted
    failed INTEGER NOT NULL DEFAULT 0 -- attempts that counted against a job
) STRICT;

CREATE TABLE job (
    id INTEGER PRIMARY KEY,
    model_id INTEGER NOT NULL REFERENCES model (id),
    config_id INTEGER NOT NULL REFERENCES config (id),
    eval_id INTEGER NOT NULL REFERENCES eval (id),
    set_id INTEGER NOT NULL REFERENCES sweep_set (id),
    state TEXT NOT NULL, -- label of enum job_state; a CHECK over six labels would double the time of a plan
    attempt INTEGER NOT NULL DEFAULT 0,  -- grows with every lease; fences late results
    failures INTEGER NOT NULL DEFAULT 0, -- attempts that counted against the job
    priority INTEGER NOT NULL DEFAULT 0, -- higher first
    worker_id INTEGER REFERENCES worker (id), -- of the lease in force
    leased_ms INTEGER,
    UNIQUE (model_id, config_id, eval_id)
) STRICT;

-- The few jobs in a state that is looked for by name; pending and done ones would only burden every write.
-- The OR form is what SQLite's partial-index prover accepts for state = 'buried'.
CREATE INDEX job_by_state ON job (state, worker_id)
WHERE state = 'leased' OR state = 'buried' OR state = 'held' OR state = 'cancelled';

-- Jobs by set and state, written once a commit for all jobs that moved in it (store_counters.c).
CREATE TABLE tally (
    set_id INTEGER NOT NULL REFERENCES sweep_set (id),
    state TEXT NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (set_id, state)
) STRICT, WITHOUT ROWID;

CREATE TABLE pace (
    minute INTEGER NOT NULL, -- wall clock, minutes since 1970
    set_id INTEGER NOT NULL REFERENCES sweep_set (id),
    n INTEGER NOT NULL,
    PRIMARY KEY (minute, set_id)
) STRICT, WITHOUT ROWID;

-- ---- what came of it ----

CREATE TABLE provenance (
    id INTEGER PRIMARY KEY,
    device TEXT NOT NULL,
    host TEXT NOT NULL,
    program TEXT NOT NULL,
    numerics INTEGER NOT NULL,
    weights_sha256 TEXT NOT NULL,
    data_sha256 TEXT NOT NULL,
    tokenizer_sha256 TEXT NOT NULL,
    items_sha256 TEXT NOT NULL, -- names the item set that the samples follow; '': none
    UNIQUE (weights_sha256, data_sha256, device, host, program, numerics, tokenizer_sha256, items_sha256)
) STRICT;

CREATE TABLE run (
    job_id INTEGER PRIMARY KEY REFERENCES job (id),
    attempt INTEGER NOT NULL,
    worker_id INTEGER NOT NULL REFERENCES worker (id),
    provenance_id INTEGER NOT NULL REFERENCES provenance (id),
    seconds REAL NOT NULL,
    n INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    finished_ms INTEGER NOT NULL,
    weights_read INTEGER NOT NULL -- bytes of weight files read for it; 0: the checkpoint was resident
) STRICT;

CREATE TABLE metric (
    job_id INTEGER NOT NULL REFERENCES job (id),
    name TEXT NOT NULL,
    value REAL, -- NULL: not a finite number
    stderr REAL,
    n INTEGER NOT NULL,
    PRIMARY KEY (job_id, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE sample (
    job_id INTEGER PRIMARY KEY REFERENCES job (id),
    codec TEXT NOT NULL,
    blob BLOB NOT NULL
) STRICT;

-- Attempts that ended without a result; a result has its run.
CREATE TABLE attempt (
    job_id INTEGER NOT NULL REFERENCES job (id),
    attempt INTEGER NOT NULL,
    worker_id INTEGER REFERENCES worker (id),
    started_ms INTEGER,
    ended_ms INTEGER NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('failed', 'lost', 'returned', 'refused', 'invalidated')),
    code TEXT NOT NULL, -- name of an error (base/err.h)
    text TEXT NOT NULL,
    PRIMARY KEY (job_id, attempt)
) STRICT, WITHOUT ROWID;

-- Checkpoints that a worker cannot serve: files absent, other files than the pinned ones, memory too small.
CREATE TABLE refusal (
    worker_id INTEGER NOT NULL REFERENCES worker (id),
    model_id INTEGER NOT NULL REFERENCES model (id),
    code TEXT NOT NULL,
    text TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (worker_id, model_id)
) STRICT, WITHOUT ROWID;

-- The items that evaluations make of a file under a tokenizer. Another window, method or subset makes others.
CREATE TABLE item_set (
    id INTEGER PRIMARY KEY,
    items_sha256 TEXT NOT NULL UNIQUE,
    data_sha256 TEXT NOT NULL,
    task TEXT NOT NULL,
    tokenizer_sha256 TEXT NOT NULL
) STRICT;

CREATE TABLE item (
    set_id INTEGER NOT NULL REFERENCES item_set (id),
    i INTEGER NOT NULL,
    gold INTEGER, -- NULL: none
    chars ANY NOT NULL, -- a number for one choice, a JSON array for several
    bytes ANY NOT NULL,
    tokens ANY NOT NULL,
    PRIMARY KEY (set_id, i)
) STRICT, WITHOUT ROWID;

-- ---- views: the interface ----

CREATE VIEW jobs AS
SELECT c.key_head || m.key || c.key_tail || v.key AS key, s.name AS sweep, j.state AS state,
       j.failures + (j.state IN ('leased', 'done')) AS attempts, j.priority AS priority,
       m.family AS family, m.size AS size, c.k AS k, c.dtype AS dtype, c.exponent_bits AS exponent_bits,
       c.subnormal_shift AS subnormal_shift, c.block AS block, c.center AS center,
       c.outlier_pct AS outlier_pct, c.outlier_rule AS outlier_rule, c.compute AS compute,
       v.name AS evaluation, v.task AS task,
       (SELECT w.uuid FROM worker w WHERE w.id = ifnull(r.worker_id, j.worker_id)) AS worker,
       r.seconds AS seconds,
       CASE WHEN j.state <> 'done' AND j.attempt > 0 THEN
           (SELECT a.text FROM attempt a WHERE a.job_id = j.id ORDER BY a.attempt DESC LIMIT 1)
       END AS error,
       j.id AS job, m.name AS model, m.n_params AS n_params, r.weights_read AS weights_read
FROM job j
JOIN model m ON m.id = j.model_id
JOIN config c ON c.id = j.config_id
JOIN eval v ON v.id = j.eval_id
JOIN sweep_set ss ON ss.id = j.set_id
JOIN sweep s ON s.id = ss.origin_id
LEFT JOIN run r ON r.job_id = j.id;

CREATE VIEW results AS
SELECT c.key_head || m.key || c.key_tail || v.key AS key, s.name AS sweep, m.family AS family, m.size AS size,
       m.n_params AS n_params, m.n_params_linear AS n_params_linear, c.k AS k, c.dtype AS dtype,
       c.exponent_bits AS exponent_bits, c.subnormal_shift AS subnormal_shift, c.block AS block,
       c.center AS center, c.outlier_pct AS outlier_pct, c.outlier_rule AS outlier_rule, c.compute AS compute,
       v.name AS evaluation, v.task AS task, x.name AS metric, x.value AS value, x.stderr AS stderr, x.n AS n,
       b.per_param AS bits_per_param, b.total_full AS total_bits_full, b.total_nominal AS total_bits_nominal,
       b.total_linear AS total_bits_linear, p.device AS device, r.seconds AS seconds, p.program AS program,
       p.weights_sha256 AS weights_sha256, p.data_sha256 AS data_sha256,
       strftime('%Y-%m-%dT%H:%M:%SZ', r.finished_ms / 1000, 'unixepoch') AS finished_at,
       j.id AS job, p.tokenizer_sha256 AS tokenizer_sha256, p.host AS host, c.quant_head AS quant_head,
       c.quant_embed AS quant_embed, c.dequant AS dequant
FROM run r
JOIN job j ON j.id = r.job_id
JOIN metric x ON x.job_id = r.job_id
JOIN model m ON m.id = j.model_id
JOIN config c ON c.id = j.config_id
JOIN eval v ON v.id = j.eval_id
JOIN sweep_set ss ON ss.id = j.set_id
JOIN sweep s ON s.id = ss.origin_id
JOIN provenance p ON p.id = r.provenance_id
LEFT JOIN bits b ON b.model_id = j.model_id AND b.config_id = j.config_id;

-- The first evaluation of each task in a sweep speaks for the task.
CREATE VIEW scaling AS
WITH chosen AS MATERIALIZED (
    SELECT se.sweep_id AS sweep_id, min(v.id) AS eval_id, v.task AS task
    FROM sweep_eval se JOIN eval v ON v.id = se.eval_id GROUP BY se.sweep_id, v.task
),
number AS ( -- one pass over the metrics of a job; a join per metric takes three times as long
    SELECT sm.sweep_id AS sweep_id, j.model_id AS model_id, j.config_id AS config_id, x.value AS value,
           ch.task <> 'perplexity' AND x.name = 'acc' AS is_acc,
           ch.task <> 'perplexity'
               AND x.name = CASE WHEN ch.task IN ('hellaswag', 'piqa') THEN 'acc_norm' ELSE 'acc' END AS is_norm,
           CASE ch.task WHEN 'perplexity' THEN x.name END AS name
    FROM job j
    JOIN sweep_set_member sm ON sm.set_id = j.set_id
    LEFT JOIN chosen ch ON ch.sweep_id = sm.sweep_id AND ch.eval_id = j.eval_id
    LEFT JOIN metric x ON x.job_id = j.id AND ch.eval_id IS NOT NULL
),
cell AS (
    SELECT sweep_id, model_id, config_id,
           count(CASE WHEN is_acc THEN value END) AS n_acc, avg(CASE WHEN is_acc THEN value END) AS mean_acc,
           count(CASE WHEN is_norm THEN value END) AS n_norm, avg(CASE WHEN is_norm THEN value END) AS mean_norm,
           max(CASE name WHEN 'nll' THEN value END) AS nll,
           max(CASE name WHEN 'perplexity' THEN value END) AS perplexity,
           max(CASE name WHEN 'kl_to_16bit' THEN value END) AS kl_to_16bit
    FROM number GROUP BY model_id, config_id, sweep_id
)
SELECT s.name AS sweep, m.family AS family, m.size AS size, c.k AS k, c.dtype AS dtype,
       c.exponent_bits AS exponent_bits, c.subnormal_shift AS subnormal_shift, c.block AS block,
       c.center AS center, c.outlier_pct AS outlier_pct, c.outlier_rule AS outlier_rule, c.compute AS compute,
       m.n_params AS n_params, b.per_param AS bits_per_param, b.total_full AS total_bits_full,
       b.total_nominal AS total_bits_nominal, b.total_linear AS total_bits_linear,
       CASE WHEN cell.n_acc = 4 THEN cell.mean_acc END AS mean_zero_shot,
       CASE WHEN cell.n_norm = 4 THEN cell.mean_norm END AS mean_zero_shot_norm,
       cell.nll AS nll, cell.perplexity AS perplexity, cell.kl_to_16bit AS kl_to_16bit,
       c.quant_head AS quant_head, c.quant_embed AS quant_embed, c.dequant AS dequant, m.name AS model,
       cell.model_id AS model_id, cell.config_id AS config_id
FROM cell
JOIN sweep s ON s.id = cell.sweep_id
JOIN model m ON m.id = cell.model_id
JOIN config c ON c.id = cell.config_id
LEFT JOIN bits b ON b.model_id = cell.model_id AND b.config_id = cell.config_id;

-- The finished jobs behind a row of `scaling`.
CREATE VIEW cells AS
WITH chosen AS MATERIALIZED (
    SELECT se.sweep_id AS sweep_id, min(v.id) AS eval_id, v.task AS task
    FROM sweep_eval se JOIN eval v ON v.id = se.eval_id GROUP BY se.sweep_id, v.task
)
SELECT s.name AS sweep, j.model_id AS model_id, j.config_id AS config_id, ch.task AS task, r.job_id AS job,
       p.data_sha256 AS data, p.tokenizer_sha256 AS tokenizer
FROM run r
JOIN job j ON j.id = r.job_id
JOIN sweep_set_member sm ON sm.set_id = j.set_id
JOIN chosen ch ON ch.sweep_id = sm.sweep_id AND ch.eval_id = j.eval_id
JOIN sweep s ON s.id = sm.sweep_id
JOIN provenance p ON p.id = r.provenance_id;

CREATE VIEW progress AS
WITH per_state AS (
    SELECT sm.sweep_id AS sweep_id,
           sum(CASE t.state WHEN 'pending' THEN t.n ELSE 0 END) AS pending,
           sum(CASE t.state WHEN 'leased' THEN t.n ELSE 0 END) AS leased,
           sum(CASE t.state WHEN 'done' THEN t.n ELSE 0 END) AS done,
           sum(CASE t.state WHEN 'buried' THEN t.n ELSE 0 END) AS buried,
           sum(CASE t.state WHEN 'held' THEN t.n ELSE 0 END) AS held,
           sum(CASE t.state WHEN 'cancelled' THEN t.n ELSE 0 END) AS cancelled,
           sum(t.n) AS total
    FROM sweep_set_member sm JOIN tally t ON t.set_id = sm.set_id GROUP BY sm.sweep_id
),
recent AS ( -- the last five minutes, counted from the first minute that finished anything
    SELECT sm.sweep_id AS sweep_id,
           sum(p.n) * 1.0 / max(unixepoch('now') - 60 * min(p.minute), 1) AS jobs_per_s
    FROM pace p JOIN sweep_set_member sm ON sm.set_id = p.set_id
    WHERE p.minute > unixepoch('now') / 60 - 5 GROUP BY sm.sweep_id
)
SELECT s.name AS sweep, t.pending AS pending, t.leased AS leased, t.done AS done, t.buried AS buried,
       ifnull(recent.jobs_per_s, 0.0) AS jobs_per_s,
       CASE WHEN t.pending + t.leased = 0 THEN 0.0
            ELSE (t.pending + t.leased) / recent.jobs_per_s END AS eta_s,
       t.held AS held, t.cancelled AS cancelled, t.total AS total
FROM sweep s
JOIN per_state t ON t.sweep_id = s.id
LEFT JOIN recent ON recent.sweep_id = s.id;

CREATE VIEW workers AS
SELECT w.uuid AS worker, w.host AS host, w.device AS device, w.program AS program, w.state AS state,
       w.memory_bytes AS memory_bytes, w.computes AS computes, w.pid AS pid,
       w.done AS done, w.failed AS failed,
       (SELECT count(*) FROM job j WHERE j.state = 'leased' AND j.worker_id = w.id) AS leased,
       strftime('%Y-%m-%dT%H:%M:%SZ', w.first_seen_ms / 1000, 'unixepoch') AS first_seen,
       strftime('%Y-%m-%dT%H:%M:%SZ', w.last_seen_ms / 1000, 'unixepoch') AS last_seen
FROM worker w;

CREATE VIEW failures AS
SELECT c.key_head || m.key || c.key_tail || v.key AS key, s.name AS sweep, j.state AS state,
       a.attempt AS attempt, a.outcome AS outcome, a.code AS code, a.text AS text, w.uuid AS worker,
       w.host AS host, strftime('%Y-%m-%dT%H:%M:%SZ', a.started_ms / 1000, 'unixepoch') AS started_at,
       strftime('%Y-%m-%dT%H:%M:%SZ', a.ended_ms / 1000, 'unixepoch') AS ended_at, j.id AS job
FROM attempt a
JOIN job j ON j.id = a.job_id
JOIN model m ON m.id = j.model_id
JOIN config c ON c.id = j.config_id
JOIN eval v ON v.id = j.eval_id
JOIN sweep_set ss ON ss.id = j.set_id
JOIN sweep s ON s.id = ss.origin_id
LEFT JOIN worker w ON w.id = a.worker_id;

CREATE VIEW refusals AS
SELECT w.uuid AS worker, w.host AS host, m.name AS model, r.code AS code, r.text AS text,
       strftime('%Y-%m-%dT%H:%M:%SZ', r.at_ms / 1000, 'unixepoch') AS at
FROM refusal r JOIN worker w ON w.id = r.worker_id JOIN model m ON m.id = r.model_id;

CREATE VIEW samples AS
SELECT s.job_id AS job, s.codec AS codec, s.blob AS blob, p.items_sha256 AS item_set
FROM sample s JOIN run r ON r.job_id = s.job_id JOIN provenance p ON p.id = r.provenance_id;

CREATE VIEW items AS
SELECT t.data_sha256 AS data, t.task AS task, t.tokenizer_sha256 AS tokenizer, i.i AS i, i.gold AS gold,
       i.chars AS chars, i.bytes AS bytes, i.tokens AS tokens, t.items_sha256 AS item_set
FROM item_set t JOIN item i ON i.set_id = t.id;
