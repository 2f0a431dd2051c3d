package additive

import (
	"context"
	_ "embed"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

//go:embed catalogue.sql
var catalogueSQL string

// key is what a thing of a database is known by, whatever it is called.
type key struct{ class, id string }

// thing is one thing of a database.
type thing struct {
	// relation that it belongs to; 0 for none.
	relation uint32
	name     string
	facts    map[string]any
}

func (t thing) text(fact string) string { s, _ := t.facts[fact].(string); return s }
func (t thing) is(fact string) bool     { b, _ := t.facts[fact].(bool); return b }

func (c *checker) catalogue(ctx context.Context) (map[key]thing, error) { return read(ctx, c.conn) }

func read(ctx context.Context, q querier) (map[key]thing, error) {
	// Names are written out whole, whatever the migration's search path was: nothing of it comes after.
	if err := q.QueryRow(ctx, "SELECT set_config('search_path', '', false)").Scan(new(string)); err != nil {
		return nil, fmt.Errorf("read the catalogue: %w", err)
	}
	rows, err := q.Query(ctx, catalogueSQL)
	if err != nil {
		return nil, fmt.Errorf("read the catalogue: %w", err)
	}
	out := map[key]thing{}
	var k key
	var t thing
	_, err = pgx.ForEachRow(rows, []any{&k.class, &k.id, &t.relation, &t.name, &t.facts}, func() error {
		out[k] = t
		t.facts = nil
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the catalogue: %w", err)
	}
	return out, nil
}

// examine runs a migration, and names what it takes from whoever knows the base.
func (c *checker) examine(ctx context.Context, m Migration) (findings []Finding, err error) {
	before, err := c.catalogue(ctx)
	if err != nil {
		return nil, err
	}
	reasons := map[string]string{}
	for _, found := range accepted.FindAllStringSubmatch(m.SQL, -1) {
		reasons[found[1]] = strings.TrimSpace(found[2])
	}
	add := func(rule, format string, args ...any) {
		what := fmt.Sprintf(format, args...)
		for word, real := range c.roles {
			what = strings.ReplaceAll(what, real, word)
		}
		findings = append(findings, Finding{Migration: m.Name, Rule: rule, What: what, Accepted: reasons[rule]})
	}
	err = c.run(ctx, m, func(ctx context.Context, q querier, statement string) error {
		var timeout string
		if err := q.QueryRow(ctx, "SELECT setting FROM pg_settings WHERE name = 'lock_timeout'").Scan(&timeout); err != nil {
			return fmt.Errorf("read the lock timeout: %w", err)
		}
		if timeout == "0" {
			add("no-lock-timeout", "it lifts lock_timeout, so that it may wait for ever with everybody behind it")
		}
		written, err := c.written(ctx, q)
		if err != nil {
			return err
		}
		after, err := read(ctx, q)
		if err != nil {
			return err
		}
		for _, name := range written {
			add("writes-rows", "it changes rows of %s, which takes as long as the table is large", name)
		}
		c.compare(before, after, strings.Contains(strings.ToUpper(statement), "CONCURRENTLY"), add)
		before = after
		return nil
	})
	slices.SortStableFunc(findings, func(a, b Finding) int { return strings.Compare(a.Rule+a.What, b.Rule+b.What) })
	return findings, err
}

// written are the tables of the base whose rows were changed: only INSERT, UPDATE, DELETE and MERGE take that lock.
func (c *checker) written(ctx context.Context, q querier) ([]string, error) {
	rows, err := q.Query(ctx, `SELECT l.relation FROM pg_locks l JOIN pg_class r ON r.oid = l.relation
		WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.mode = 'RowExclusiveLock' AND r.relkind IN ('r', 'p')
		  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())`)
	if err != nil {
		return nil, fmt.Errorf("read the locks: %w", err)
	}
	oids, err := pgx.CollectRows(rows, pgx.RowTo[uint32])
	if err != nil {
		return nil, fmt.Errorf("read the locks: %w", err)
	}
	var names []string
	for _, oid := range oids {
		if t, ok := c.base[key{"relation", fmt.Sprint(oid)}]; ok {
			names = append(names, t.name)
		}
	}
	slices.Sort(names)
	return names, nil
}

var relationWords = map[string]string{"r": "table", "p": "table", "v": "view", "m": "materialized view", "S": "sequence"}

// compare names what changed for whoever knows the base. What was made since the base is nobody's yet.
func (c *checker) compare(before, after map[key]thing, concurrently bool, add func(rule, format string, args ...any)) {
	relation := func(t thing) key { return key{"relation", fmt.Sprint(t.relation)} }
	// A part goes with the whole that it is of.
	whole := func(t thing) bool {
		_, there := after[relation(t)]
		_, isFunction := after[key{"function", fmt.Sprint(t.relation)}]
		return there || isFunction || t.relation == 0
	}
	for k, was := range before {
		if _, known := c.base[k]; !known {
			continue
		}
		now, there := after[k]
		switch {
		case there:
			changed(k, was, now, add)
		case k.class == "relation" || whole(was):
			gone(k, was, add)
		}
	}
	for k, now := range after {
		if _, was := before[k]; was {
			continue
		}
		if _, known := c.base[relation(now)]; known {
			arrived(k, now, concurrently, add)
		}
	}
}

// gone names what is not there any more. An index or a constraint less narrows nothing.
func gone(k key, was thing, add func(rule, format string, args ...any)) {
	switch k.class {
	case "relation":
		add("drop-table", "it drops %s %s", relationWords[was.text("kind")], was.name)
	case "column":
		add("drop-column", "it drops column %s", was.name)
	case "function":
		add("drop-function", "it drops function %s, or gives it other arguments", was.name)
	case "policy":
		if was.is("permissive") {
			add("drop-policy", "it drops policy %s, by which rows are seen", was.name)
		}
	case "grant":
		add("revoke", "it takes %s away", was.name)
	case "trigger":
		add("drop-trigger", "it drops trigger %s", was.name)
	}
}

// changed names what is there and is not what it was.
func changed(k key, was, now thing, add func(rule, format string, args ...any)) {
	if was.text("own") != now.text("own") {
		add("rename", "it renames %s %s to %s", k.class, was.name, now.name)
	}
	switch k.class {
	case "relation":
		if was.facts["file"] != now.facts["file"] && was.text("kind") != "S" {
			add("rewrites-table", "it writes table %s anew, or empties it, and nobody reads it meanwhile", now.name)
		}
		if now.is("secured") && !was.is("secured") || now.is("forced") && !was.is("forced") {
			add("row-security", "it switches row-level security on for table %s", now.name)
		}
	case "column":
		if was.text("type") != now.text("type") {
			add("change-type", "it changes column %s from %s to %s", now.name, was.text("type"), now.text("type"))
		}
		if now.is("required") && !was.is("required") {
			add("set-not-null", "it demands a value of column %s, and reads the whole table to see that each has one", now.name)
		}
		if was.facts["default"] != nil && now.facts["default"] == nil {
			add("drop-default", "it takes the default of column %s away", now.name)
		}
	case "policy":
		if fmt.Sprint(was.facts) != fmt.Sprint(now.facts) {
			add("change-policy", "it changes policy %s", now.name)
		}
	case "constraint":
		if was.text("is") != now.text("is") {
			add("change-constraint", "it changes constraint %s to %s", now.name, now.text("is"))
		}
	case "function":
		if was.text("result") != now.text("result") {
			add("change-type", "it changes what function %s returns", now.name)
		}
	}
}

// arrived names what a table that was there got, and that not everything fits into any more, or that holds its writers up.
func arrived(k key, now thing, concurrently bool, add func(rule, format string, args ...any)) {
	switch k.class {
	case "column":
		if now.is("required") && now.facts["default"] == nil && !now.is("made") {
			add("required-column", "it adds column %s, which demands a value that the release before doesn't give", now.name)
		}
	case "constraint":
		add("new-constraint", "it adds constraint %s: %s", now.name, now.text("is"))
	case "index":
		if now.is("constrains") {
			return // its constraint was named
		}
		if now.is("unique") {
			add("new-constraint", "it adds unique index %s", now.name)
		}
		if !concurrently {
			add("index-holds-writers", "it makes index %s, and writers wait until it is done: CREATE INDEX CONCURRENTLY, after -- +goose NO TRANSACTION", now.name)
		}
	case "policy":
		if !now.is("permissive") {
			add("change-policy", "it adds policy %s, which hides rows", now.name)
		}
	case "trigger":
		add("new-trigger", "it adds trigger %s", now.name)
	}
}
