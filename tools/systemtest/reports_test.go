package systemtest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"a3os.app/libs/release"
	"a3os.app/libs/workload"
	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"
	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
)

// Every service of a set says for itself which program it is, since when, and what it did; the registry keeps it by the minute.
func TestSetsReportWhatTheyAreAndWhatTheyDid(t *testing.T) {
	t.Parallel()
	program, err := os.ReadFile(filepath.Join(programs, "accessos"))
	if err != nil {
		t.Fatal(err)
	}
	want := release.Name{Version: release.Development, Digest: release.Digest(program)}.String()
	operator, began := shared.operator(t), time.Now()
	tenants, figures := registryv1.NewTenantServiceClient(operator), registryv1.NewFigureServiceClient(operator)
	admin := acme().admin(t)
	const calls = 20
	for range calls {
		ask(t, client(admin, "", discoveryv1connect.NewDeadLetterServiceClient).ListDeadLetters, &discoveryv1.ListDeadLettersRequest{})
	}
	within(t, time.Minute, func() error {
		got, err := tenants.GetTenant(t.Context(), &registryv1.GetTenantRequest{Tenant: acme().id})
		if err != nil {
			return err
		}
		said := map[string]*registryv1.ComponentReport{}
		for _, r := range got.GetStatus().GetReports() {
			said[r.GetName()] = r
		}
		for _, name := range []string{"audit", "iam", "integrations", "discovery", "discovery-worker"} {
			r := said[name]
			switch {
			case r.GetHealth() != registryv1.Health_HEALTH_SERVING:
				return fmt.Errorf("%s is reported as %v", name, r.GetHealth())
			case r.GetRelease() != want:
				t.Fatalf("%s says it is %s, the program is %s", name, r.GetRelease(), want)
			case !r.GetStartedAt().IsValid() || r.GetStartedAt().AsTime().After(time.Now()):
				return fmt.Errorf("%s started at %v", name, r.GetStartedAt())
			case r.GetFigures().GetResidentBytes() < 1<<20:
				return fmt.Errorf("%s has %d bytes resident", name, r.GetFigures().GetResidentBytes())
			}
			if left := time.Until(r.GetFigures().GetCertificateExpiresAt().AsTime()); left < time.Minute || left > workload.LeafLife {
				t.Fatalf("%s says that its certificate ends in %s", name, left)
			}
			// The set's own issuer alone issues anything.
			if authority := r.GetFigures().GetAuthorityExpiresAt(); (authority != nil) != (name == "iam") || authority != nil && time.Until(authority.AsTime()) < workload.IntermediateLife/3 {
				t.Fatalf("%s says that its authority ends at %v", name, authority.AsTime())
			}
		}
		if got.GetStatus().GetDatabaseBytes() < 1<<20 || got.GetStatus().GetDatabaseConnections() < 1 {
			return fmt.Errorf("the database has %d bytes and %d connections", got.GetStatus().GetDatabaseBytes(), got.GetStatus().GetDatabaseConnections())
		}
		// From long before: what was called since lies within, whichever minute the points are of.
		res, err := figures.BatchGetFigures(t.Context(), &registryv1.BatchGetFiguresRequest{TenantIds: []string{acme().id}, From: timestamppb.New(began.Add(-time.Hour))})
		if err != nil {
			return err
		}
		for _, c := range res.GetFigures()[0].GetComponents() {
			if c.GetName() == "discovery" && c.GetRequests() >= calls && c.GetP99Seconds() > 0 {
				return nil
			}
		}
		return fmt.Errorf("the calls are not told yet: %v", res.GetFigures())
	})
}
