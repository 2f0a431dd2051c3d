package plane

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/settings"
	"a3os.app/tools/fleet/internal/state"
)

// A set takes no licence whose serial it has: what is issued is beyond all that anybody knows of.
func TestLicenceIsIssuedBeyondAllThatTheSetHas(t *testing.T) {
	listed := func(serial int64) []*registryv1.IssuedLicence {
		return []*registryv1.IssuedLicence{{Licence: &registryv1.Licence{Serial: serial}}}
	}
	for name, c := range map[string]struct {
		known *registryv1.ListLicencesResponse
		want  int64
	}{
		"the first":                     {&registryv1.ListLicencesResponse{}, 1},
		"the set goes by the newest":    {&registryv1.ListLicencesResponse{Licences: listed(2), Report: &registryv1.LicenceReport{Serial: 2}}, 3},
		"it was not heard of since":     {&registryv1.ListLicencesResponse{Licences: listed(3), Report: &registryv1.LicenceReport{Serial: 2}}, 4},
		"the registry was restored":     {&registryv1.ListLicencesResponse{Licences: listed(1), Report: &registryv1.LicenceReport{Serial: 2}}, 3},
		"and the set has one for later": {&registryv1.ListLicencesResponse{Licences: listed(2), Report: &registryv1.LicenceReport{Serial: 2, NextSerial: 3}}, 4},
	} {
		t.Run(name, func(t *testing.T) {
			if got := serialBeyond(c.known); got != c.want {
				t.Errorf("it is %d, want %d", got, c.want)
			}
		})
	}
}

// A name that is mistyped takes away what was paid for, and a licence that holds for ever is none that somebody meant: who issues one is told what there is.
func TestLicenceOfWhatThereIsNotIsRefused(t *testing.T) {
	good := func() LicenceTerms { return development(time.Now()) }
	for what, c := range map[string]struct {
		change  func(*LicenceTerms)
		another bool
		says    []string
	}{
		"what a development plane gives": {func(*LicenceTerms) {}, false, nil},
		"what there is": {func(l *LicenceTerms) {
			l.Features, l.Connectors, l.Until = []string{"discovery", "people"}, []string{"csv", "postgres", "unix"}, l.From.AddDate(10, 0, 0)
		}, false, nil},
		"another product's":             {func(l *LicenceTerms) { l.Features, l.Connectors = []string{"flights"}, []string{"radar"} }, true, nil},
		"a feature that is none":        {func(l *LicenceTerms) { l.Features = []string{"discovery", "discovry"} }, false, []string{`"discovry"`, "discovery, integrations"}},
		"a connector that is none":      {func(l *LicenceTerms) { l.Connectors = []string{"postgre"} }, false, []string{`"postgre"`, "csv, postgres, unix", "*"}},
		"more than ten years":           {func(l *LicenceTerms) { l.Until = l.From.AddDate(10, 0, 1) }, false, []string{"10 years"}},
		"an end before it begins":       {func(l *LicenceTerms) { l.Until = l.From }, false, []string{"--until"}},
		"no seats":                      {func(l *LicenceTerms) { l.Seats = -1 }, false, []string{"--seats is -1", "1 to 1000000"}},
		"grace of more than a year":     {func(l *LicenceTerms) { l.GraceDays = 366 }, false, []string{"--grace-days is 366", "0 to 365"}},
		"a plan that is called by none": {func(l *LicenceTerms) { l.Plan = "Team 1" }, false, []string{`--plan is "Team 1"`, "lower-case"}},
	} {
		t.Run(what, func(t *testing.T) {
			terms := good()
			c.change(&terms)
			err := terms.check(c.another)
			if c.says == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if fault.KindOf(err) != fault.InvalidArgument || strings.Contains(err.Error(), "fetch it again") {
				t.Fatalf("it answers %v", err)
			}
			for _, says := range c.says {
				if !strings.Contains(err.Error(), says) {
					t.Errorf("%v does not say %s", err, says)
				}
			}
		})
	}
}

// takesLicences is a registry that has a licence on record.
type takesLicences struct {
	registryv1.UnimplementedLicenceWriteServiceServer
	tenant id.Tenant
}

func (r takesLicences) PutLicence(context.Context, *registryv1.PutLicenceRequest) (*registryv1.PutLicenceResponse, error) {
	return &registryv1.PutLicenceResponse{Licence: &registryv1.IssuedLicence{Licence: &registryv1.Licence{TenantId: r.tenant.String(), Serial: 2}}}, nil
}

// Where the disk is full once the registry has a licence on record, it is issued: who is told of the disk alone issues it again.
func TestLicenceThatCouldNotBeLaidDownIsSaidToBeIssued(t *testing.T) {
	p, err := New(settings.Settings{Home: t.TempDir()}, quiet{})
	if err == nil {
		err = p.openState()
	}
	tenant := id.NewTenant()
	if err == nil {
		_, err = p.state.Remember("acme", tenant, func(t *state.Tenant) { t.ID = tenant })
	}
	// Nothing can be made below a file.
	if err = errors.Join(err, os.WriteFile(filepath.Join(p.Settings.Home, "tenants"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	listener, server := bufconn.Listen(1<<16), grpc.NewServer()
	registryv1.RegisterLicenceWriteServiceServer(server, takesLicences{tenant: tenant})
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient("passthrough:///registry", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := p.putLicence(t.Context(), conn, []byte("signed"), "Order 4711"); err == nil || !strings.Contains(err.Error(), "licence 2 of acme is issued") {
		t.Errorf("it is told %v", err)
	}
}
