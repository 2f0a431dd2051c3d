-- +goose Up
-- A release whose signature nobody can verify any more, for the key that made it is gone, is signed anew: what was signed stays as it is.
GRANT UPDATE (envelope, key_ids) ON registry.releases TO role_registry;
