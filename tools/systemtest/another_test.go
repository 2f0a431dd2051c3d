package systemtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
)

// spare is a tenant of the shared plane of which keys may be dropped and processes stopped. One test has it at a time.
var spare struct {
	sync.Mutex
	tenant *tenant
}

// borrow is the spare tenant, until the test ends.
func borrow(t *testing.T) *tenant {
	t.Helper()
	spare.Lock()
	t.Cleanup(spare.Unlock)
	if spare.tenant == nil {
		spare.tenant = another(t, "spare")
	}
	return spare.tenant
}

// another makes a tenant whose first admin is signed in, with the profile SLUG-admin.
func another(t *testing.T, slug string) *tenant {
	t.Helper()
	x, login := create(t, slug)
	if s := shell(t, login); s.code != 0 {
		t.Fatalf("%s: %s", login, s)
	}
	return x
}

var loginLine = regexp.MustCompile(`(?m)^  bin/a3( .*)$`)

// create makes a tenant by hand, and answers the line that its first admin signs in with.
func create(t *testing.T, slug string) (x *tenant, login string) {
	t.Helper()
	s, err := shared.command(t.Context(), "fleet", "tenant", "create", slug)
	if err != nil || s.code != 0 {
		t.Fatalf("tenant create: %v %s", err, s)
	}
	x = &tenant{plane: shared, slug: slug, addresses: map[string]string{}}
	var shown struct {
		Tenant     struct{ ID string }
		ServiceSet struct {
			Components []struct{ Name, Address string }
		}
	}
	if err := shared.json(t.Context(), &shown, "tenant", "show", slug); err != nil {
		t.Fatal(err)
	}
	x.id = shown.Tenant.ID
	for _, c := range shown.ServiceSet.Components {
		x.addresses[c.Name] = c.Address
	}
	x.url = strings.Replace(acme().url, "//"+acme().slug+".", "//"+slug+".", 1)
	return x, printedLogin(t, s)
}

// printedLogin is the line that fleet prints for whom it let in, as a shell takes it here.
func printedLogin(t *testing.T, s said) string {
	t.Helper()
	found := loginLine.FindStringSubmatch(s.err)
	if found == nil {
		t.Fatalf("no line to sign in with is printed: %s", s)
	}
	return filepath.Join(programs, "a3") + found[1]
}

// database is a connection to the tenant's database in a role of one of its services.
func (x *tenant) database(t *testing.T, role string) *pgx.Conn {
	t.Helper()
	url, err := os.ReadFile(filepath.Join(x.plane.home, "tenants", x.id, "database", role+".url"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), strings.TrimSpace(string(url)))
	if err != nil {
		t.Fatalf("log in as %s of %s: %v", role, x.slug, err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

// recorded waits until the tenant's record has an action with all of these words in its events, and answers them.
func (p *plane) recorded(t *testing.T, profile, action string, words ...string) string {
	t.Helper()
	var events string
	within(t, backWithin, func() error {
		events = p.a3(t, profile, "-o", "json", "audit", "list", "--action", action)
		for _, w := range words {
			if !strings.Contains(events, w) {
				return fmt.Errorf("of %s the record doesn't say %q: %s", action, w, events)
			}
		}
		return nil
	})
	return events
}

// count reads a number from a database.
func count(t *testing.T, conn *pgx.Conn, sql string, args ...any) int {
	t.Helper()
	var n int
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
		t.Fatal(fmt.Errorf("%s: %w", sql, err))
	}
	return n
}
