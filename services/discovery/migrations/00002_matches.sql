-- +goose Up

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
