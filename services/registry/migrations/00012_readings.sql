-- +goose Up
-- Two slugs are look-alikes where both foldings together make them one word, too: `doudl` and `cloudi`. So the second reading folds i as well; what is
-- one word in the reading that it takes the place of is one in this.
SET LOCAL lock_timeout = '5s';

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION registry.slug_reading(slug text, fold text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT CASE fold
        WHEN 'i' THEN replace(base, 'i', 'l')
        WHEN 'd' THEN replace(base, 'cl', 'd')
        WHEN 'di' THEN replace(replace(base, 'cl', 'd'), 'i', 'l')
    END FROM (SELECT replace(replace(translate(slug, '01-', 'ol'), 'rn', 'm'), 'vv', 'w') AS base) AS folded
$$;
-- +goose StatementEnd
-- accepted index-holds-writers: the table has a row for each slug that ever was, which is milliseconds, and the release before makes few.
CREATE INDEX slugs_reading_di ON registry.slugs (registry.slug_reading(slug, 'di'));
