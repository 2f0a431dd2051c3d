// Package bindingtest marks the resources of tests as a provisioner marks a set's, with a key that lives as long as the test process.
// Lint keeps it out of everything but tests.
package bindingtest

import (
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"a3os.app/libs/binding"
	"a3os.app/libs/config"
	"a3os.app/libs/id"
)

// Plane of every mark that this package makes.
const Plane = "dev"

type key struct {
	private config.Secret
	public  string
}

// processKey is made when a test first marks something: marks of one test must be good in another of the same process.
var processKey = sync.OnceValues(func() (key, error) {
	private, public, err := binding.NewKey(Plane)
	return key{private, public}, err
})

func get(t testing.TB) key {
	t.Helper()
	k, err := processKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Keys are what services verify the marks with, as A3_MARK_KEYS.
func Keys(t testing.TB) string {
	t.Helper()
	return get(t).public
}

// Signer signs marks.
func Signer(t testing.TB) *binding.Signer {
	t.Helper()
	s, err := binding.NewSigner(Plane, get(t).private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Owner is a tenant, to open its resources with.
func Owner(t testing.TB, tenant id.Tenant) *binding.Owner {
	t.Helper()
	o, err := binding.NewOwner(Keys(t), Plane, tenant)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// Mark puts the mark of a tenant (zero: of the plane) on the database of a superuser's URL, and on the queue in a schema of it where
// one is named.
func Mark(t testing.TB, url string, tenant id.Tenant, queue string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	name := conn.Config().Database
	put := func(on string, m binding.Mark) {
		text, err := Signer(t).Sign(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), "COMMENT ON "+on+" IS '"+text+"'"); err != nil {
			t.Fatal(err)
		}
	}
	put("DATABASE "+pgx.Identifier{name}.Sanitize(), binding.Mark{Tenant: tenant, Kind: binding.Database, Name: name})
	if queue != "" {
		put("SCHEMA "+pgx.Identifier{queue}.Sanitize(), binding.Mark{Tenant: tenant, Kind: binding.Queue, Name: name + "/" + queue})
	}
}

// Somebody is a tenant whose databases are used where the test doesn't care whose they are; Mark them as its Tenant's.
func Somebody(t testing.TB) *binding.Owner {
	t.Helper()
	return Owner(t, somebody())
}

var somebody = sync.OnceValue(id.NewTenant)

// Database marks a database as Somebody's, and answers them.
func Database(t testing.TB, url string) *binding.Owner {
	t.Helper()
	Mark(t, url, somebody(), "")
	return Somebody(t)
}
