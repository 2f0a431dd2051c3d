-- +goose Up
-- The transfer of ownership that the right to start the run rested on, if any: what comes of the run later names it on the record.
ALTER TABLE discovery.runs ADD COLUMN transfer_id uuid;
