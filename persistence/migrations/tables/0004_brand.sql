-- Whose make a listing is, where the retailer tells it.

alter table products add column brand text;
