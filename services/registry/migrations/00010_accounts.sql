-- +goose Up
-- The account of the cloud that a tenant has to itself. It is chosen when the tenant is made, and never another's while the tenant is there.
-- accepted new-constraint: the release before writes no account, so that what it writes is the default, which both hold for
-- accepted index-holds-writers: a registry has thousands of tenants at most, and the index of those with an account is made in no time

ALTER TABLE registry.tenants ADD COLUMN account text NOT NULL DEFAULT '' CHECK (account ~ '^([0-9]{12})?$');
CREATE UNIQUE INDEX tenants_account ON registry.tenants (account) WHERE account <> '' AND state <> 'offboarded';
