-- +goose Up
-- Signing keys are sealed again where the tenant's key-encryption key was changed.
GRANT UPDATE (sealed) ON iam.signing_keys TO role_iam_tenant;
