-- +goose Up
-- Whose copy a tenant was made to be. Said when it is made, in the plan, and never changed: a backup of that other tenant may be restored to it, and to
-- no other tenant.
-- accepted new-constraint: the column is new and empty, and the release before writes none of it.

ALTER TABLE registry.tenants ADD COLUMN copy_of uuid REFERENCES registry.tenants;
