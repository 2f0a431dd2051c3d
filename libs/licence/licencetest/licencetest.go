// Package licencetest gives tests a licence key of the plane dev, and puts licences where a set keeps them. Lint keeps it out of
// everything but tests.
package licencetest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/id"
	"a3os.app/libs/licence"
)

// key is one for all tests of a process.
var key = sync.OnceValues(func() (private, public string) {
	private, public, err := licence.NewKey("dev")
	if err != nil {
		panic(err)
	}
	return private, public
})

// Keys are the public halves, as A3_LICENCE_KEYS has them.
func Keys() string {
	_, public := key()
	return public
}

// Verifier trusts Keys.
func Verifier(t testing.TB) *licence.Verifier {
	t.Helper()
	v, err := licence.NewVerifier("dev", Keys())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Whole is a licence with every feature, a year long, which a test may change before it signs it.
func Whole(tenant id.Tenant, serial int64) *registryv1.Licence {
	now := time.Now().Truncate(time.Second)
	return &registryv1.Licence{Id: id.NewLicence().String(), Plane: "dev", TenantId: tenant.String(), Serial: serial, Plan: "test",
		Features: licence.Features(), Connectors: []string{"*"}, Seats: 1000, ValidFrom: timestamppb.New(now.Add(-time.Hour)),
		ValidUntil: timestamppb.New(now.AddDate(1, 0, 0)), GraceDays: 14, IssuedAt: timestamppb.New(now.Add(-time.Hour)),
		UsageReports: registryv1.UsageReports_USAGE_REPORTS_ON}
}

// Sign makes the file of a licence.
func Sign(t testing.TB, l *registryv1.Licence) []byte {
	t.Helper()
	private, _ := key()
	s, err := licence.NewSigner("dev", private)
	if err != nil {
		t.Fatal(err)
	}
	file, err := s.Sign(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// Install puts a licence into a tenant's database, as `audit` does that took it. url is the superuser's.
func Install(t testing.TB, url string, l *registryv1.Licence) {
	t.Helper()
	InstallFile(t, url, l.GetSerial(), Sign(t, l))
}

// InstallFile puts a file there, whatever is in it.
func InstallFile(t testing.TB, url string, serial int64, file []byte) {
	t.Helper()
	Exec(t, url, "INSERT INTO audit.licences (serial, file, installed_at) VALUES ($1, $2, now())", serial, file)
}

// Seen has the set have seen a time.
func Seen(t testing.TB, url string, at time.Time) {
	t.Helper()
	Exec(t, url, "UPDATE audit.licence_watch SET seen_at = $1", at)
}

// Exec runs a statement as whoever url is.
func Exec(t testing.TB, url, sql string, args ...any) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}
