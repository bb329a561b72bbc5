-- Flink SQL: one group by SKU over the union of the catalogue and the feed, so that one operator
-- holds the four rivals' last prices beside target and floor, and no join keeps them twice.
-- Tuned: minibatches, object reuse, heap state, one slot, the sink's batches and linger; a WHERE on
-- changing columns would make tombstones, so rows before their catalogue row carry no price.
-- No checkpoints, hence nothing is kept.
SET 'execution.runtime-mode' = 'streaming';
SET 'table.dml-sync' = 'true';
SET 'parallelism.default' = '1';
SET 'pipeline.object-reuse' = 'true';
SET 'table.exec.mini-batch.enabled' = 'true';
SET 'table.exec.mini-batch.allow-latency' = '100 ms';
SET 'table.exec.mini-batch.size' = '10000';
SET 'table.exec.sink.upsert-materialize' = 'NONE';

CREATE TABLE feed (
  sku STRING, rival STRING, price_minor INT
) WITH (
  'connector' = 'kafka',
  'topic' = '$input',
  'properties.bootstrap.servers' = '$bootstrap',
  'properties.group.id' = 'flink-$output',
  'properties.max.poll.records' = '5000',
  'properties.max.partition.fetch.bytes' = '4194304',
  'scan.startup.mode' = 'earliest-offset',
  'scan.bounded.mode' = 'latest-offset',
  'value.format' = 'json'
);

CREATE TABLE catalogue (
  sku STRING, target INT, floor_minor INT
) WITH (
  'connector' = 'filesystem', 'path' = 'file://$catalogue', 'format' = 'csv'
);

CREATE TABLE prices (
  sku STRING, price STRING, PRIMARY KEY (sku) NOT ENFORCED
) WITH (
  'connector' = 'upsert-kafka',
  'topic' = '$output',
  'properties.bootstrap.servers' = '$bootstrap',
  'properties.acks' = '1',
  'properties.linger.ms' = '20',
  'properties.batch.size' = '262144',
  'key.format' = 'raw',
  'value.format' = 'raw',
  'value.fields-include' = 'EXCEPT_KEY'
);

INSERT INTO prices
SELECT sku, CAST(GREATEST(floor_minor, LEAST(target, lowest * 9800 / 10000)) AS STRING)
FROM (
  SELECT
    sku,
    target,
    floor_minor,
    LEAST(COALESCE(r0, $none), COALESCE(r1, $none), COALESCE(r2, $none), COALESCE(r3, $none))
      AS lowest
  FROM (
    SELECT
      sku,
      LAST_VALUE(target) AS target,
      LAST_VALUE(floor_minor) AS floor_minor,
      LAST_VALUE(price_minor) FILTER (WHERE rival = 'r0') AS r0,
      LAST_VALUE(price_minor) FILTER (WHERE rival = 'r1') AS r1,
      LAST_VALUE(price_minor) FILTER (WHERE rival = 'r2') AS r2,
      LAST_VALUE(price_minor) FILTER (WHERE rival = 'r3') AS r3
    FROM (
      SELECT sku, target, floor_minor, CAST(NULL AS STRING) AS rival,
        CAST(NULL AS INT) AS price_minor
      FROM catalogue
      UNION ALL
      SELECT sku, CAST(NULL AS INT), CAST(NULL AS INT), rival, price_minor FROM feed
    )
    GROUP BY sku
  )
);
