-- The price at which units were sold, in minor units; null where the sale did not tell it.
alter table sales_metrics add column price_minor integer;
