-- The ledger's tables, for Postgres and SQLite alike.
--
-- Money is in minor units, time in unix milliseconds. A listing is engine.routing.key64 read as a
-- signed 64-bit number. (lane, log_offset, item) is a delta's position: 0 commands, 1 deltas.

create table cursors (
    sink text not null,
    generation bigint not null,
    shard bigint not null,
    log_id text not null,
    log_offset bigint not null,
    epoch bigint not null,
    owner text not null,
    seq bigint not null,
    writer text not null, -- the follower that wrote last: tells its own late commit from a rival's
    appended_ms bigint not null,
    audit_number bigint not null,
    audit_hash text not null,
    quotes bigint not null, -- rows of price_history so far, and their checksum
    checksum text not null,
    primary key (sink, generation, shard)
);

create table retailers (
    generation bigint not null,
    shard bigint not null,
    retailer text not null,
    name text,
    currency text,
    mode text,
    primary_channel text,
    spread bigint,
    halted bigint not null default 0,
    halt_reason text,
    fields text not null default '{}',
    seq bigint not null,
    changed_ms bigint not null,
    primary key (generation, shard, retailer)
);

create table products (
    listing bigint not null primary key,
    generation bigint not null,
    shard bigint not null,
    retailer text not null,
    channel text not null,
    sku text not null,
    title text,
    category text,
    tags text not null default '[]',
    currency text,
    rrp_minor bigint,
    map_minor bigint,
    kvi bigint not null default 0,
    cost_minor bigint,
    changed_seq bigint not null,
    changed_ms bigint not null,
    removed_ms bigint, -- the row stays, since price_history still names it
    state bigint, -- the newest quote
    in_force_minor bigint,
    proposed_minor bigint,
    floor_minor bigint,
    ceiling_minor bigint,
    confidence double precision,
    quote_id text,
    priced_seq bigint,
    priced_ms bigint
);
create index products_by_sku on products (retailer, sku, channel);

create table price_history (
    generation bigint not null,
    shard bigint not null,
    seq bigint not null,
    item bigint not null,
    quote_id text not null,
    listing bigint not null,
    decided_ms bigint not null,
    appended_ms bigint not null,
    state bigint not null,
    in_force_minor bigint not null,
    previous_minor bigint not null,
    proposed_minor bigint not null,
    target_minor bigint not null,
    floor_minor bigint not null,
    ceiling_minor bigint not null,
    cost_minor bigint not null,
    reasons bigint not null,
    binding bigint not null,
    without_minor bigint not null,
    elasticity double precision,
    elasticity_sd double precision,
    rival_minor bigint not null,
    rivals bigint not null,
    stock bigint not null,
    profit_change double precision,
    confidence double precision,
    cause_kind bigint not null,
    cause_lane bigint not null,
    cause_offset bigint not null,
    cause_item bigint not null,
    model text not null,
    epoch bigint not null,
    actor text, -- who gave the command that caused it
    command_id text,
    primary key (generation, shard, seq, item)
);
create index price_history_by_listing on price_history (listing, decided_ms);

create table approvals (
    generation bigint not null,
    shard bigint not null,
    lane bigint not null,
    log_offset bigint not null,
    item bigint not null,
    seq bigint not null,
    decided_ms bigint not null,
    command_id text not null,
    retailer text not null,
    listing bigint not null,
    kind text not null,
    status text not null,
    actor text not null,
    price_minor bigint not null,
    detail text not null,
    primary key (generation, shard, lane, log_offset, item)
);
create index approvals_by_listing on approvals (listing, decided_ms);

create table policies (
    generation bigint not null,
    shard bigint not null,
    retailer text not null,
    scope text not null,
    scope_key text not null,
    priority bigint not null,
    fields text not null,
    actor text,
    seq bigint not null,
    changed_ms bigint not null,
    primary key (generation, shard, retailer, scope, scope_key)
);

create table audit (
    generation bigint not null,
    shard bigint not null,
    number bigint not null, -- contiguous from 1 within a shard
    seq bigint not null,
    decided_ms bigint not null,
    lane bigint not null,
    log_offset bigint not null,
    item bigint not null,
    entry text not null, -- outcome (of a command) or change (of catalogue, policy, retailer)
    retailer text not null,
    actor text not null,
    kind text not null,
    status text not null,
    command_id text not null,
    listing bigint not null,
    detail text not null,
    previous_hash text not null,
    hash text not null,
    primary key (generation, shard, number)
);
create index audit_by_position on audit (generation, shard, lane, log_offset, item);
