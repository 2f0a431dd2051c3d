-- +goose Up

-- Keys are cut to what a btree page holds: names may be longer, and are compared whole after they were found. No address is longer than
-- 320 characters (RFC 3696 errata); what is, is none.
DROP INDEX discovery.resources_external_key, discovery.resources_name_key, discovery.resources_email_key, discovery.resources_login_key;
ALTER TABLE discovery.resources DROP COLUMN external_key, DROP COLUMN name_key, DROP COLUMN email_key, DROP COLUMN login_key;
ALTER TABLE discovery.resources
    ADD COLUMN external_key text GENERATED ALWAYS AS (left(lower(external_id), 200)) STORED,
    ADD COLUMN name_key     text GENERATED ALWAYS AS (left(lower(display_name), 200)) STORED,
    ADD COLUMN email_key    text GENERATED ALWAYS AS (CASE WHEN account AND length(attributes ->> 'email') BETWEEN 1 AND 320 THEN lower(attributes ->> 'email') END) STORED,
    ADD COLUMN login_key    text GENERATED ALWAYS AS (CASE WHEN account AND length(attributes ->> 'login') BETWEEN 1 AND 200 THEN lower(attributes ->> 'login') END) STORED;
CREATE INDEX resources_external_key ON discovery.resources (workspace_id, external_key);
CREATE INDEX resources_name_key ON discovery.resources (workspace_id, name_key);
CREATE INDEX resources_email_key ON discovery.resources (workspace_id, email_key) WHERE email_key IS NOT NULL;
CREATE INDEX resources_login_key ON discovery.resources (workspace_id, login_key) WHERE login_key IS NOT NULL;

-- Which accounts are which person's, by the rules in their order: an account whose address is a person's; an account without an address
-- whose login is the local part of exactly one person's address. Persons are those who have an address, so no chain of logins makes one.
CREATE VIEW discovery.matches WITH (security_invoker = true) AS
WITH emails AS (
    SELECT r.workspace_id, r.id AS account_id, p.id AS person_id, p.key
    FROM discovery.resources r JOIN discovery.persons p ON p.workspace_id = r.workspace_id AND p.key = r.email_key
    WHERE r.until IS NULL AND r.email_key IS NOT NULL
),
locals AS (
    SELECT e.workspace_id, split_part(e.key, '@', 1) AS login, (array_agg(e.person_id))[1] AS person_id
    FROM emails e GROUP BY 1, 2 HAVING count(DISTINCT e.person_id) = 1
)
SELECT workspace_id, account_id, person_id, 'email'::text AS rule FROM emails
UNION ALL
SELECT r.workspace_id, r.id, l.person_id, 'login'
FROM discovery.resources r JOIN locals l ON l.workspace_id = r.workspace_id AND l.login = coalesce(r.login_key, r.external_key)
WHERE r.until IS NULL AND r.account AND r.email_key IS NULL;

GRANT SELECT ON discovery.matches TO role_discovery;
