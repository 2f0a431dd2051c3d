// Package audittest gives the tests of this service a database as a set has it: migrated by its owner, with a login role for each
// service. Lint keeps it out of everything but tests.
package audittest

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	"a3os.app/libs/binding/bindingtest"
	"a3os.app/libs/id"
	"a3os.app/libs/pg"
	"a3os.app/libs/pgtest"
	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"

	"a3os.app/services/audit"
)

// Roles are the words of all roles of a set, as they stand in migrations.
func Roles() []string {
	return []string{"role_iam", "role_iam_tenant", "role_integrations", "role_integrations_tenant", "role_discovery",
		"role_discovery_tenant", "role_worker", "role_audit"}
}

// Database is one tenant's database.
type Database struct {
	*pgtest.Database
	// Owner is the URL of the role that owns the database and its schemas; it is no superuser.
	Owner string
	// URL is the URL of each role, by its word.
	URL map[string]string
}

// New makes a database with the schemas a3 and audit.
func New(t testing.TB) *Database {
	t.Helper()
	d := &Database{Database: pgtest.New(t), URL: make(map[string]string)}
	d.Owner = d.Role(t, "owner")
	d.Exec(t, fmt.Sprintf("ALTER DATABASE %s OWNER TO %s", quote(d.Name), quote(d.RoleName(d.Owner))))
	names := make(pg.Roles)
	for _, word := range Roles() {
		d.URL[word] = d.Role(t, word)
		names[word] = d.RoleName(d.URL[word])
	}
	if err := pg.Migrate(t.Context(), d.Owner, names, pg.Base(), audit.Schema()); err != nil {
		t.Fatalf("migrate: %v", err)
	}
	bindingtest.Database(t, d.Database.URL)
	return d
}

// As is a connection of the role with this word, or of the owner for `owner`.
func (d *Database) As(t testing.TB, word string) *pgx.Conn {
	t.Helper()
	url := d.URL[word]
	if word == "owner" {
		url = d.Owner
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatalf("connect as %s: %v", word, err)
	}
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	return conn
}

// Unlock lets the owner change the log, as only somebody who means to can: triggers and row security off.
func (d *Database) Unlock(t testing.TB) {
	t.Helper()
	conn := d.As(t, "owner")
	for _, table := range []string{"entries", "tiles", "checkpoints"} {
		if _, err := conn.Exec(t.Context(), "ALTER TABLE audit."+table+" DISABLE TRIGGER USER, NO FORCE ROW LEVEL SECURITY"); err != nil {
			t.Fatalf("unlock audit.%s: %v", table, err)
		}
	}
}

// Event makes an event with an id of its own.
func Event(action, target string) *auditv1.Event {
	return &auditv1.Event{
		Id: id.NewEvent().String(), Action: action, Actor: "usr_01h455vb4pex5vsknk084sn02q", Target: target,
		Outcome: auditv1.Outcome_OUTCOME_SUCCEEDED, RequestId: "req_01h455vb4pex5vsknk084sn02q",
	}
}

// Encode is the event's id and body as a producer inserts them.
func Encode(t testing.TB, e *auditv1.Event) (id.Event, []byte) {
	t.Helper()
	eid, err := id.ParseEvent(e.GetId())
	if err != nil {
		t.Fatal(err)
	}
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return eid, body
}

// Put records events through a connection.
func Put(t testing.TB, conn *pgx.Conn, events ...*auditv1.Event) {
	t.Helper()
	batch := new(pgx.Batch)
	for _, e := range events {
		eid, body := Encode(t, e)
		batch.Queue("INSERT INTO audit.inbox (id, body) VALUES ($1, $2)", eid, body)
	}
	if err := conn.SendBatch(t.Context(), batch).Close(); err != nil {
		t.Fatalf("record: %v", err)
	}
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }
