-- +goose Up
-- accepted writes-rows: of a table with a row a tenant
-- The component that reports for a set, as its blueprint says; empty where none does.
ALTER TABLE registry.service_sets ADD COLUMN reporter text NOT NULL DEFAULT '';
-- Until now it was this one of every set.
UPDATE registry.service_sets SET reporter = 'audit';
