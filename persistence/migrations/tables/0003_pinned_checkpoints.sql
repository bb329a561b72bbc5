-- The first chain shipped of each day: where replay can begin after retention cut the log's head.

create table pinned_checkpoints (
    generation bigint not null,
    shard bigint not null,
    day bigint not null, -- of decided time, days since 1970
    epoch bigint not null,
    seq bigint not null,
    files text not null, -- as in checkpoints
    primary key (generation, shard, day)
);
