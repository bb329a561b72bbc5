-- History in QuestDB. ts is the log's append time: never an observed time, which may be old enough
-- to be acknowledged and dropped by a time to live. Keys make a row sent twice one row.

create table if not exists prices (
    ts timestamp, generation int, shard int, seq long, item int, listing long,
    quote_id varchar, decided_ms long, state int, in_force_minor int, previous_minor int,
    proposed_minor int, target_minor int, floor_minor int, ceiling_minor int, cost_minor int,
    reasons long, binding int, without_minor int, elasticity double, elasticity_sd double,
    rival_minor int, rivals int, stock int, profit_change double, confidence double,
    cause_kind int, cause_lane int, cause_offset long, cause_item int, model symbol, epoch long
) timestamp(ts) partition by day wal dedup upsert keys(ts, generation, shard, seq, listing);

-- What a listing is called. Decisions and frames name a listing by its key alone; join on it.
create table if not exists listings (
    ts timestamp, generation int, shard int, seq long, listing long,
    retailer symbol capacity 4096, channel symbol capacity 4096, sku varchar, title varchar,
    category symbol capacity 4096, currency symbol, cost_minor long, removed boolean
) timestamp(ts) partition by month wal dedup upsert keys(ts, generation, shard, seq, listing);

create table if not exists competitor_prices (
    ts timestamp, generation int, shard int, lane int, log_offset long, item int, listing long,
    rival symbol capacity 4096, source symbol capacity 4096, price_minor long, shipping_minor int,
    currency symbol, condition_new boolean, in_stock boolean, observed_ms long, verdict symbol,
    reason varchar
) timestamp(ts) partition by day wal dedup upsert keys(ts, generation, shard, lane, log_offset, item);

create table if not exists inventory_levels (
    ts timestamp, generation int, shard int, lane int, log_offset long, item int, listing long,
    units long, observed_ms long, verdict symbol, reason varchar
) timestamp(ts) partition by day wal dedup upsert keys(ts, generation, shard, lane, log_offset, item);

create table if not exists sales_metrics (
    ts timestamp, generation int, shard int, lane int, log_offset long, item int, listing long,
    units long, source symbol capacity 4096, observed_ms long, verdict symbol,
    reason varchar
) timestamp(ts) partition by day wal dedup upsert keys(ts, generation, shard, lane, log_offset, item);

create table if not exists checkpoints (
    ts timestamp, generation int, shard int, epoch long, seq long, log_offset long, digest varchar,
    files int, bytes long, name varchar
) timestamp(ts) partition by month wal dedup upsert keys(ts, generation, shard, seq);

-- One row a follower and shard, upserted in place: its ts is always the epoch.
create table if not exists cursors (
    ts timestamp, sink symbol, generation int, shard int, log_id varchar, log_offset long,
    epoch long, owner varchar, seq long, last_command long, last_delta long, appended_ms long
) timestamp(ts) partition by year wal dedup upsert keys(ts, sink, generation, shard);
