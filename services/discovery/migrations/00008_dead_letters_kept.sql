-- +goose Up
-- Letters are kept for a time and up to a number: what is past either goes, and that it went is on the record.
GRANT DELETE ON discovery.dead_letters TO role_discovery_tenant;
