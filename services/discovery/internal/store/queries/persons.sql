-- Accounts are joined into persons after every publication, by the rules in discovery.matches.

-- name: AddPersons :exec
-- Every address of a standing account is a person's. The id follows from the address, so who goes and comes back is who they were.
INSERT INTO discovery.persons (workspace_id, id, display_name, key)
SELECT DISTINCT ON (r.email_key) r.workspace_id, encode(substring(sha256(convert_to(r.workspace_id || ' person ' || r.email_key, 'UTF8')), 1, 16), 'hex')::uuid,
    CASE WHEN r.display_name <> '' THEN r.display_name ELSE r.email_key END, r.email_key
FROM discovery.resources r
WHERE r.workspace_id = a3.current_workspace() AND r.email_key IS NOT NULL AND r.until IS NULL
ORDER BY r.email_key, length(r.display_name) DESC, r.display_name
ON CONFLICT (workspace_id, key) DO UPDATE SET display_name = excluded.display_name WHERE persons.display_name <> excluded.display_name;

-- name: LeavePersons :exec
-- Whose an account was stays in the history.
WITH left_at AS (
    DELETE FROM discovery.person_accounts a
    WHERE a.workspace_id = a3.current_workspace() AND NOT EXISTS (
        SELECT FROM discovery.matches m
        WHERE m.workspace_id = a3.current_workspace() AND (m.account_id, m.person_id, m.rule) = (a.account_id, a.person_id, a.rule))
    RETURNING a.*
)
INSERT INTO discovery.former_person_accounts (workspace_id, account_id, person_id, display_name, key, rule, since, until)
SELECT l.workspace_id, l.account_id, l.person_id, p.display_name, p.key, l.rule, l.since, sqlc.arg(at)
FROM left_at l JOIN discovery.persons p ON p.workspace_id = l.workspace_id AND p.id = l.person_id
WHERE l.since < sqlc.arg(at);

-- name: JoinPersons :exec
INSERT INTO discovery.person_accounts (workspace_id, account_id, person_id, rule, since)
SELECT m.workspace_id, m.account_id, m.person_id, m.rule, sqlc.arg(at) FROM discovery.matches m WHERE m.workspace_id = a3.current_workspace()
ON CONFLICT DO NOTHING;

-- name: LeavePersonless :exec
DELETE FROM discovery.persons p WHERE p.workspace_id = a3.current_workspace()
  AND NOT EXISTS (SELECT FROM discovery.person_accounts a WHERE a.workspace_id = p.workspace_id AND a.person_id = p.id);
