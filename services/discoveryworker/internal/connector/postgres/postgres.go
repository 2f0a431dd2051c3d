// Package postgres is the connector that reads who may do what in a PostgreSQL server: roles and their memberships, databases,
// schemas, relations, columns, functions and what hangs on them, from the catalogues alone. It promises that whoever holds an
// entitlement at once by the graph it emits is whom has_*_privilege and pg_has_role answer true for, no more and no fewer, and
// that the ways it marks as taking an act are ways the server allows. It needs CONNECT and no other privilege.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"a3os.app/libs/failpoint"
	"a3os.app/services/discoveryworker/internal/connector"
)

const (
	// pageSize is how many objects are read at once: few enough that a slice ends soon after it is due.
	pageSize = 500
	// patience is how long one query, or the wait for one lock, may take.
	patience = 30 * time.Second
)

type postgres struct {
	page int
}

// New makes the connector.
func New() connector.Connector { return &postgres{page: pageSize} }

// Read goes on from checkpoint: first what belongs to the whole server, in scope `roles`, then each database in order of name, in
// scope `database/<name>`. What is read within one slice of one database is read from one snapshot.
func (p *postgres) Read(ctx context.Context, source connector.Source, checkpoint []byte, sink connector.Sink) ([]byte, error) {
	at, err := parsePosition(checkpoint)
	if err != nil {
		return nil, err
	}
	server, err := newServer(source)
	if err != nil {
		return nil, err
	}
	if at.Database == "" {
		at, err = p.readShared(ctx, server, at, sink)
		if err != nil || at.Database == "" || sink.Due() {
			return at.checkpoint(), err
		}
	}
	names, err := server.databases(ctx, at.Database)
	if err != nil {
		return nil, err
	}
	for i, database := range names {
		if database.name != at.Database {
			at = position{Database: database.name}
		}
		done, next, err := p.readDatabase(ctx, server, database, at, sink)
		if err != nil {
			return nil, err
		}
		if !done {
			return next.checkpoint(), nil
		}
		if i+1 < len(names) && sink.Due() {
			return position{Database: names[i+1].name}.checkpoint(), nil
		}
	}
	return nil, nil
}

// readShared reads what belongs to the whole server. It answers where the slice goes on: at the first database, or before that
// when it is due.
func (p *postgres) readShared(ctx context.Context, server *server, at position, sink connector.Sink) (position, error) {
	home := server.settings.GetDatabase()
	s, err := server.open(ctx, home, rolesScope, sink)
	if err != nil {
		return position{}, server.explain(home, err)
	}
	defer s.close(ctx)
	done, next, err := p.readSections(ctx, s, sharedSections(s.version), at, sink)
	if err != nil || !done {
		return next, err
	}
	names, err := s.databases(ctx, "")
	if err != nil {
		return position{}, s.explain("the names of databases", err)
	}
	return position{Database: names[0].name}, nil
}

// readDatabase reads one database, or names why it can't.
func (p *postgres) readDatabase(ctx context.Context, server *server, d database, at position, sink connector.Sink) (bool, position, error) {
	scope := databaseScope(d.name)
	if reason := d.closed(server.settings.GetUser()); reason != "" {
		sink.Gap(scope, reason)
		return true, position{}, nil
	}
	if !d.open {
		return true, position{}, nil
	}
	s, err := server.open(ctx, d.name, scope, sink)
	if gone(err) {
		return true, position{}, nil
	}
	if reason, refused := refusal(err); refused {
		sink.Gap(scope, fmt.Sprintf("database %q can't be connected to: %s", d.name, reason))
		return true, position{}, nil
	}
	if err != nil {
		return false, position{}, server.explain(d.name, err)
	}
	defer s.close(ctx)
	return p.readSections(ctx, s, databaseSections(), at, sink)
}

// readSections reads one section after the other, page by page. It declares the scope complete at the end.
func (p *postgres) readSections(ctx context.Context, s *session, sections []section, at position, sink connector.Sink) (bool, position, error) {
	from, err := at.in(sections)
	if err != nil {
		return false, position{}, err
	}
	for i := from; i < len(sections); i++ {
		section := sections[i]
		for {
			sink.Progress(fmt.Sprintf("%s: %s", s.scope, section.words))
			if err := failpoint.Here("worker.postgres.page"); err != nil {
				return false, position{}, err
			}
			last, count, err := section.read(ctx, s, at.After, p.page)
			if reason, refused := refusal(err); refused {
				// The role may not read a catalogue that everybody may by default: the rest can still be read.
				sink.Gap(s.scope, fmt.Sprintf("%s can't be read: %s", section.words, reason))
				at.Gap, count = true, 0
				err = s.restart(ctx)
			}
			if err == nil {
				err = s.flush(ctx)
			}
			if err != nil {
				return false, position{}, s.explain(section.words, err)
			}
			if count < p.page {
				break
			}
			at = position{Database: at.Database, Section: section.name, After: last, Gap: at.Gap}
			if sink.Due() {
				return false, at, nil
			}
		}
		if i+1 < len(sections) {
			at = position{Database: at.Database, Section: sections[i+1].name, Gap: at.Gap}
			if sink.Due() {
				return false, at, nil
			}
		}
	}
	if !at.Gap {
		sink.Complete(s.scope)
	}
	return true, position{}, nil
}

// Test logs in and looks which databases can be read.
func (p *postgres) Test(ctx context.Context, source connector.Source) (connector.TestResult, error) {
	server, err := newServer(source)
	if err != nil {
		return refusedResult(err)
	}
	home := server.settings.GetDatabase()
	s, err := server.open(ctx, home, rolesScope, nil)
	if err != nil {
		return refusedResult(server.explain(home, err))
	}
	defer s.close(ctx)
	names, err := s.databases(ctx, "")
	if err != nil {
		return refusedResult(server.explain(home, err))
	}
	result := connector.TestResult{OK: true}
	readable := 0
	for _, d := range names {
		switch reason := d.closed(server.settings.GetUser()); {
		case reason != "":
			result.Missing = append(result.Missing, reason)
		case d.open:
			readable++
		}
	}
	result.Message = fmt.Sprintf("PostgreSQL %s answers at %s; databases that can be read: %d.", s.versionName, server, readable)
	return result, nil
}

// refusedResult says in the result what the system said; what the system had no part in is an error.
func refusedResult(err error) (connector.TestResult, error) {
	if errors.Is(err, context.Canceled) || errors.Is(err, errSecret) {
		return connector.TestResult{}, err
	}
	return connector.TestResult{Message: sentence(err)}, nil
}
