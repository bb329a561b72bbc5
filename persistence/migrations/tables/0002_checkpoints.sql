-- Checkpoints shipped from the owner's local folder: one manifest a shard, parts of at most 1 MB.

create table checkpoints (
    generation bigint not null,
    shard bigint not null,
    version bigint not null, -- grows by one with each manifest
    epoch bigint not null,
    owner text not null,
    log_id text not null,
    log_offset bigint not null,
    seq bigint not null,
    files text not null, -- the chain in order: name, bytes, parts and blake2b of each file
    bytes bigint not null,
    shipped_ms bigint not null,
    primary key (generation, shard)
);

create table checkpoint_parts (
    generation bigint not null,
    shard bigint not null,
    file text not null, -- blake2b of the whole file: a part that is there is the right one
    part bigint not null,
    epoch bigint not null,
    content bytea not null,
    primary key (generation, shard, file, part)
);
