-- +goose Up
-- How long the keys of a tenant that leaves are kept after its export, as the operation's plan has it. It is counted from when the step export
-- was done, which stays as it is.
SET LOCAL lock_timeout = '5s';

ALTER TABLE registry.operations ADD COLUMN wait_seconds double precision NOT NULL DEFAULT 0;
