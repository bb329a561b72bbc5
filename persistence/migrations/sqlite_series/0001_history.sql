-- History in SQLite: the columns and keys of QuestDB. ts is the log's append time in unix ms.

create table prices (
    ts integer not null, generation integer, shard integer, seq integer, item integer,
    listing integer, quote_id text, decided_ms integer,
    state integer, in_force_minor integer, previous_minor integer, proposed_minor integer,
    target_minor integer, floor_minor integer, ceiling_minor integer, cost_minor integer,
    reasons integer, binding integer, without_minor integer, elasticity real, elasticity_sd real,
    rival_minor integer, rivals integer, stock integer, profit_change real, confidence real,
    cause_kind integer, cause_lane integer, cause_offset integer, cause_item integer, model text,
    epoch integer,
    primary key (ts, generation, shard, seq, listing)
) without rowid;
create index prices_by_listing on prices (listing, ts);

-- What a listing is called. Decisions and frames name a listing by its key alone; join on it.
create table listings (
    ts integer not null, generation integer, shard integer, seq integer, listing integer,
    retailer text, channel text, sku text, title text, category text, currency text,
    cost_minor integer, removed integer,
    primary key (ts, generation, shard, seq, listing)
) without rowid;
create index listings_by_listing on listings (listing, ts);

create table competitor_prices (
    ts integer not null, generation integer, shard integer, lane integer, log_offset integer,
    item integer, listing integer, rival text, source text,
    price_minor integer, shipping_minor integer, currency text, condition_new integer,
    in_stock integer, observed_ms integer, verdict text, reason text,
    primary key (ts, generation, shard, lane, log_offset, item)
) without rowid;
create index competitor_prices_by_listing on competitor_prices (listing, ts);

create table inventory_levels (
    ts integer not null, generation integer, shard integer, lane integer, log_offset integer,
    item integer, listing integer, units integer,
    observed_ms integer, verdict text, reason text,
    primary key (ts, generation, shard, lane, log_offset, item)
) without rowid;
create index inventory_levels_by_listing on inventory_levels (listing, ts);

create table sales_metrics (
    ts integer not null, generation integer, shard integer, lane integer, log_offset integer,
    item integer, listing integer, units integer,
    source text, observed_ms integer, verdict text, reason text,
    primary key (ts, generation, shard, lane, log_offset, item)
) without rowid;
create index sales_metrics_by_listing on sales_metrics (listing, ts);

create table checkpoints (
    ts integer not null, generation integer, shard integer, epoch integer, seq integer,
    log_offset integer, digest text, files integer, bytes integer, name text,
    primary key (ts, generation, shard, seq)
) without rowid;

create table cursors (
    ts integer not null, sink text, generation integer, shard integer, log_id text,
    log_offset integer, epoch integer, owner text, seq integer, last_command integer,
    last_delta integer, appended_ms integer,
    primary key (ts, sink, generation, shard)
) without rowid;
