-- sweep_eval: the evaluations of a sweep's spec as planned last, in the spec's order. The first one of a task speaks for it in
-- `scaling` and `cells`. Rows from before this version keep the order that the views went by then, that of the ids.

ALTER TABLE sweep_eval ADD COLUMN position INTEGER NOT NULL DEFAULT 0; -- in the spec, from 0

UPDATE sweep_eval AS se SET position =
    (SELECT count(*) FROM sweep_eval o WHERE o.sweep_id = se.sweep_id AND o.eval_id < se.eval_id);

DROP VIEW scaling;
DROP VIEW cells;

-- The first evaluation of each task in a sweep speaks for the task. A cell all of whose jobs are of evaluations that the spec has
-- no more is none of the sweep's.
CREATE VIEW scaling AS
WITH ranked AS (
    SELECT se.sweep_id AS sweep_id, v.id AS eval_id, v.task AS task,
           row_number() OVER (PARTITION BY se.sweep_id, v.task ORDER BY se.position) AS place
    FROM sweep_eval se JOIN eval v ON v.id = se.eval_id
),
asked AS MATERIALIZED ( -- task is NULL where another evaluation speaks for it
    SELECT sweep_id, eval_id, CASE place WHEN 1 THEN task END AS task FROM ranked
),
number AS ( -- one pass over the metrics of a job; a join per metric takes three times as long
    SELECT sm.sweep_id AS sweep_id, j.model_id AS model_id, j.config_id AS config_id, x.value AS value,
           a.task <> 'perplexity' AND x.name = 'acc' AS is_acc,
           a.task <> 'perplexity'
               AND x.name = CASE WHEN a.task IN ('hellaswag', 'piqa') THEN 'acc_norm' ELSE 'acc' END AS is_norm,
           CASE a.task WHEN 'perplexity' THEN x.name END AS name
    FROM job j -- CROSS: in this order
    CROSS JOIN sweep_set_member sm ON sm.set_id = j.set_id
    CROSS JOIN asked a ON a.sweep_id = sm.sweep_id AND a.eval_id = j.eval_id
    LEFT JOIN metric x ON x.job_id = j.id AND a.task IS NOT NULL
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
WITH ranked AS (
    SELECT se.sweep_id AS sweep_id, v.id AS eval_id, v.task AS task,
           row_number() OVER (PARTITION BY se.sweep_id, v.task ORDER BY se.position) AS place
    FROM sweep_eval se JOIN eval v ON v.id = se.eval_id
),
chosen AS MATERIALIZED (
    SELECT sweep_id, eval_id, task FROM ranked WHERE place = 1
)
SELECT s.name AS sweep, j.model_id AS model_id, j.config_id AS config_id, ch.task AS task, r.job_id AS job,
       p.data_sha256 AS data, p.tokenizer_sha256 AS tokenizer
FROM run r
JOIN job j ON j.id = r.job_id
JOIN sweep_set_member sm ON sm.set_id = j.set_id
JOIN chosen ch ON ch.sweep_id = sm.sweep_id AND ch.eval_id = j.eval_id
JOIN sweep s ON s.id = sm.sweep_id
JOIN provenance p ON p.id = r.provenance_id;
