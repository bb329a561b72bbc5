-- A listing's brand, null where none was told, and in rows from before this column.
alter table listings add column if not exists brand symbol capacity 4096;
