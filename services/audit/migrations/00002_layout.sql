-- +goose Up
-- A bundle of entries (C2SP tlog-tiles) writes the length of an entry in 16 bits, and an entry is the event and what the database
-- notes beside it. What waits in the inbox already is sealed as it is.
ALTER TABLE audit.inbox ADD CONSTRAINT inbox_body_fits_a_bundle CHECK (octet_length(body) <= 65000) NOT VALID;
