package welcome

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"a3os.app/deploy/sample"
	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	"a3os.app/proto/gen/go/a3os/integrations/v1/integrationsv1connect"
)

// Names of the integrations.
const (
	machineName  = "this-machine"
	postgresName = "northwind-postgres"
	uploadName   = "people-and-apps"
)

// discoverWithin is how long one run may take.
const discoverWithin = 5 * time.Minute

// System is a discovered system.
type System struct {
	// Name of its integration, and Connector.
	Name, Connector string
	// State of its newest run, in a word.
	State string
	// What it published.
	Counts *discoveryv1.Counts
	// Gaps is how many things it could not read.
	Gaps int
}

// wanted is an integration that should be there.
type wanted struct {
	name     string
	settings *integrationsv1.Settings
	secret   func(ctx context.Context) (string, error)
	content  []byte
}

func (t Tenant) wanted() []wanted {
	var out []wanted
	if t.Machine {
		out = append(out, wanted{name: machineName, settings: &integrationsv1.Settings{
			Connector: &integrationsv1.Settings_Unix{Unix: &integrationsv1.UnixSettings{}}}})
	}
	if t.Postgres != nil {
		out = append(out, wanted{name: postgresName, secret: t.Postgres.Password, settings: &integrationsv1.Settings{
			Connector: &integrationsv1.Settings_Postgres{Postgres: &integrationsv1.PostgresSettings{
				Host: t.Postgres.Host, Port: uint32(t.Postgres.Port), User: t.Postgres.User, Database: t.Postgres.Database, //nolint:gosec // a port
				// The server is a neighbour on loopback.
				SslMode: "disable",
			}}}})
	}
	if t.Upload {
		out = append(out, wanted{name: uploadName, content: sample.CSV(), settings: &integrationsv1.Settings{
			Connector: &integrationsv1.Settings_Csv{Csv: &integrationsv1.CsvSettings{SystemName: "Globex apps", Columns: uploadColumns()}}}})
	}
	return out
}

func uploadColumns() []*integrationsv1.CsvColumn {
	var out []*integrationsv1.CsvColumn
	for _, c := range []struct {
		header string
		field  integrationsv1.CsvField
	}{
		{"login", integrationsv1.CsvField_CSV_FIELD_ACCOUNT_ID}, {"name", integrationsv1.CsvField_CSV_FIELD_DISPLAY_NAME},
		{"email", integrationsv1.CsvField_CSV_FIELD_EMAIL}, {"app", integrationsv1.CsvField_CSV_FIELD_RESOURCE},
		{"role", integrationsv1.CsvField_CSV_FIELD_ENTITLEMENT}, {"team", integrationsv1.CsvField_CSV_FIELD_GROUP},
		{"status", integrationsv1.CsvField_CSV_FIELD_STATUS},
	} {
		out = append(out, &integrationsv1.CsvColumn{Header: c.header, Field: c.field})
	}
	return out
}

// systems connects and discovers what should be there.
func (g Guide) systems(ctx context.Context, h house, t Tenant) error {
	for _, w := range t.wanted() {
		var integration *integrationsv1.Integration
		err := g.Step(t.Slug+": connected "+w.name, func() (changed bool, err error) {
			integration, changed, err = h.integration(ctx, w)
			return changed, err
		})
		if err != nil {
			return err
		}
		if err := g.Step(t.Slug+": discovered "+w.name, func() (bool, error) { return h.discover(ctx, integration) }); err != nil {
			return err
		}
	}
	return nil
}

// integration makes an integration, or brings one up to date whose system has moved.
func (h house) integration(ctx context.Context, w wanted) (*integrationsv1.Integration, bool, error) {
	all, err := inWorkspace(h, integrationsv1connect.NewIntegrationServiceClient).ListIntegrations(ctx,
		connect.NewRequest(&integrationsv1.ListIntegrationsRequest{PageSize: 500}))
	if err != nil {
		return nil, false, err
	}
	for _, i := range all.Msg.GetIntegrations() {
		if i.GetName() == w.name {
			return h.upToDate(ctx, w, i)
		}
	}
	secret, err := w.readSecret(ctx)
	if err != nil {
		return nil, false, err
	}
	made, err := inWorkspace(h, integrationsv1connect.NewIntegrationWriteServiceClient).CreateIntegration(ctx,
		connect.NewRequest(&integrationsv1.CreateIntegrationRequest{Name: w.name, Settings: w.settings, Secret: secret}))
	if err != nil {
		return nil, false, err
	}
	i, _, err := h.upToDate(ctx, w, made.Msg)
	return i, true, err
}

func (w wanted) readSecret(ctx context.Context) (string, error) {
	if w.secret == nil {
		return "", nil
	}
	return w.secret(ctx)
}

func (h house) upToDate(ctx context.Context, w wanted, i *integrationsv1.Integration) (*integrationsv1.Integration, bool, error) {
	writer := inWorkspace(h, integrationsv1connect.NewIntegrationWriteServiceClient)
	if len(w.content) > 0 && i.GetContentSize() == 0 {
		res, err := writer.UploadContent(ctx, connect.NewRequest(&integrationsv1.UploadContentRequest{IntegrationId: i.GetId(), Content: w.content}))
		if err != nil {
			return nil, false, err
		}
		return res.Msg, true, nil
	}
	if p := w.settings.GetPostgres(); p != nil && !proto.Equal(p, i.GetSettings().GetPostgres()) {
		secret, err := w.readSecret(ctx)
		if err != nil {
			return nil, false, err
		}
		res, err := writer.UpdateIntegration(ctx, connect.NewRequest(&integrationsv1.UpdateIntegrationRequest{
			IntegrationId: i.GetId(), Version: i.GetVersion(), Settings: w.settings, Secret: &secret}))
		if err != nil {
			return nil, false, err
		}
		return res.Msg, true, nil
	}
	return i, false, nil
}

// published says that a run left something to ask.
func published(r *discoveryv1.Run) bool {
	s := r.GetState()
	return s == integrationsv1.RunState_RUN_STATE_COMPLETE || s == integrationsv1.RunState_RUN_STATE_PARTIAL
}

func ended(r *discoveryv1.Run) bool { return r.GetFinishedAt() != nil }

// newestPublished is the newest run of an integration that left something to ask; nil where there is none.
func (h house) newestPublished(ctx context.Context, integration string) (*discoveryv1.Run, error) {
	res, err := inWorkspace(h, discoveryv1connect.NewRunServiceClient).ListRuns(ctx,
		connect.NewRequest(&discoveryv1.ListRunsRequest{IntegrationId: integration, PageSize: 100}))
	if err != nil {
		return nil, err
	}
	for _, r := range res.Msg.GetRuns() {
		if published(r) {
			return r, nil
		}
	}
	return nil, nil
}

// discover has an integration read once, unless that was done.
func (h house) discover(ctx context.Context, i *integrationsv1.Integration) (bool, error) {
	have, err := h.newestPublished(ctx, i.GetId())
	if err != nil || have != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, discoverWithin)
	defer cancel()
	started, err := inWorkspace(h, discoveryv1connect.NewRunWriteServiceClient).StartRun(ctx, connect.NewRequest(&discoveryv1.StartRunRequest{IntegrationId: i.GetId()}))
	if err != nil {
		return false, err
	}
	run, err := h.await(ctx, started.Msg.GetId())
	switch {
	case err != nil:
		return false, err
	case !published(run):
		return false, fmt.Errorf("the run ended with nothing to show (%s): %s", word(run), run.GetError())
	}
	return true, nil
}

// await follows a run to its end, over streams that may break.
func (h house) await(ctx context.Context, run string) (*discoveryv1.Run, error) {
	client := inWorkspace(h, discoveryv1connect.NewRunServiceClient)
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		last, err := watch(ctx, client, run)
		if last != nil && ended(last) {
			return last, nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("discovery did not end within %s; see `fleet plane status`", discoverWithin), err)
		case <-tick.C:
		}
	}
}

func watch(ctx context.Context, client discoveryv1connect.RunServiceClient, run string) (last *discoveryv1.Run, err error) {
	stream, err := client.WatchRun(ctx, connect.NewRequest(&discoveryv1.WatchRunRequest{RunId: run}))
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	for stream.Receive() {
		if last = stream.Msg(); ended(last) {
			return last, nil
		}
	}
	return last, stream.Err()
}

// word is a run's state in a word.
func word(r *discoveryv1.Run) string {
	return strings.ToLower(strings.TrimPrefix(r.GetState().String(), "RUN_STATE_"))
}
