-- +goose Up
-- Usage counts the runs that were begun in a time.
GRANT SELECT (created_at) ON discovery.runs TO role_discovery_tenant;
