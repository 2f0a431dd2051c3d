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

// Names are written out whole, whatever a migration's search path is, which goes on being its own.
var catalogueFunction = `CREATE FUNCTION a3_check.catalogue() RETURNS TABLE (class text, id text, whole text, name text, facts jsonb)
	LANGUAGE sql SET search_path = '' AS $catalogue$` + catalogueSQL + `$catalogue$`

// key is what a thing of a database is known by, whatever it is called.
type key struct{ class, id string }

// thing is one thing of a database.
type thing struct {
	// whole is what it is a part of; zero for what stands for itself.
	whole key
	name  string
	facts map[string]any
}

func (t thing) text(fact string) string { s, _ := t.facts[fact].(string); return s }
func (t thing) is(fact string) bool     { b, _ := t.facts[fact].(bool); return b }

// like says whether two things have the same facts of those names.
func (t thing) like(other thing, facts ...string) bool {
	return !slices.ContainsFunc(facts, func(fact string) bool { return fmt.Sprint(t.facts[fact]) != fmt.Sprint(other.facts[fact]) })
}

// catalogue is all that there is.
type catalogue map[key]thing

func read(ctx context.Context, q querier) (catalogue, error) {
	rows, err := q.Query(ctx, "SELECT class, id, whole, name, facts FROM a3_check.catalogue()")
	if err != nil {
		return nil, fmt.Errorf("read the catalogue: %w", err)
	}
	out := catalogue{}
	var k key
	var t thing
	var whole string
	_, err = pgx.ForEachRow(rows, []any{&k.class, &k.id, &whole, &t.name, &t.facts}, func() error {
		t.whole.class, t.whole.id, _ = strings.Cut(whole, "|")
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
func (c *checker) examine(ctx context.Context, m Migration) ([]Finding, error) {
	first, err := read(ctx, c.conn)
	if err != nil {
		return nil, err
	}
	e := &examination{checker: c, migration: m, reasons: map[string]string{}, first: first, before: first, held: map[uint32]bool{}, written: map[uint32]bool{}}
	for _, found := range accepted.FindAllStringSubmatch(m.SQL, -1) {
		e.reasons[found[1]] = strings.TrimSpace(found[2])
	}
	if e.versions, err = versions(ctx, c.conn); err != nil {
		return nil, err
	}
	if err := c.run(ctx, m, e); err != nil {
		return nil, err
	}
	// Of several steps, each may be nothing that the whole of them isn't: a column with a default, and then without.
	compare(c.base, first, e.before, true, e.add)
	slices.SortStableFunc(e.findings, func(a, b Finding) int { return strings.Compare(a.Rule+a.What, b.Rule+b.What) })
	return e.findings, nil
}

// examination is a migration that is being run, and what was found of it.
type examination struct {
	checker   *checker
	migration Migration
	reasons   map[string]string
	// first is what was before the migration, and before what was before its present transaction.
	first, before catalogue
	// versions of tables after the statement before.
	versions map[uint32]string
	// held are the tables whose writers wait for the present transaction, and written those whose rows it changed.
	held, written map[uint32]bool
	findings      []Finding
}

func (e *examination) add(rule, format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	for word, real := range e.checker.roles {
		what = strings.ReplaceAll(what, real, word)
	}
	f := Finding{Migration: e.migration.Name, Rule: rule, What: what, Accepted: e.reasons[rule]}
	if !slices.Contains(e.findings, f) {
		e.findings = append(e.findings, f)
	}
}

func (e *examination) hidden() {
	e.add("writes-rows", "it commits while it goes on, so that nobody sees from without which rows it changes, and each takes its time")
}

// did looks at what a statement locked, and how long it was ready to wait for that.
func (e *examination) did(ctx context.Context, q querier) error {
	var timeout int64
	var writing, holding []uint32
	if err := q.QueryRow(ctx, "SELECT lock_timeout, writing, holding FROM a3_check.seen()").Scan(&timeout, &writing, &holding); err != nil {
		return fmt.Errorf("read the locks: %w", err)
	}
	const most = 5000
	switch {
	case timeout == 0:
		e.add("no-lock-timeout", "it lifts lock_timeout, so that it may wait for ever with everybody behind it")
	case timeout > most:
		e.add("no-lock-timeout", "it raises lock_timeout to %d ms, so that it may wait for so long with everybody behind it", timeout)
	}
	before := e.versions
	var err error
	if e.versions, err = versions(ctx, q); err != nil {
		return err
	}
	for _, oid := range writing {
		e.written[oid] = true
	}
	for _, oid := range holding {
		if known, ok := e.table(oid); ok && !e.held[oid] && before[oid] == e.versions[oid] {
			e.add("locks-table", "it has writers of table %s wait, and changes nothing of it", known.name)
		}
		e.held[oid] = true
	}
	return nil
}

// done compares what is with what was, before that is committed.
func (e *examination) done(ctx context.Context, q querier, stepwise bool) error {
	after, err := read(ctx, q)
	if err != nil {
		return err
	}
	var tables, sequences []string
	for oid := range e.written {
		if known, ok := e.table(oid); ok {
			tables = append(tables, known.name)
		} else if known, ok := e.checker.base[key{"sequence", fmt.Sprint(oid)}]; ok && !e.held[oid] { // who alters one, as is seen of it, holds it
			sequences = append(sequences, known.name)
		}
	}
	for _, name := range tables {
		e.add("writes-rows", "it changes rows of %s, which takes as long as the table is large", name)
	}
	if len(tables) == 0 { // whose rows would have numbers of the sequence
		for _, name := range sequences {
			e.add("change-sequence", "it moves sequence %s", name)
		}
	}
	compare(e.checker.base, e.before, after, stepwise, e.add)
	e.before = after
	clear(e.held)
	clear(e.written)
	return nil
}

// table is a table of the base.
func (e *examination) table(oid uint32) (thing, bool) {
	t, ok := e.checker.base[key{"relation", fmt.Sprint(oid)}]
	return t, ok && (t.text("kind") == "r" || t.text("kind") == "p")
}

func versions(ctx context.Context, q querier) (map[uint32]string, error) {
	rows, err := q.Query(ctx, "SELECT relation, version FROM a3_check.versions()")
	if err != nil {
		return nil, fmt.Errorf("read the versions of tables: %w", err)
	}
	out := map[uint32]string{}
	var relation uint32
	var version string
	_, err = pgx.ForEachRow(rows, []any{&relation, &version}, func() error {
		out[relation] = version
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the versions of tables: %w", err)
	}
	return out, nil
}
