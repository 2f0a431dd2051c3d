-- +goose Up
-- When a rollout began a tenant for the first time. What the tenant did before that is what it is held against, in a second attempt as well.
SET LOCAL lock_timeout = '5s';

ALTER TABLE registry.rollout_tenants ADD COLUMN first_changed_at timestamptz;
GRANT UPDATE (first_changed_at) ON registry.rollout_tenants TO role_registry;
